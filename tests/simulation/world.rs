//! The sealed world in memory: outputs whose rows say which they are.

use crate::faults::Fault;
use crate::plan::{PlannedOutput, RUNS};
use crate::sim::Sim;
use std::sync::Arc;
use wellspring_domain::ports::Cursor;
use wellspring_domain::stream::column::{Column, NamedColumn, Validity};
use wellspring_domain::stream::cursor::resume_point;
use wellspring_domain::stream::framing::{EnvelopePins, FrameContext};
use wellspring_domain::stream::source::{
    BlockReader, OpenView, PartName, RowBlock, SourceError, SourceFault, WorldSource,
};
use wellspring_domain::time_text::Micros;

/// Rows read at once.
const BLOCK_ROWS: usize = 64;
/// Time of the first row.
const FIRST_ROW_MICROS: i64 = 1_767_225_600_000_000;
/// Time between two rows.
const ROW_MICROS: i64 = 100_000;

/// The world of a plan.
pub struct SimWorld(pub Arc<Sim>);

/// What the envelopes of an output have in common; the trace id names the attempt.
pub fn context(output_id: &str, attempt: &str) -> Arc<FrameContext> {
    let pins = EnvelopePins {
        manifest_fingerprint: "a".repeat(64),
        parameter_hash: "b".repeat(64),
        seed: 1,
        scenario_id: "s".to_owned(),
        run_id: "c".repeat(32),
        platform_run_id: RUNS[0].to_owned(),
        scenario_run_id: "d".repeat(32),
    };
    Arc::new(FrameContext {
        output_id: output_id.to_owned(),
        primary_key: vec!["id".to_owned()],
        pins,
        producer: "svc:world_stream_producer".to_owned(),
        trace_id: attempt.to_owned(),
        span_id: None,
    })
}

/// The name of a part.
pub fn part_name(index: usize) -> String {
    format!("part-{index:06}.parquet")
}

impl WorldSource for SimWorld {
    fn open(&self, output_id: &str, after: Option<&Cursor>) -> Result<OpenView, SourceError> {
        readable(&self.0)?;
        let outputs = &self.0.plan.outputs;
        let Some(index) = outputs.iter().position(|o| o.output_id == output_id) else {
            return Err(lasting(format!("there is no output {output_id}")));
        };
        let output = outputs[index].clone();
        let name = |part: usize| PartName {
            file: format!("/view/{}", part_name(part)),
            name: part_name(part),
        };
        let parts: Vec<_> = (0..output.parts.len()).map(name).collect();
        let start = resume_point(&parts, "view", after).map_err(|e| lasting(e.to_string()))?;
        let rows_total = Some(output.parts.iter().sum());
        let reader = Reader {
            sim: self.0.clone(),
            first_key: index as i64 * 1_000,
            output,
            parts: parts.into_iter().map(Arc::new).collect(),
            part: start.part,
            row: start.row,
        };
        Ok(OpenView {
            stream_view_id: "view".to_owned(),
            rows_total,
            reader: Box::new(reader),
        })
    }
}

fn readable(sim: &Sim) -> Result<(), SourceError> {
    if !sim.is_dead() && !sim.strikes(Fault::SourceFails) {
        return Ok(());
    }
    Err(SourceError {
        code: "STREAM_VIEW_UNREADABLE",
        detail: "simulated".to_owned(),
        fault: SourceFault::Transient,
    })
}

fn lasting(detail: String) -> SourceError {
    SourceError {
        code: "STREAM_VIEW_MISSING",
        detail,
        fault: SourceFault::Lasting,
    }
}

struct Reader {
    sim: Arc<Sim>,
    output: PlannedOutput,
    first_key: i64,
    parts: Vec<Arc<PartName>>,
    part: usize,
    row: u64,
}

impl BlockReader for Reader {
    fn next_block(&mut self) -> Result<Option<Box<dyn RowBlock>>, SourceError> {
        readable(&self.sim)?;
        loop {
            let Some(rows) = self.output.parts.get(self.part).copied() else {
                return Ok(None);
            };
            if self.row < rows {
                break;
            }
            self.part += 1;
            self.row = 0;
        }
        let rows = self.output.parts[self.part];
        let before: u64 = self.output.parts[..self.part].iter().sum();
        let end = rows.min(self.row + BLOCK_ROWS as u64);
        let numbers: Vec<i64> = (before + self.row..before + end)
            .map(|n| n as i64)
            .collect();
        let key = |n: &i64| self.first_key + n % self.output.keys as i64;
        let block = Block {
            part: self.parts[self.part].clone(),
            first_row: self.row,
            keys: numbers.iter().map(key).collect(),
            times: numbers.iter().map(time_text).collect(),
            time_ends: (0..=numbers.len() as i32).map(|n| n * TIME_BYTES).collect(),
            ordered: vec![1; numbers.len()],
            numbers,
        };
        self.row = end;
        Ok(Some(Box::new(block)))
    }
}

/// Bytes of a time in the form of envelopes.
const TIME_BYTES: i32 = 27;

fn time_text(number: &i64) -> String {
    Micros(FIRST_ROW_MICROS + number * ROW_MICROS).format_env()
}

struct Block {
    part: Arc<PartName>,
    first_row: u64,
    numbers: Vec<i64>,
    keys: Vec<i64>,
    ordered: Vec<i64>,
    times: String,
    time_ends: Vec<i32>,
}

impl RowBlock for Block {
    fn part(&self) -> &Arc<PartName> {
        &self.part
    }

    fn first_row(&self) -> u64 {
        self.first_row
    }

    fn rows(&self) -> usize {
        self.numbers.len()
    }

    fn columns(&self) -> Vec<NamedColumn<'_>> {
        let validity = Validity::ALL;
        let integers = |name, values| NamedColumn {
            name,
            column: Column::Int64 { values, validity },
        };
        let time = Column::Text {
            offsets: &self.time_ends,
            bytes: self.times.as_bytes(),
            validity,
        };
        vec![
            integers("id", &self.numbers),
            integers("k", &self.keys),
            integers("n", &self.numbers),
            integers("o", &self.ordered),
            NamedColumn {
                name: "ts_utc",
                column: time,
            },
        ]
    }
}
