//! What a bucket refuses, by code, without a secret in the sentence; and whose credentials count (T8).

use super::{options, root};
use crate::support;
use std::path::Path;
use std::process::{Command, Output};
use wellspring::object_store::ObjectStores;
use wellspring::object_store::s3::{S3Credentials, S3Options};
use wellspring::settings::secret::Secret;
use wellspring_domain::ports::StoreError;

fn get(options: S3Options, root: &str) -> StoreError {
    let store = ObjectStores::with_s3(options).open(root).unwrap();
    store.get("x").unwrap_err()
}

#[test]
fn wrong_credentials_and_absent_buckets_are_refused_for_good() {
    let place = root("refused");
    let with = |id: &str, secret: &str| S3Options {
        credentials: Some(S3Credentials {
            access_key_id: Secret::new(id),
            secret_access_key: Secret::new(secret),
            session_token: None,
        }),
        ..options()
    };
    let known = support::aws_keys().access_key_id;
    for wrong in [with(&known, "not-the-secret"), with("nobody", "nothing")] {
        let error = get(wrong, &place);
        assert_eq!(error.code(), "S3_CREDENTIALS_REFUSED", "{error}");
        assert!(!format!("{error:?}").contains("not-the-secret"));
    }
    let error = get(options(), "s3://there-is-no-such-bucket");
    assert_eq!(error.code(), "S3_BUCKET_MISSING", "{error}");
    let nobody = ObjectStores::with_s3(options()).open_existing(&format!("{place}/world"));
    assert_eq!(nobody.err().unwrap().code(), "STORE_ROOT_NOT_FOUND");
}

/// Shows a run of a bucket with the built program; credentials only where the caller puts them.
fn show(home: &Path, root: &str, keys: &[(&str, String)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring"));
    command
        .args([
            "--format",
            "json",
            "run",
            "show",
            "platform_20260101T000000Z",
        ])
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("PLATFORM_STORE_ROOT", root)
        .env("OBJECT_STORE_ENDPOINT", support::s3_endpoint())
        .env("OBJECT_STORE_REGION", support::region())
        .env("SR_S3_PATH_STYLE", "true");
    for (name, value) in keys {
        command.env(name, value);
    }
    command.output().unwrap()
}

#[test]
fn the_environments_credentials_count_and_a_shared_file_never_does() {
    let place = root("shared-file");
    let home = tempfile::tempdir().unwrap();
    let keys = support::aws_keys();
    let (id, secret) = (keys.access_key_id, keys.secret_access_key);
    let file = |id: &str, secret: &str| {
        format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
    };
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let shared = home.path().join(".aws/credentials");
    std::fs::write(&shared, file("shared", "wrong")).unwrap();
    let environment = [
        ("AWS_ACCESS_KEY_ID", id.clone()),
        ("AWS_SECRET_ACCESS_KEY", secret.clone()),
    ];
    let shown = show(home.path(), &place, &environment);
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.success(), "{said}");
    std::fs::write(&shared, file(&id, &secret)).unwrap();
    let shown = show(home.path(), &place, &[]);
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(said.contains("S3_CREDENTIALS_MISSING"), "{said}");
    assert!(!said.contains(&secret));
}
