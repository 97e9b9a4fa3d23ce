//! What a verification found: counts, and the first differences with their place.

use serde::Serialize;

/// Differences kept with their place; the rest is counted.
const SHOWN_MAX: usize = 20;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// Stable code.
    pub code: &'static str,
    /// Where: a bus place, a receipt reference or an object.
    pub location: String,
    /// What was expected and found.
    pub detail: String,
}

/// All differences of one verification, the first of them with their place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// How many there are.
    pub count: u64,
    /// The first ones.
    pub first: Vec<Difference>,
}

impl Differences {
    /// Adds one.
    pub fn add(&mut self, code: &'static str, location: String, detail: impl Into<String>) {
        self.add_counted(1, code, location, detail);
    }

    /// Adds one that stands for `count`.
    pub fn add_counted(
        &mut self,
        count: u64,
        code: &'static str,
        location: String,
        detail: impl Into<String>,
    ) {
        self.count += count;
        if self.first.len() < SHOWN_MAX {
            self.first.push(Difference {
                code,
                location,
                detail: detail.into(),
            });
        }
    }

    /// Adds all of another part of the verification.
    pub fn join(&mut self, other: Differences) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.sort();
        self.first.truncate(SHOWN_MAX);
    }
}

/// Counts of one topic partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Records on the bus.
    pub records: u64,
    /// ADMIT rows whose record was checked.
    pub admitted: u64,
    /// Records without an ADMIT row.
    pub stray: u64,
    /// Lines behind the last committed record: cut when the run is opened, never read.
    pub uncommitted: u64,
    /// True when the data was pruned and only the journal was checked against the recorded facts.
    pub pruned: bool,
}

/// What `bus verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BusReport {
    /// True when nothing differs.
    pub verified: bool,
    /// Records on the bus.
    pub records: u64,
    /// ADMIT rows in the journals.
    pub admitted: u64,
    /// By topic and partition.
    pub partitions: Vec<PartitionReport>,
    /// What differs.
    pub differences: Differences,
}

/// What `receipts verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReceiptsReport {
    /// True when nothing differs.
    pub verified: bool,
    /// Rows in the journals.
    pub receipts: u64,
    /// ADMIT rows.
    pub admitted: u64,
    /// DUPLICATE rows.
    pub duplicates: u64,
    /// QUARANTINE rows.
    pub quarantined: u64,
    /// Rows whose objects the projections have not written yet.
    pub pending_objects: u64,
    /// What differs.
    pub differences: Differences,
}
