//! A store that is slow (T11): the knobs are kept, a wait is a wait, and afterwards all is well.

use super::{options, root};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wellspring::object_store::ObjectStores;
use wellspring::object_store::s3::{S3Options, S3Patience};

/// Passes bytes on to the server; answers wait for as many milliseconds as it is told.
pub struct SlowDoor {
    pub address: String,
    delay_ms: Arc<AtomicU64>,
}

impl SlowDoor {
    pub fn before(server: &str) -> SlowDoor {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let (server, delay) = (server.to_owned(), delay_ms.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(&server) else {
                    return;
                };
                let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                std::thread::spawn(move || pass(from, to, &AtomicU64::new(0)));
                let delay = delay.clone();
                std::thread::spawn(move || pass(upstream, client, &delay));
            }
        });
        SlowDoor { address, delay_ms }
    }

    pub fn slow_down(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap();
        self.delay_ms.store(delay, Ordering::Relaxed);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, delay_ms: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed)));
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn through(door: &SlowDoor, read_timeout: Duration, attempts_max: u32) -> ObjectStores {
    ObjectStores::with_s3(S3Options {
        endpoint: Some(format!("http://{}", door.address)),
        patience: S3Patience {
            read_timeout,
            attempts_max,
            ..S3Patience::default()
        },
        ..options()
    })
}

#[test]
fn a_store_slower_than_the_read_timeout_is_unavailable_and_then_is_there_again() {
    let server = crate::support::s3_endpoint();
    let door = SlowDoor::before(server.strip_prefix("http://").unwrap());
    let place = root("slow");
    let patient = through(&door, Duration::from_secs(20), 2)
        .open(&place)
        .unwrap();
    let hasty = through(&door, Duration::from_millis(300), 2)
        .open(&place)
        .unwrap();
    patient.put("metadata.json", b"{}").unwrap();
    door.slow_down(Duration::from_secs(2));
    assert_eq!(patient.get("metadata.json").unwrap().unwrap(), b"{}");
    let begun = Instant::now();
    let error = hasty.get("metadata.json").unwrap_err();
    assert_eq!(error.code(), "STORE_UNAVAILABLE", "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "two attempts, then told"
    );
    door.slow_down(Duration::ZERO);
    crate::support::wait_until("the store answers in time", Duration::from_secs(30), || {
        hasty.get("metadata.json").is_ok()
    });
}

#[test]
fn what_a_lost_answer_wrote_is_recognised_as_our_own() {
    let server = crate::support::s3_endpoint();
    let door = SlowDoor::before(server.strip_prefix("http://").unwrap());
    let place = root("lost");
    let hasty = through(&door, Duration::from_millis(500), 12)
        .open(&place)
        .unwrap();
    hasty.put("warm", b"up").unwrap();
    door.slow_down(Duration::from_secs(2));
    let outcome = std::thread::scope(|scope| {
        let writing = scope.spawn(|| hasty.put_if_absent("once", b"ours"));
        std::thread::sleep(Duration::from_millis(1_500));
        door.slow_down(Duration::ZERO);
        writing.join().unwrap()
    });
    assert_eq!(
        outcome.unwrap(),
        wellspring_domain::ports::PutOutcome::Created,
        "the first request wrote it although its answer came too late"
    );
}
