//! What can go wrong in a simulated run, and how often it did.

use std::collections::BTreeMap;

/// How a life of the simulated process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// `kill -9`: what was written stays, synced or not.
    Killed,
    /// What was written and not synced is lost, whole or in part.
    PowerLost,
    /// SIGTERM: stopped in order, source first.
    Stopped,
    /// The process ended by itself, because a part of it gave up.
    Exited,
}

impl Death {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Death::Killed => "killed",
            Death::PowerLost => "power lost",
            Death::Stopped => "stopped in order",
            Death::Exited => "gave up",
        }
    }
}

/// A lie of a store: what no promise can survive. Only the test of the judge orders one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A commit says yes and writes no frame.
    FrameForgotten,
    /// A sync says yes and syncs nothing.
    SyncForgotten,
    /// The index does not know a key it was told.
    KeyForgotten,
    /// A checkpoint comes back one row ahead.
    CursorAhead,
}

/// Every lie, with its name.
pub const LIES: [(&str, Lie); 4] = [
    ("frame-forgotten", Lie::FrameForgotten),
    ("sync-forgotten", Lie::SyncForgotten),
    ("key-forgotten", Lie::KeyForgotten),
    ("cursor-ahead", Lie::CursorAhead),
];

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $name:ident = $per_mille:literal,)*) => {
        /// A fault the dice may order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[doc = $doc])* $name,)*
        }

        /// Every fault and how often it strikes in a thousand chances, before the seed changes that.
        pub const FAULTS: &[(Fault, u32)] = &[$((Fault::$name, $per_mille),)*];
    };
}

faults! {
    /// A write stops in the middle: no space is left.
    DiskFull = 25,
    /// The sync of bus lines fails.
    LineSyncFails = 4,
    /// The sync of a journal frame fails.
    FrameSyncFails = 4,
    /// The commit is durable, and its writer hears of an error.
    CommitAnswerLost = 15,
    /// The writer's lease was taken over: its commit is refused.
    WriterFenced = 10,
    /// Some records of a request are refused; they go again.
    PutThrottled = 20,
    /// The answer to a put is lost: the record goes again and lies there twice.
    PutRepeated = 20,
    /// A request of records breaks off in the middle.
    PutFails = 15,
    /// Another node admitted the event first.
    AdmittedElsewhere = 60,
    /// A run cannot be opened now.
    RunOpenFails = 60,
    /// A shard cannot be recovered now.
    RecoveryFails = 150,
    /// The index cannot be read.
    IndexLookupFails = 1,
    /// The index cannot be written.
    IndexInsertFails = 1,
    /// A projection cannot be brought up to date.
    ProjectionFails = 20,
    /// A projection panics.
    ProjectionPanics = 10,
    /// A checkpoint cannot be read.
    CheckpointLoadFails = 100,
    /// A checkpoint is not saved.
    CheckpointSaveFails = 25,
    /// Saving a checkpoint panics.
    CheckpointSavePanics = 15,
    /// A checkpoint is saved, and the writer hears of an error.
    CheckpointAnswerLost = 20,
    /// A part of the world cannot be read now.
    SourceFails = 10,
    /// The control bus cannot be read.
    PollFails = 60,
    /// Reading the control bus panics.
    PollPanics = 10,
    /// A look at the control bus misses messages.
    PollMisses = 100,
    /// The control bus gives messages in another order.
    PollReorders = 150,
    /// A settled message comes again.
    SettledComesAgain = 60,
    /// A message cannot be settled.
    SettleFails = 100,
    /// READY is published again.
    PublishedAgain = 150,
    /// What earlier attempts came to cannot be read.
    RecordReadFails = 50,
    /// The end of a run is not written down.
    RecordWriteFails = 150,
    /// Packs downstream are not ready.
    PacksNotReady = 120,
    /// Another node has the run.
    LeaseHeld = 50,
    /// The lease of a run is lost while it streams.
    LeaseLost = 15,
    /// The edge says 429 without a look at the request.
    Throttled = 20,
    /// A request never arrives.
    RequestLost = 20,
    /// A request arrives late.
    RequestDelayed = 60,
    /// A request arrives twice.
    RequestDoubled = 30,
    /// An answer never arrives.
    AnswerLost = 20,
    /// An answer arrives late.
    AnswerDelayed = 60,
    /// Of an answer only the first items arrive.
    AnswerCut = 15,
    /// Blocking work takes seconds.
    WorkIsSlow = 4,
    /// The wall clock jumps.
    ClockJumps = 120,
    /// The gate's health turns red for a while.
    HealthRed = 60,
    /// The gate's health turns amber for a while.
    HealthAmber = 60,
    /// The process dies before bus lines are written.
    DiesBeforeLines = 3,
    /// The process dies between writing bus lines and syncing them.
    DiesBeforeLineSync = 3,
    /// The process dies between bus lines and frame.
    DiesBeforeFrame = 3,
    /// The process dies between writing a frame and syncing it.
    DiesBeforeFrameSync = 3,
    /// The process dies between a commit and its answers.
    DiesAfterCommit = 3,
    /// The process dies before a checkpoint is saved.
    DiesBeforeCheckpoint = 10,
    /// The process dies after a checkpoint is saved.
    DiesAfterCheckpoint = 10,
    /// The process dies before the end of a run is written down.
    DiesBeforeRecord = 150,
    /// The process dies after the end of a run is written down.
    DiesAfterRecord = 150,
    /// The process dies before a message is settled.
    DiesBeforeSettle = 60,
    /// The process dies after a message is settled.
    DiesAfterSettle = 60,
}

/// What a power loss, a kill or a death may do; a campaign must have seen all of it.
pub const CONSEQUENCES: &[&str] = &[
    "bus lines lost",
    "bus lines torn",
    "frame lost",
    "frame torn",
    "unsynced frame kept",
    "claim settled: admitted",
    "claim settled: given up",
    "death: killed",
    "death: power lost",
    "death: stopped in order",
    "death: gave up",
    "ended: decide stage",
    "ended: shard pipeline",
    "ended: index shard",
    "ended: gate supervisor",
    "ended: projector",
    "ended: gate reporter",
    "ended: control bus reader",
    "ended: runs supervisor",
    "ended: ready run",
    "ended: output pipeline",
    "ended: output stream",
];

/// Everything a campaign must have seen, as the report names it.
pub fn expected() -> Vec<String> {
    let faults = FAULTS.iter().map(|(fault, _)| format!("{fault:?}"));
    faults
        .chain(CONSEQUENCES.iter().map(|name| (*name).to_owned()))
        .collect()
}

/// How often each thing happened.
pub type Counts = BTreeMap<String, u64>;
