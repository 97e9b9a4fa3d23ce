//! What the store does when answers are lost, late, broken or refused.

use super::fake_server::{Fake, Reply, Request};
use super::*;
use std::io::{Read, Write};
use std::time::Duration;
use wellspring_domain::ports::{ObjectStore, PutOutcome, WriteMode};

use crate::settings::secret::Secret;

const MARK: &str = "x-amz-meta-wellspring-write";

fn options(endpoint: &str) -> S3Options {
    S3Options {
        endpoint: Some(endpoint.to_owned()),
        region: None,
        path_style: Some(true),
        credentials: Some(S3Credentials {
            access_key_id: Secret::new("id"),
            secret_access_key: Secret::new("very-secret"),
            session_token: None,
        }),
        patience: S3Patience {
            read_timeout: Duration::from_millis(400),
            attempts_max: 3,
            append_attempts_max: 3,
            append_backoff_ms: 1,
            ..S3Patience::default()
        },
    }
}

fn store(
    handler: impl Fn(usize, &Request) -> Option<Reply> + Send + Sync + 'static,
) -> (Fake, S3Store) {
    let fake = Fake::start(handler);
    let opener = S3Opener::new(options(&fake.endpoint));
    let store = opener.open("s3://bucket/prefix").unwrap();
    (fake, store)
}

fn object(body: &[u8]) -> Reply {
    Reply::of(200).with("etag", "\"one\"").body(body)
}

#[test]
fn requests_go_to_the_path_of_the_bucket_never_to_a_host_of_its_name() {
    let (fake, store) = store(|_, _| Some(object(b"x")));
    store.get("a b/c").unwrap();
    let seen = &fake.seen()[0];
    assert!(
        seen.target.starts_with("/bucket/prefix/a%20b/c"),
        "{seen:?}"
    );
    assert!(seen.header("host").starts_with("localhost:"), "{seen:?}");
}

#[test]
fn a_busy_store_is_asked_again_and_an_outage_ends_after_the_attempts() {
    let (fake, calm) = store(|n, _| match n {
        0 => Some(Reply::error(503, "SlowDown")),
        1 => None,
        _ => Some(object(b"there")),
    });
    assert_eq!(calm.get("x").unwrap().unwrap(), b"there");
    assert_eq!(fake.seen().len(), 3);
    let (fake, gone) = store(|_, _| Some(Reply::error(500, "InternalError")));
    let error = gone.get("x").unwrap_err();
    assert_eq!(error.code(), "STORE_UNAVAILABLE");
    assert!(error.to_string().contains("InternalError"), "{error}");
    assert_eq!(fake.seen().len(), 3);
    let (fake, refused) = store(|_, _| Some(Reply::error(403, "AccessDenied")));
    let error = refused.put("x", b"y").unwrap_err();
    assert_eq!(error.code(), "S3_ACCESS_DENIED");
    assert!(!format!("{error:?}").contains("very-secret"));
    assert_eq!(fake.seen().len(), 1, "a refusal is not tried again");
}

#[test]
fn a_body_that_breaks_or_stands_still_is_continued_where_it_stopped() {
    let part = |request: &Request| {
        let range = request.header("range").to_owned();
        let from: usize = range["bytes=".len()..range.len() - 2].parse().unwrap();
        assert_eq!(request.header("if-match"), "\"one\"");
        let all = b"0123456789";
        Reply::of(206)
            .with("etag", "\"one\"")
            .with("content-range", format!("bytes {from}-9/10"))
            .body(&all[from..])
    };
    let (fake, store) = store(move |n, request| {
        Some(match n {
            0 => Reply {
                cut_after: Some(4),
                ..object(b"0123456789")
            },
            1 => Reply {
                cut_after: Some(3),
                stall: Some(Duration::from_secs(1)),
                ..part(request)
            },
            _ => part(request),
        })
    });
    assert_eq!(store.get("x").unwrap().unwrap(), b"0123456789");
    let ranges: Vec<String> = fake
        .seen()
        .iter()
        .map(|seen| seen.header("range").to_owned())
        .collect();
    assert_eq!(ranges, ["", "bytes=4-9", "bytes=7-9"]);
}

#[test]
fn an_object_that_changes_while_it_is_read_is_not_mixed_with_the_new_one() {
    let (_fake, store) = store(|n, _| {
        Some(match n {
            0 => Reply {
                cut_after: Some(4),
                ..object(b"0123456789")
            },
            _ => Reply::error(412, "PreconditionFailed"),
        })
    });
    let error = store.get("x").unwrap_err();
    assert!(error.to_string().contains("changed"), "{error}");
}

/// Takes the first write and loses the answer; then the object is there, with the mark of that write or of
/// another one.
fn after_a_lost_answer(ours: bool) -> (Fake, S3Store) {
    let mark = std::sync::Mutex::new(String::new());
    store(move |n, request| match (n, request.method.as_str()) {
        (0, _) => {
            *mark.lock().unwrap() = request.header(MARK).to_owned();
            None
        }
        (_, "PUT") => Some(Reply::error(412, "PreconditionFailed")),
        _ => {
            let mark = mark.lock().unwrap().clone();
            Some(Reply::of(200).with(MARK, if ours { mark } else { "another".into() }))
        }
    })
}

#[test]
fn after_a_lost_answer_our_own_object_is_told_from_anothers() {
    let (fake, store) = after_a_lost_answer(true);
    assert_eq!(store.put_if_absent("x", b"y").unwrap(), PutOutcome::Created);
    assert_eq!(fake.seen()[0].header("if-none-match"), "*");
    let (_fake, store) = after_a_lost_answer(false);
    let outcome = store.put_if_absent("x", b"y").unwrap();
    assert_eq!(outcome, PutOutcome::AlreadyExists);
}

#[test]
fn a_conditional_write_that_meets_another_is_tried_again() {
    let (fake, store) = store(|n, _| match n {
        0 => Some(Reply::error(409, "ConditionalRequestConflict")),
        _ => Some(Reply::of(200).with("etag", "\"two\"")),
    });
    assert_eq!(store.put_if_absent("x", b"y").unwrap(), PutOutcome::Created);
    assert_eq!(fake.seen().len(), 2);
}

#[test]
fn a_line_whose_answer_was_lost_stands_in_the_object_once() {
    let content = std::sync::Mutex::new((b"first\n".to_vec(), 0));
    let (fake, store) = store(move |_, request| {
        let mut content = content.lock().unwrap();
        match request.method.as_str() {
            "GET" => Some(object(&content.0)),
            _ => {
                content.1 += 1;
                content.0 = request.body.clone();
                (content.1 > 1).then(|| Reply::of(200))
            }
        }
    });
    store.append_line("log", b"second").unwrap();
    assert_eq!(store.get("log").unwrap().unwrap(), b"first\nsecond\n");
    let puts = fake.seen().into_iter().filter(|seen| seen.method == "PUT");
    let puts: Vec<Request> = puts.collect();
    assert_eq!(puts.len(), 1);
    assert_eq!(puts[0].header("if-match"), "\"one\"");
}

#[test]
fn an_append_that_loses_every_race_gives_up_under_its_code() {
    let (fake, store) = store(|_, request| {
        Some(match request.method.as_str() {
            "GET" => object(b"line\n"),
            _ => Reply::error(412, "PreconditionFailed"),
        })
    });
    let error = store.append_line("log", b"mine").unwrap_err();
    assert_eq!(error.code(), "S3_APPEND_CONFLICT");
    let puts = fake.seen().into_iter().filter(|seen| seen.method == "PUT");
    assert_eq!(puts.count(), 3);
}

#[test]
fn a_completed_upload_whose_answer_was_lost_is_our_own() {
    let mark = std::sync::Mutex::new(String::new());
    let (_fake, store) = store(move |_, request| {
        let created = request.target.contains("uploads") && request.method == "POST";
        match request.method.as_str() {
            "POST" if created => {
                *mark.lock().unwrap() = request.header(MARK).to_owned();
                let body = "<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>";
                Some(Reply::of(200).body(body.as_bytes()))
            }
            "PUT" => Some(Reply::of(200).with("etag", "\"part\"")),
            // The first completion is lost, the next finds no upload any more.
            "POST" if mark.lock().unwrap().ends_with('!') => {
                Some(Reply::error(404, "NoSuchUpload"))
            }
            "POST" => {
                mark.lock().unwrap().push('!');
                None
            }
            _ => {
                let mark = mark.lock().unwrap().trim_end_matches('!').to_owned();
                Some(Reply::of(200).with(MARK, mark))
            }
        }
    });
    let mut writer = store.open_writer("big", WriteMode::Once).unwrap();
    writer.write_all(&vec![1; 9 << 20]).unwrap();
    assert_eq!(writer.finish().unwrap(), PutOutcome::Created);
}

#[test]
fn a_reader_says_what_the_store_says() {
    let (_fake, store) = store(|_, _| Some(Reply::error(404, "NoSuchKey")));
    let error = store.open_reader("x").err().unwrap();
    assert!(error.to_string().contains("does not exist"), "{error}");
    let (_fake, store) = self::store(|_, _| {
        Some(
            Reply::of(206)
                .with("etag", "\"one\"")
                .with("content-range", "bytes 0-3/4")
                .body(b"1234"),
        )
    });
    let mut all = Vec::new();
    store
        .open_reader("x")
        .unwrap()
        .read_to_end(&mut all)
        .unwrap();
    assert_eq!(all, b"1234");
}

#[test]
fn what_is_missing_or_makes_no_sense_is_refused_before_anything_is_sent() {
    let open = |change: &dyn Fn(&mut S3Options), root: &str| {
        let mut options = options("http://127.0.0.1:1");
        change(&mut options);
        let opened = S3Opener::new(options).open(root);
        opened.err().map(|error| error.code())
    };
    let same: &dyn Fn(&mut S3Options) = &|_| {};
    assert_eq!(open(same, "s3://bucket"), None);
    for root in [
        "s3://",
        "s3://b",
        "s3://bu cket",
        "s3://bucket/a/../b",
        "gs://bucket",
    ] {
        assert_eq!(open(same, root), Some("S3_ROOT_INVALID"), "{root}");
    }
    for endpoint in ["localhost:9000", "http://", "http://id:secret@host"] {
        let code = open(&|o| o.endpoint = Some(endpoint.to_owned()), "s3://bucket");
        assert_eq!(code, Some("S3_ENDPOINT_INVALID"), "{endpoint}");
    }
    let code = open(&|o| o.credentials = None, "s3://bucket");
    assert_eq!(code, Some("S3_CREDENTIALS_MISSING"));
    let code = open(&|o| o.endpoint = None, "s3://bucket");
    assert_eq!(code, Some("S3_REGION_MISSING"));
}
