//! What a scenario run pays to hash its world, beside the best the contract's recipe allows.
//!
//! `cargo bench --bench evidence`. The recipe: one digest over all files of an output, one after the other, so
//! outputs can be hashed beside each other and a digest cannot be split. The best possible is two threads, each with
//! a sequential digest, the largest output first; with the `sha2` crate and with the assembly of the TLS library.
//! "Events" are bytes here. `WELLSPRING_BENCH_EVENTS` is the size of the world (default 400,000).

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod floor;
#[allow(dead_code, missing_docs)]
mod support;

use floor::digests::{assembly, assembly_digest, crate_digest};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use support::report::Goal;
use support::session::Session;
use support::world::World;
use wellspring::object_store::ObjectStores;
use wellspring::world_files::contract_files::ContractFiles;
use wellspring::world_files::evidence_digest::{EvidenceDigests, LocatorOutcome};
use wellspring::world_files::pack_files::read_run_receipt;
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::ObjectStore;
use wellspring_domain::world::catalogue::{OutputEntry, WorldTokens};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const READ_BYTES: usize = 1 << 20;

fn main() {
    let mut session = Session::start("evidence");
    let world = World::generate(support::number("WELLSPRING_BENCH_EVENTS", 400_000), 4);
    let settings = world.settings(&world.folder.path().join("runs"), &[]);
    let contracts = ContractFiles::load(&settings).expect("contract files");
    let stores: ObjectStores = settings.object_stores();
    let store = stores.open(&world.root).expect("the world's store");
    let receipt = read_run_receipt(&*store).expect("a receipt");
    let tokens = receipt.tokens("baseline_v1");
    let entries: Vec<&OutputEntry> = contracts.catalogue.outputs().iter().collect();
    let outputs = Outputs::find(&*store, &world.root, &entries, &tokens);
    single_digest(&mut session, &outputs);
    whole_world(&mut session, &outputs, &*store, &world.root, &tokens);
    session.finish();
}

/// Outputs that exist, the largest first, and their files in digest order.
struct Outputs<'a> {
    entries: Vec<&'a OutputEntry>,
    files: Vec<Vec<PathBuf>>,
    expected: Vec<Hash32>,
    bytes: u64,
}

impl<'a> Outputs<'a> {
    fn find(
        store: &dyn ObjectStore,
        root: &str,
        entries: &[&'a OutputEntry],
        tokens: &WorldTokens,
    ) -> Outputs<'a> {
        let digests = EvidenceDigests::default();
        let mut found = Vec::new();
        for entry in entries {
            let outcome = digests.locator_for(store, root, entry, tokens);
            if let LocatorOutcome::Found(output) = outcome.expect("evidence") {
                let size: u64 = output.files.iter().map(|file| file.size).sum();
                let path = |key: &String| Path::new(root).join(key);
                let files = output.files.iter().map(|file| path(&file.key)).collect();
                let digest = output.locator.content_digest.expect("a digest");
                let digest = Hash32::from_hex(digest.hex.as_bytes()).expect("hex");
                found.push((size, *entry, files, digest));
            }
        }
        found.sort_by_key(|(size, ..)| std::cmp::Reverse(*size));
        let mut outputs = Outputs {
            entries: Vec::new(),
            files: Vec::new(),
            expected: Vec::new(),
            bytes: 0,
        };
        for (size, entry, files, digest) in found {
            outputs.bytes += size;
            outputs.entries.push(entry);
            outputs.files.push(files);
            outputs.expected.push(digest);
        }
        println!("{} outputs, {} bytes", outputs.files.len(), outputs.bytes);
        outputs
    }

    /// Digests of all outputs on two threads, each taking the largest that is left.
    fn hash_with(&self, digest: fn(&[PathBuf]) -> Hash32) {
        let next = Mutex::new(self.files.iter().zip(&self.expected));
        let work = || {
            while let Some((files, expected)) = { next.lock().expect("no panic").next() } {
                assert_eq!(digest(files), *expected);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            work();
        });
    }
}

/// One long message.
fn single_digest(session: &mut Session, outputs: &Outputs<'_>) {
    let bytes: Vec<u8> = (0..64 << 20).map(|n: u32| (n >> 7) as u8).collect();
    let whole = || std::iter::once(bytes.as_slice());
    let work = session.work("one digest of 64 MiB, per byte", bytes.len() as u64);
    work.way("floor: assembly of the TLS library", |watch| {
        watch.measure(|| assembly_digest(whole()));
    })
    .way("sha2 crate", |watch| {
        watch.measure(|| crate_digest(whole()));
    })
    .run();
    assert_eq!(assembly_digest(whole()), crate_digest(whole()));
    assert!(outputs.bytes > 0, "the world has files");
}

fn whole_world(
    session: &mut Session,
    outputs: &Outputs<'_>,
    store: &dyn ObjectStore,
    root: &str,
    tokens: &WorldTokens,
) {
    let work = session.work("SR evidence of a world, per byte", outputs.bytes);
    work.way("best possible: assembly, outputs in parallel", |watch| {
        watch.measure(|| outputs.hash_with(hash_files_in_assembly));
    })
    .way("the same with the sha2 crate", |watch| {
        watch.measure(|| outputs.hash_with(hash_files_with_crate));
    })
    .way("evidence digests", |watch| {
        let digests = EvidenceDigests::default();
        let located = watch.measure(|| digests.locators_for(store, root, &outputs.entries, tokens));
        assert!(located.iter().all(Result::is_ok));
    })
    .goal(Goal::RateRatioMin(0.8))
    .run();
}

fn hash_files_in_assembly(files: &[PathBuf]) -> Hash32 {
    let mut digest = assembly();
    read_all(files, |bytes| digest.update(bytes));
    let output = digest.finish();
    Hash32(output.as_ref().try_into().expect("32 bytes"))
}

fn hash_files_with_crate(files: &[PathBuf]) -> Hash32 {
    use sha2::Digest;
    let mut digest = sha2::Sha256::new();
    read_all(files, |bytes| digest.update(bytes));
    Hash32(digest.finalize().into())
}

fn read_all(files: &[PathBuf], mut take: impl FnMut(&[u8])) {
    let mut buffer = vec![0; READ_BYTES];
    for file in files {
        let mut file = File::open(file).expect("a file of the world");
        loop {
            match file.read(&mut buffer).expect("a disk that reads") {
                0 => break,
                read => take(&buffer[..read]),
            }
        }
    }
}
