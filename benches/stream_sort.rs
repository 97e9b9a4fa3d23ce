//! Sorting a stream view within 1 GiB beside a sort in memory, and beside DuckDB when it is at hand.
//!
//! `cargo bench --bench stream_sort`: 2,000,000 rows in shuffled order. `WELLSPRING_BENCH_SORT_ROWS=10000000` for
//! the long run. `WELLSPRING_BENCH_DUCKDB` names a program that reads SQL from its standard input (the `duckdb`
//! shell); without it that comparison is left out. Memory is that of a process that does nothing but the sort.

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod floor;
#[allow(dead_code, missing_docs)]
mod support;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use floor::columns::Decoder;
use floor::sort::{order_of, sort_parts};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::measure::{Cost, Watch, children_seconds};
use support::report::Goal;
use support::session::Session;
use support::world::{OUTPUT, World, parts_below};
use wellspring::clock::SystemClock;
use wellspring::machine::peak_resident_bytes;
use wellspring::world_files::generator::{GenerateOptions, generate};
use wellspring::world_files::stream_sort::sort_output;
use wellspring_domain::world::stream_view::view_dir;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MEMORY_LIMIT: u64 = 1 << 30;

fn main() {
    if let Some((_, words)) = support::child::role() {
        return sort_alone(&words);
    }
    let mut session = Session::start("stream_sort");
    let rows: u64 = support::number("WELLSPRING_BENCH_SORT_ROWS", 2_000_000);
    if session.wants("generate") {
        generating(&mut session);
    }
    let name = format!("stream sort, {rows} shuffled rows, 1 GiB");
    if session.wants(&name) {
        let world = World::generate(rows, 8);
        let parts = shuffle(&world);
        sorting(&mut session, &name, &world, &parts);
    }
    session.finish();
}

fn generating(session: &mut Session) {
    const EVENTS: u64 = 400_000;
    let work = session.work("generate a world", EVENTS);
    work.way("generator", |watch| {
        let folder = support::folder();
        let options = GenerateOptions::new(folder.path().join("world"), EVENTS, 7, 4);
        watch.measure(|| generate(&options, &|_| {}).expect("a world"));
    })
    .run();
}

/// Writes every source part anew with its rows in no order; parts cover the same time as each other.
fn shuffle(world: &World) -> Vec<PathBuf> {
    let folder = Path::new(&world.root).join("data/layer3/6B").join(OUTPUT);
    let parts = parts_below(&folder);
    for part in &parts {
        let batches: Vec<RecordBatch> = Decoder::new(std::slice::from_ref(part)).collect();
        let all = concat_batches(&batches[0].schema(), &batches).expect("one schema");
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        order.sort_unstable_by_key(|row| row.wrapping_add(1).wrapping_mul(2_654_435_761));
        let shuffled = take_record_batch(&all, &UInt32Array::from(order)).expect("rows");
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
        let file = File::create(part).expect("the part");
        let writer = ArrowWriter::try_new(file, shuffled.schema(), Some(properties.build()));
        let mut writer = writer.expect("a writer");
        writer.write(&shuffled).expect("room on the disk");
        writer.close().expect("a footer");
    }
    parts
}

fn sorting(session: &mut Session, name: &str, world: &World, parts: &[PathBuf]) {
    let folder = support::folder();
    let (by_hand, ours) = (
        folder.path().join("floor.parquet"),
        folder.path().join("view"),
    );
    let peak = Cell::new(0);
    let work = session.work(name, world.events).rounds(2);
    let figures = work
        .way("floor: sort in memory", |watch| {
            let rows = watch.measure(|| sort_parts(parts, &by_hand));
            assert_eq!(rows, world.events);
        })
        .way("stream sort", |watch| {
            let _ = std::fs::remove_dir_all(&ours); // the view of the round before
            peak.set(sort_in_child(watch, world, &ours));
        })
        .run();
    let view = parts_below(Path::new(&view_dir(&ours.to_string_lossy(), OUTPUT)));
    let by_hand = [by_hand];
    assert_eq!(
        order_of(&view),
        order_of(&by_hand),
        "both have the same order"
    );
    let figures = figures.expect("this work was asked for");
    let sorted = figures.last().expect("ours");
    let megabytes = peak.get() as f64 / 1e6;
    let bound = MEMORY_LIMIT as f64 * 1.2 / 1e6;
    session.relate(
        &format!("{name}: peak memory, MB"),
        &[sorted],
        vec![Goal::ValueMax(megabytes, bound)],
    );
    let Ok(duckdb) = std::env::var("WELLSPRING_BENCH_DUCKDB") else {
        return println!("WELLSPRING_BENCH_DUCKDB is not set: DuckDB is left out");
    };
    let target = folder.path().join("duckdb.parquet");
    let work = session.work(format!("{name}, beside DuckDB"), world.events);
    work.rounds(2)
        .way("DuckDB, memory_limit 1GiB", |watch| {
            sort_in_duckdb(watch, &duckdb, parts, &target);
        })
        .way("stream sort", |watch| {
            let _ = std::fs::remove_dir_all(&ours); // the view of the round before
            sort_in_child(watch, world, &ours);
        })
        .goal(Goal::RateRatioMin(1.0))
        .run();
}

/// Sorts in a process of its own, which tells its cost; gives its peak memory.
fn sort_in_child(watch: &mut Watch, world: &World, base: &Path) -> u64 {
    let words = [world.root.clone(), base.to_string_lossy().into_owned()];
    let mut child = support::child::Running::start("sort", &words);
    let line = child.line();
    child.finish();
    let numbers: Vec<f64> = line
        .split(' ')
        .map(|number| number.parse().expect("a number"))
        .collect();
    watch.add(Cost {
        wall: numbers[0],
        cpu: numbers[1],
        other: numbers[2],
    });
    numbers[3] as u64
}

/// The child's side.
fn sort_alone(words: &[String]) {
    let request = support::world::sort_request(&words[0]);
    let request = wellspring::world_files::stream_sort::SortRequest {
        stream_view_base: Some(words[1].clone()),
        memory_limit: MEMORY_LIMIT,
        ..request
    };
    let mut watch = Watch::default();
    watch.measure(|| {
        sort_output(&request, &SystemClock::new(), &|_| {}).expect("a new base takes a view")
    });
    let cost = watch.total();
    println!(
        "{} {} {} {}",
        cost.wall,
        cost.cpu,
        cost.other,
        peak_resident_bytes().unwrap_or(0)
    );
}

fn sort_in_duckdb(watch: &mut Watch, program: &str, parts: &[PathBuf], target: &Path) {
    let list: Vec<String> = parts
        .iter()
        .map(|part| format!("'{}'", part.display()))
        .collect();
    let sql = format!(
        "SET memory_limit='1GiB'; SET preserve_insertion_order=true; COPY (SELECT * EXCLUDE (filename, \
         file_row_number) FROM read_parquet([{}], filename=true, file_row_number=true) ORDER BY ts_utc, filename, \
         file_row_number) TO '{}' (FORMAT parquet, COMPRESSION zstd);",
        list.join(","),
        target.display()
    );
    let mut own = Watch::default();
    let before = children_seconds();
    own.begin();
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the DuckDB shell");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(sql.as_bytes()).expect("a shell that reads");
    drop(input);
    assert!(child.wait().expect("a shell that ends").success());
    let cost = own.end();
    let cpu = children_seconds() - before;
    watch.add(Cost {
        cpu,
        other: (cost.other - cpu).max(0.0),
        ..cost
    });
}
