//! A sealed world in memory.

use std::sync::Arc;
use wellspring_domain::ports::Cursor;
use wellspring_domain::stream::column::{Column, NamedColumn, Validity};
use wellspring_domain::stream::cursor::resume_point;
use wellspring_domain::stream::source::{
    BlockReader, OpenView, PartName, RowBlock, SourceError, SourceFault, WorldSource,
};

/// Every output has the same parts; ids count through them, times are a second apart.
pub struct World {
    pub parts: Vec<u64>,
    /// Outputs without a view.
    pub broken: Vec<String>,
}

struct Block {
    part: Arc<PartName>,
    first_row: u64,
    ids: Vec<i64>,
    micros: Vec<i64>,
}

impl RowBlock for Block {
    fn part(&self) -> &Arc<PartName> {
        &self.part
    }
    fn first_row(&self) -> u64 {
        self.first_row
    }
    fn rows(&self) -> usize {
        self.ids.len()
    }
    fn columns(&self) -> Vec<NamedColumn<'_>> {
        let id = Column::Int64 {
            values: &self.ids,
            validity: Validity::ALL,
        };
        let time = Column::Instant {
            micros: &self.micros,
            validity: Validity::ALL,
        };
        vec![
            NamedColumn {
                name: "id",
                column: id,
            },
            NamedColumn {
                name: "ts_utc",
                column: time,
            },
            NamedColumn {
                name: "payload_json",
                column: self.json(),
            },
        ]
    }
}

impl Block {
    /// Every payload is `{}`; the row is told by its event id.
    fn json(&self) -> Column<'_> {
        const OFFSETS: [i32; 9] = [0, 2, 4, 6, 8, 10, 12, 14, 16];
        Column::Text {
            offsets: &OFFSETS[..=self.ids.len()],
            bytes: b"{}{}{}{}{}{}{}{}",
            validity: Validity::ALL,
        }
    }
}

struct Blocks(std::vec::IntoIter<Block>);

impl BlockReader for Blocks {
    fn next_block(&mut self) -> Result<Option<Box<dyn RowBlock>>, SourceError> {
        Ok(self
            .0
            .next()
            .map(|block| Box::new(block) as Box<dyn RowBlock>))
    }
}

impl WorldSource for World {
    fn open(&self, output_id: &str, after: Option<&Cursor>) -> Result<OpenView, SourceError> {
        if self.broken.iter().any(|id| id == output_id) {
            let detail = "no manifest".to_owned();
            return Err(SourceError {
                code: "STREAM_VIEW_MISSING",
                detail,
                fault: SourceFault::Lasting,
            });
        }
        let name = |index: usize| PartName {
            file: format!("/view/part-{index:06}.parquet"),
            name: format!("part-{index:06}.parquet"),
        };
        let parts: Vec<_> = (0..self.parts.len()).map(name).collect();
        let start = resume_point(&parts, "view", after).unwrap();
        let mut blocks = Vec::new();
        let mut id = 0;
        for (index, rows) in self.parts.iter().enumerate() {
            let all: Vec<i64> = (id..id + *rows as i64).collect();
            id += *rows as i64;
            let skip = match index.cmp(&start.part) {
                std::cmp::Ordering::Less => *rows as usize,
                std::cmp::Ordering::Equal => start.row as usize,
                std::cmp::Ordering::Greater => 0,
            };
            for (at, ids) in all[skip..].chunks(8).enumerate() {
                blocks.push(Block {
                    part: Arc::new(parts[index].clone()),
                    first_row: (skip + at * 8) as u64,
                    micros: ids.iter().map(|id| id * 1_000_000).collect(),
                    ids: ids.to_vec(),
                });
            }
        }
        let rows_total = Some(self.parts.iter().sum());
        let reader = Box::new(Blocks(blocks.into_iter()));
        Ok(OpenView {
            stream_view_id: "view".to_owned(),
            rows_total,
            reader,
        })
    }
}
