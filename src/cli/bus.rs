//! `wellspring bus`: the event bus by topic, partition and offset (contract 8).

use super::bus_verify::{self, BusVerifyArgs};
use super::failure::Failure;
use super::managed::{self, BusRead};
use super::output::{Align, TableView, bytes, grouped, print_result};
use super::run_arg::RunArg;
use super::{CliContext, Outcome};
use crate::event_bus::embedded_log::bus_reader::partition_bytes;
use crate::event_bus::embedded_log::{BusReader, ReadBound, bus_partitions};
use crate::gate::managed::read_bus::ShardHead;
use serde::Serialize;
use serde::de::IgnoredAny;
use std::io::{self, BufWriter, Write};
use wellspring_domain::canonical_json::{push_string, push_u64};
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;

const EXAMPLES: &str = "\
Examples:
  wellspring bus head                                              where every partition ends
  wellspring bus read --topic fp.bus.traffic.fraud.v1 --max 3      the first three records
  wellspring bus read --topic fp.bus.traffic.fraud.v1 --from-offset 100000
  wellspring bus verify --digest                                   every record has its receipt

An offset is the 0-based number of a line. Reading ends at the head: what is not committed is not shown.";

/// Arguments of `wellspring bus`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct BusArgs {
    #[command(subcommand)]
    command: BusCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BusCommand {
    /// Records of one partition from an offset on, one JSON object per line.
    #[command(visible_alias = "tail")]
    Read(ReadArgs),
    /// Where partitions end: the next offset of each.
    Head(HeadArgs),
    /// Check every record against its receipt; exit code 4 when something differs.
    Verify(BusVerifyArgs),
}

#[derive(Debug, clap::Args)]
struct ReadArgs {
    /// Topic to read.
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Partition of the topic.
    #[arg(long, default_value_t = 0, value_name = "P")]
    partition: u32,
    /// First offset to read, inclusive: a line number, or a sequence number on Kinesis.
    #[arg(long, default_value = "0", value_name = "OFFSET")]
    from_offset: String,
    /// Most records to read.
    #[arg(long, default_value_t = 20, value_name = "N")]
    max: usize,
    #[command(flatten)]
    run: RunArg,
}

#[derive(Debug, clap::Args)]
struct HeadArgs {
    /// Only this topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    #[command(flatten)]
    run: RunArg,
}

/// Runs the command.
pub fn run(args: BusArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    match args.command {
        BusCommand::Read(args) => read(&args, ctx),
        BusCommand::Head(args) => head(&args, ctx),
        BusCommand::Verify(args) => bus_verify::run(&args, ctx),
    }
}

fn read(args: &ReadArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let run = args.run.paths(ctx)?;
    if let Some(managed) = managed::open(ctx)? {
        let asked = BusRead {
            run: run.run_id(),
            topic: &args.topic,
            partition: args.partition,
            from_offset: &args.from_offset,
            max: args.max,
        };
        let mut out = BufWriter::new(io::stdout().lock());
        managed.print_records(&asked, &mut out)?;
        out.flush()?;
        return Ok(Outcome::Ok);
    }
    let from_offset = args.from_offset.parse().map_err(|_| {
        let sentence = format!("--from-offset {} is no line number", args.from_offset);
        Failure::new("BUS_OFFSET_INVALID", sentence)
    })?;
    let mut reader = BusReader::open(&run, &args.topic, args.partition, ReadBound::Head)
        .map_err(store_failure)?;
    let mut stream = reader.stream(from_offset).map_err(store_failure)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut line = Vec::new();
    for _ in 0..args.max {
        let Some((offset, record)) = stream.next_line().map_err(store_failure)? else {
            break;
        };
        if serde_json::from_slice::<IgnoredAny>(record).is_err() {
            out.flush()?;
            let sentence = format!("record {offset} of {} is not JSON", args.topic);
            return Err(Failure::new("EB_RECORD_INVALID", sentence).into());
        }
        line.clear();
        push_record(&mut line, args, offset, record);
        out.write_all(&line)?;
    }
    out.flush()?;
    Ok(Outcome::Ok)
}

/// `{"topic","partition","offset","record"}` as IJ; the record's bytes are IJ already.
fn push_record(line: &mut Vec<u8>, args: &ReadArgs, offset: u64, record: &[u8]) {
    line.extend_from_slice(b"{\"topic\":");
    push_string(line, &args.topic);
    line.extend_from_slice(b",\"partition\":");
    push_u64(line, u64::from(args.partition));
    line.extend_from_slice(b",\"offset\":");
    push_u64(line, offset);
    line.extend_from_slice(b",\"record\":");
    line.extend_from_slice(record);
    line.extend_from_slice(b"}\n");
}

/// Where one partition ends.
#[derive(Serialize)]
struct PartitionHead {
    topic: String,
    partition: u32,
    next_offset: u64,
    bytes: u64,
}

fn head(args: &HeadArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    let run = args.run.paths(ctx)?;
    if let Some(managed) = managed::open(ctx)? {
        let heads = managed.heads(args.topic.as_deref())?;
        print_result(ctx.contract_format(), &heads, || shard_table(&heads))?;
        return Ok(Outcome::Ok);
    }
    let mut heads = Vec::new();
    for (topic, partition) in bus_partitions(&run).map_err(store_failure)? {
        if args.topic.as_ref().is_some_and(|wanted| *wanted != topic) {
            continue;
        }
        heads.push(head_of(&run, topic, partition).map_err(store_failure)?);
    }
    print_result(ctx.contract_format(), &heads, || table_of(&heads))?;
    Ok(Outcome::Ok)
}

fn head_of(run: &RunPaths, topic: String, partition: u32) -> Result<PartitionHead, StoreError> {
    let mut reader = BusReader::open(run, &topic, partition, ReadBound::Head)?;
    Ok(PartitionHead {
        next_offset: reader.end()?,
        bytes: partition_bytes(run, &topic, partition)?,
        topic,
        partition,
    })
}

fn shard_table(heads: &[ShardHead]) -> TableView {
    let mut table = TableView::new([
        ("STREAM", Align::Left),
        ("PARTITION", Align::Right),
        ("LAST SEQUENCE", Align::Right),
    ]);
    for head in heads {
        table.row([
            head.stream.clone(),
            head.partition.to_string(),
            head.last_sequence.clone(),
        ]);
    }
    table
}

fn table_of(heads: &[PartitionHead]) -> TableView {
    let mut table = TableView::new([
        ("TOPIC", Align::Left),
        ("PARTITION", Align::Right),
        ("NEXT OFFSET", Align::Right),
        ("SIZE", Align::Right),
    ]);
    for head in heads {
        table.row([
            head.topic.clone(),
            head.partition.to_string(),
            grouped(head.next_offset),
            bytes(head.bytes),
        ]);
    }
    table
}

fn store_failure(error: StoreError) -> anyhow::Error {
    Failure::of(error.code(), error).into()
}
