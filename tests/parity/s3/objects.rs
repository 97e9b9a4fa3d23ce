//! The object port on a real server: write once, append, ranges, listings, big objects.

use super::{BUCKET, block_on, options, root, store, stranger};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Barrier;
use wellspring::object_store::ObjectStores;
use wellspring_domain::ports::{ObjectMeta, PutOutcome, WriteMode};

fn keys(found: &[ObjectMeta]) -> Vec<&str> {
    found.iter().map(|meta| meta.key.as_str()).collect()
}

#[test]
fn of_many_racing_writers_exactly_one_creates_the_object() {
    let store = store("race");
    for key in ["one", "two", "three"] {
        let start = Barrier::new(8);
        let winners: Vec<usize> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|writer| {
                    let (store, start) = (&store, &start);
                    scope.spawn(move || {
                        start.wait();
                        store.put_if_absent(key, &vec![writer; 4096]).unwrap()
                    })
                })
                .collect();
            let outcomes = writers.into_iter().map(|writer| writer.join().unwrap());
            let created = outcomes.enumerate();
            let created = created.filter(|(_, outcome)| *outcome == PutOutcome::Created);
            created.map(|(writer, _)| writer).collect()
        });
        assert_eq!(winners.len(), 1, "{key}");
        let stored = store.get(key).unwrap().unwrap();
        assert_eq!(stored, vec![winners[0] as u8; 4096], "{key}");
    }
}

/// Appends as another program would: read, add, write if unchanged, again until it works.
async fn append_as_a_stranger(key: &str, line: &str) {
    let client = stranger();
    for _ in 0..1_000 {
        let found = client.get_object().bucket(BUCKET).key(key).send().await;
        let put = client.put_object().bucket(BUCKET).key(key);
        let (mut content, put) = match found {
            Ok(found) => {
                let etag = found.e_tag().unwrap().to_owned();
                let content = found.body.collect().await.unwrap().to_vec();
                (content, put.if_match(etag))
            }
            Err(_) => (Vec::new(), put.if_none_match("*")),
        };
        content.extend_from_slice(format!("{line}\n").as_bytes());
        if put.body(content.into()).send().await.is_ok() {
            return;
        }
    }
    panic!("{key} changed under every one of a thousand attempts, or the store is broken");
}

#[test]
fn lines_of_racing_appenders_all_arrive_once_and_whole() {
    let root = root("append");
    let key = format!(
        "{}/log.jsonl",
        root.trim_start_matches("s3://wellspring-tests/")
    );
    let mut patient = options();
    patient.patience.append_attempts_max = 500;
    let store = ObjectStores::with_s3(patient).open(&root).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for line in 0..8 {
                    let line = format!("ours {writer} {line}");
                    store.append_line("log.jsonl", line.as_bytes()).unwrap();
                }
            });
        }
        let key = &key;
        scope.spawn(move || {
            block_on(async {
                for line in 0..8 {
                    append_as_a_stranger(key, &format!("theirs {line}")).await;
                }
            });
        });
    });
    let content = String::from_utf8(store.get("log.jsonl").unwrap().unwrap()).unwrap();
    let lines: Vec<&str> = content.lines().collect();
    assert_eq!(lines.len(), 32);
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), 32, "each once");
}

#[test]
fn reads_give_what_was_written_and_absence_is_no_error() {
    let store = store("read");
    assert_eq!(store.get("a/b").unwrap(), None);
    assert_eq!(store.head("a/b").unwrap(), None);
    assert_eq!(store.get_tail("a/b", 5).unwrap(), None);
    assert!(store.open_reader("a/b").is_err() && store.get_range("a/b", 0, 1).is_err());
    store.put("a/b", b"one").unwrap();
    let before = store.head("a/b").unwrap().unwrap();
    store.put("a/b", b"0123456789").unwrap();
    let after = store.head("a/b").unwrap().unwrap();
    assert_ne!(before.version, after.version);
    assert_eq!((after.key.as_str(), after.size), ("a/b", 10));
    assert_eq!(store.get("a/b").unwrap().unwrap(), b"0123456789");
    assert_eq!(store.get_range("a/b", 4, 3).unwrap(), b"456");
    assert_eq!(store.get_range("a/b", 8, 100).unwrap(), b"89");
    assert_eq!(store.get_range("a/b", 20, 1).unwrap(), b"");
    let tail = store.get_tail("a/b", 4).unwrap().unwrap();
    assert_eq!((tail.size, tail.bytes.as_slice()), (10, &b"6789"[..]));
    assert_eq!(store.get_tail("a/b", 40).unwrap().unwrap().bytes.len(), 10);
    store.put("empty", b"").unwrap();
    assert_eq!(store.get("empty").unwrap().unwrap(), b"");
    assert_eq!(store.get_tail("empty", 4).unwrap().unwrap().size, 0);
    let mut all = Vec::new();
    store
        .open_reader("empty")
        .unwrap()
        .read_to_end(&mut all)
        .unwrap();
    assert_eq!(all, b"");
    assert_eq!(store.absolute("x"), format!("{}x", store.absolute("")));
}

#[test]
fn listings_are_complete_sorted_by_key_and_only_of_what_is_below() {
    let store = store("list");
    for key in ["o/d/x", "o/d-", "o/d.y", "o/d/a/b", "o/e", "od/x"] {
        store.put(key, key.as_bytes()).unwrap();
    }
    let all = store.list("").unwrap();
    assert_eq!(
        keys(&all),
        ["o/d-", "o/d.y", "o/d/a/b", "o/d/x", "o/e", "od/x"]
    );
    assert_eq!(keys(&store.list("o/d").unwrap()), ["o/d/a/b", "o/d/x"]);
    assert_eq!(keys(&store.list("o/d/").unwrap()), ["o/d/a/b", "o/d/x"]);
    assert_eq!(store.list("nowhere").unwrap(), []);
    assert_eq!(all[0].size, 4);
    assert_eq!(all[0].version, store.head("o/d-").unwrap().unwrap().version);
}

#[test]
fn a_listing_of_more_than_a_page_misses_nothing() {
    let store = store("pages");
    let wanted: Vec<String> = (0..1_100).map(|n| format!("many/{n:05}")).collect();
    std::thread::scope(|scope| {
        for some in wanted.chunks(1_100 / 8 + 1) {
            let store = &store;
            scope.spawn(move || some.iter().for_each(|key| store.put(key, b"x").unwrap()));
        }
    });
    assert_eq!(keys(&store.list("many").unwrap()), wanted);
}

#[test]
fn a_big_object_is_written_in_parts_and_read_back_in_ranges() {
    let store = store("big");
    let bytes: Vec<u8> = (0..20_000_003u64)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let write = |mode: WriteMode| {
        let mut writer = store.open_writer("big", mode).unwrap();
        for piece in bytes.chunks(777_777) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    };
    assert_eq!(write(WriteMode::Once), PutOutcome::Created);
    let version = store.head("big").unwrap().unwrap().version;
    assert_eq!(write(WriteMode::Once), PutOutcome::AlreadyExists);
    assert_eq!(store.head("big").unwrap().unwrap().version, version);
    assert_eq!(write(WriteMode::Replace), PutOutcome::Created);
    let mut all = Vec::new();
    store
        .open_reader("big")
        .unwrap()
        .read_to_end(&mut all)
        .unwrap();
    assert!(all == bytes, "the same bytes come back");
    assert!(store.get("big").unwrap().unwrap() == bytes);
}

#[test]
fn a_small_object_of_a_writer_is_one_request_and_written_once_too() {
    let store = store("small");
    let write = |bytes: &[u8]| {
        let mut writer = store.open_writer("small", WriteMode::Once).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    };
    assert_eq!(write(b"first"), PutOutcome::Created);
    assert_eq!(write(b"second"), PutOutcome::AlreadyExists);
    assert_eq!(store.get("small").unwrap().unwrap(), b"first");
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing_behind() {
    let root = root("dropped");
    let store = ObjectStores::with_s3(options()).open(&root).unwrap();
    let mut writer = store.open_writer("given/up", WriteMode::Once).unwrap();
    writer.write_all(&vec![7; 20 << 20]).unwrap();
    drop(writer);
    assert_eq!(store.list("").unwrap(), []);
    let uploads = block_on(async {
        let request = stranger().list_multipart_uploads().bucket(BUCKET);
        let prefix = root.trim_start_matches("s3://wellspring-tests/");
        request.prefix(prefix).send().await.unwrap()
    });
    assert_eq!(uploads.uploads().len(), 0);
}

#[test]
fn the_store_may_be_called_from_blocking_tasks_and_even_from_an_async_worker() {
    let store = store("async");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let shared = store.clone();
    let stored = runtime.block_on(async move {
        let blocking = shared.clone();
        let put = tokio::task::spawn_blocking(move || blocking.put("x", b"there"));
        put.await.unwrap().unwrap();
        // A mistake, but one that must not hang.
        tokio::spawn(async move { shared.get("x") }).await.unwrap()
    });
    assert_eq!(stored.unwrap().unwrap(), b"there");
}

#[test]
fn keys_that_leave_the_root_are_refused_before_anything_is_sent() {
    let store = store("keys");
    for key in [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "a/",
        "a\0b",
    ] {
        let error = store.put(key, b"").unwrap_err();
        assert_eq!(error.code(), "STORE_KEY_INVALID", "{key:?}");
        assert_eq!(store.get(key).unwrap_err().code(), "STORE_KEY_INVALID");
    }
}
