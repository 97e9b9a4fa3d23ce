//! The stack itself: it answers where its environment says, and a killed server comes back there with its data.

use crate::support::{self, Server};
use std::net::TcpStream;
use std::time::Duration;

/// Host and port of `scheme://[user:password@]host:port[/...]`.
fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap();
    authority.rsplit('@').next().unwrap().to_owned()
}

fn answers(url: &str) -> bool {
    TcpStream::connect(address(url)).is_ok()
}

fn urls() -> [(Server, String); 4] {
    [
        (Server::S3, support::s3_endpoint()),
        (Server::Kinesis, support::kinesis_endpoint()),
        (Server::KinesisMock, support::kinesis_mock_endpoint()),
        (Server::Postgres, support::postgres_dsn()),
    ]
}

#[test]
fn every_server_listens_on_loopback_where_the_environment_says() {
    for (server, url) in urls() {
        let address = address(&url);
        assert!(address.starts_with("127.0.0.1:"), "{server:?}: {address}");
        assert!(answers(&url), "{server:?} does not answer at {address}");
    }
}

#[test]
fn credentials_are_generated_and_names_are_never_given_twice() {
    let keys = support::aws_keys();
    assert!(keys.access_key_id.len() >= 16 && keys.secret_access_key.len() >= 32);
    assert_eq!(support::region(), "us-east-1");
    assert_ne!(support::unique_name("a"), support::unique_name("a"));
}

mod faults {
    use super::*;
    use crate::support::Faults;

    #[test]
    fn a_killed_server_comes_back_at_its_place() {
        let faults = Faults::begin();
        let url = support::kinesis_mock_endpoint();
        faults.kill(Server::KinesisMock);
        assert!(!answers(&url), "it was killed");
        faults.restart(Server::KinesisMock);
        support::wait_until("it answers again", Duration::from_secs(30), || {
            answers(&url)
        });
    }
}
