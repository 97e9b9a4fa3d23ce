//! What a folder promises as an object store.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Barrier;
use tempfile::TempDir;

fn store() -> (TempDir, LocalFiles) {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalFiles::new(folder.path().join("not/yet/there"));
    (folder, store)
}

fn keys(found: &[ObjectMeta]) -> Vec<&str> {
    found.iter().map(|meta| meta.key.as_str()).collect()
}

#[test]
fn a_write_creates_all_parents_and_a_read_of_nothing_is_none() {
    let (_folder, store) = store();
    assert_eq!(store.get("a/b/c.json").unwrap(), None);
    assert_eq!(store.head("a").unwrap(), None);
    store.put("a/b/c.json", b"one").unwrap();
    store.put("a/b/c.json", b"two").unwrap();
    assert_eq!(store.get("a/b/c.json").unwrap().unwrap(), b"two");
    assert_eq!(store.head("a/b").unwrap(), None, "a folder is no object");
    assert_eq!(store.get("a/b/c.json/d").unwrap(), None);
}

#[test]
fn a_write_once_object_keeps_its_first_bytes() {
    let (_folder, store) = store();
    assert_eq!(
        store.put_if_absent("x", b"first").unwrap(),
        PutOutcome::Created
    );
    assert_eq!(
        store.put_if_absent("x", b"second").unwrap(),
        PutOutcome::AlreadyExists
    );
    assert_eq!(store.get("x").unwrap().unwrap(), b"first");
}

#[test]
fn a_leftover_of_a_writer_that_died_is_neither_used_nor_listed() {
    let (_folder, store) = store();
    store.put("x", b"one").unwrap();
    let next = TEMPORARY_COUNTER.load(Ordering::Relaxed);
    for number in next..next + 40 {
        let name = format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id());
        fs::write(store.root().join(name), b"half").unwrap();
    }
    store.put("x", b"two").unwrap();
    assert_eq!(store.get("x").unwrap().unwrap(), b"two");
    assert_eq!(keys(&store.list("").unwrap()), ["x"]);
}

#[test]
fn of_many_racing_writers_exactly_one_creates_the_object() {
    let (_folder, store) = store();
    let start = Barrier::new(8);
    let winners: Vec<usize> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let (store, start) = (&store, &start);
                scope.spawn(move || {
                    start.wait();
                    store.put_if_absent("race", &vec![writer; 4096]).unwrap()
                })
            })
            .collect();
        let outcomes = writers.into_iter().map(|writer| writer.join().unwrap());
        let created = outcomes
            .enumerate()
            .filter(|(_, outcome)| *outcome == PutOutcome::Created);
        created.map(|(writer, _)| writer).collect()
    });
    assert_eq!(winners.len(), 1);
    assert_eq!(
        store.get("race").unwrap().unwrap(),
        vec![winners[0] as u8; 4096]
    );
    assert_eq!(
        keys(&store.list("").unwrap()),
        ["race"],
        "no temporary file stays"
    );
}

#[test]
fn lines_of_racing_appenders_stay_whole() {
    let (_folder, store) = store();
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..20 {
                    store
                        .append_line("log.jsonl", &[b'a' + writer; 700])
                        .unwrap();
                }
            });
        }
    });
    let bytes = store.get("log.jsonl").unwrap().unwrap();
    let lines: Vec<&[u8]> = bytes
        .split(|byte| *byte == b'\n')
        .filter(|l| !l.is_empty())
        .collect();
    assert_eq!(lines.len(), 80);
    assert!(
        lines
            .iter()
            .all(|line| line.len() == 700 && line.iter().all(|b| *b == line[0]))
    );
}

#[test]
fn a_torn_last_line_is_not_glued_to_the_next() {
    let (_folder, store) = store();
    store.put("log", b"whole\ntor").unwrap();
    store.append_line("log", b"next").unwrap();
    assert_eq!(store.get("log").unwrap().unwrap(), b"whole\ntor\nnext\n");
}

#[test]
fn a_listing_is_recursive_sorted_by_key_and_free_of_temporary_files() {
    let (_folder, store) = store();
    for key in ["p/b/2", "p/a", "p/b/1", "q/z", "p-x/1"] {
        store.put(key, key.as_bytes()).unwrap();
    }
    fs::write(store.root().join("p/.writing-1-1"), b"half").unwrap();
    assert_eq!(keys(&store.list("p").unwrap()), ["p/a", "p/b/1", "p/b/2"]);
    assert_eq!(keys(&store.list("p/").unwrap()), ["p/a", "p/b/1", "p/b/2"]);
    assert_eq!(store.list("").unwrap().len(), 5);
    assert_eq!(store.list("nowhere").unwrap(), []);
    assert_eq!(store.list("p").unwrap()[0].size, 3);
}

#[test]
fn the_version_changes_when_the_object_does() {
    let (_folder, store) = store();
    store.put("x", b"one").unwrap();
    let before = store.head("x").unwrap().unwrap();
    store.put("x", b"two").unwrap();
    assert_ne!(before.version, store.head("x").unwrap().unwrap().version);
}

#[test]
fn a_range_ends_with_the_object_and_a_reader_gives_all_of_it() {
    let (_folder, store) = store();
    store.put("x", b"0123456789").unwrap();
    assert_eq!(store.get_range("x", 4, 3).unwrap(), b"456");
    assert_eq!(store.get_range("x", 8, 100).unwrap(), b"89");
    assert_eq!(store.get_range("x", 20, 1).unwrap(), b"");
    assert!(store.get_range("gone", 0, 1).is_err());
    let mut all = Vec::new();
    store
        .open_reader("x")
        .unwrap()
        .read_to_end(&mut all)
        .unwrap();
    assert_eq!(all, b"0123456789");
}

#[test]
fn keys_that_leave_the_root_are_refused_by_every_operation() {
    let (_folder, store) = store();
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
        let refused = |error: StoreError| assert_eq!(error.code(), "STORE_KEY_INVALID", "{key:?}");
        refused(store.put(key, b"").unwrap_err());
        refused(store.put_if_absent(key, b"").unwrap_err());
        refused(store.append_line(key, b"").unwrap_err());
        refused(store.get(key).unwrap_err());
        refused(store.get_range(key, 0, 1).unwrap_err());
        refused(store.open_reader(key).err().unwrap());
        refused(store.head(key).unwrap_err());
    }
    assert_eq!(store.list("../x").unwrap_err().code(), "STORE_KEY_INVALID");
    assert!(!store.root().exists(), "nothing was created");
}

#[test]
fn the_absolute_form_keeps_the_root_as_given() {
    assert_eq!(LocalFiles::new("runs").absolute("a/b"), "runs/a/b");
    assert_eq!(LocalFiles::new("/data/runs/").absolute("a"), "/data/runs/a");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, Vec<u8>),
    PutIfAbsent(u8, Vec<u8>),
    Append(u8, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let line = proptest::collection::vec(b'a'..=b'z', 0..20);
    prop_oneof![
        (0u8..6, bytes()).prop_map(|(key, bytes)| Step::Put(key, bytes)),
        (0u8..6, bytes()).prop_map(|(key, bytes)| Step::PutIfAbsent(key, bytes)),
        (0u8..6, line).prop_map(|(key, line)| Step::Append(key, line)),
    ]
}

/// The store as a map: what every sequence of writes must leave behind.
fn apply(model: &mut BTreeMap<String, Vec<u8>>, key: String, step: Step) {
    match step {
        Step::Put(_, bytes) => {
            model.insert(key, bytes);
        }
        Step::PutIfAbsent(_, bytes) => {
            model.entry(key).or_insert(bytes);
        }
        Step::Append(_, line) => {
            let content = model.entry(key).or_default();
            if content.last().is_some_and(|last| *last != b'\n') {
                content.push(b'\n');
            }
            content.extend_from_slice(&line);
            content.push(b'\n');
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sequence_of_writes_leaves_what_a_map_would_hold(
        steps in proptest::collection::vec(step(), 1..12)
    ) {
        let (_folder, store) = store();
        let mut model = BTreeMap::new();
        for step in steps {
            let (Step::Put(number, _) | Step::PutIfAbsent(number, _) | Step::Append(number, _)) = &step;
            let key = format!("folder-{}/object-{number}", number % 2);
            match &step {
                Step::Put(_, bytes) => store.put(&key, bytes).unwrap(),
                Step::PutIfAbsent(_, bytes) => { store.put_if_absent(&key, bytes).unwrap(); }
                Step::Append(_, line) => store.append_line(&key, line).unwrap(),
            }
            apply(&mut model, key, step);
        }
        let listed = store.list("").unwrap();
        prop_assert_eq!(keys(&listed), model.keys().map(String::as_str).collect::<Vec<_>>());
        for (key, bytes) in &model {
            let stored = store.get(key).unwrap();
            prop_assert_eq!(stored.as_ref(), Some(bytes));
        }
    }
}

#[test]
fn a_link_that_leads_out_of_the_root_is_never_followed() {
    let (folder, store) = store();
    store.put("inside/a", b"own").unwrap();
    let secret = folder.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), b"secret").unwrap();
    let link = |name: &str, target: &Path| {
        std::os::unix::fs::symlink(target, store.root().join(name)).unwrap();
    };
    link("file", &secret.join("key"));
    link("folder", &secret);
    let refused = |result: Result<(), StoreError>| {
        assert_eq!(result.unwrap_err().code(), "STORE_KEY_INVALID");
    };
    for key in ["file", "folder/key"] {
        refused(store.get(key).map(drop));
        refused(store.get_range(key, 0, 6).map(drop));
        refused(store.open_reader(key).map(drop));
        refused(store.head(key).map(drop));
        assert_eq!(store.local_file(key), None, "{key}");
    }
    refused(store.list("folder").map(drop));
    assert!(
        store.list("").is_err(),
        "a listing says that a link leads out"
    );
    fs::remove_file(store.root().join("file")).unwrap();
    fs::remove_file(store.root().join("folder")).unwrap();
    link("within", &store.root().join("inside"));
    assert_eq!(store.get("within/a").unwrap().as_deref(), Some(&b"own"[..]));
    assert_eq!(keys(&store.list("").unwrap()), ["inside/a", "within/a"]);
}
