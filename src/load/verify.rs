//! The bus after a load: every admitted event once, byte for byte, in order per key.
//!
//! The existing verifiers compare bus, journal and receipts; what this module adds is the load itself, which
//! can be made again event by event.

use super::checks::Check;
use super::lanes::{Events, WorldOutput};
use super::recorder::Recorded;
use super::template::Template;
use super::workload::{Kind, Workload};
use super::world::frame_view;
use crate::event_bus::embedded_log::{BusReader, BusStream, ReadBound, bus_partitions};
use crate::object_store::ObjectStores;
use crate::state_store::embedded::verify::{
    BusReport, ReceiptsReport, verify_bus, verify_receipts,
};
use std::collections::{BTreeMap, HashSet};
use wellspring_domain::admission::bus_line::BusLine;
use wellspring_domain::admission::receipt::ReceiptsLayout;
use wellspring_domain::ports::StoreError;
use wellspring_domain::run_paths::RunPaths;
use wellspring_domain::stream::source::WorldSource;

/// Compares everything that can be compared.
pub fn verify(
    paths: &RunPaths,
    stores: &ObjectStores,
    sent: &Events,
    recorded: &Recorded,
) -> anyhow::Result<Vec<Check>> {
    let bus = verify_bus(paths)?;
    let store = stores.open(paths.runs_root())?;
    let receipts = verify_receipts(paths, ReceiptsLayout::default(), &*store)?;
    // A gate tells of itself on the bus, too, and every record has its receipt.
    let partitions = bus.partitions.iter();
    let gates_own: u64 = partitions
        .filter(|partition| !sent.goes_to(&partition.topic))
        .map(|partition| partition.records)
        .sum();
    Ok(vec![
        bus_check(&bus, gates_own, recorded),
        receipts_check(&receipts, gates_own, recorded),
        match sent {
            Events::Synthetic {
                template,
                workload,
                topic,
            } => SyntheticBus::new(template, workload, recorded).check(paths, topic)?,
            Events::World {
                source, outputs, ..
            } => check_world(paths, &**source, outputs, recorded)?,
        },
    ])
}

fn bus_check(bus: &BusReport, gates_own: u64, recorded: &Recorded) -> Check {
    let counts = recorded.counts;
    let records = bus.records - gates_own;
    let detail = format!(
        "{records} records and {gates_own} of the gate itself, {} answers ADMIT, {} differences to the journal",
        counts.admitted, bus.differences.count
    );
    let complete = between(records, counts.admitted, counts.refused);
    Check::new("bus", bus.verified && complete, detail)
}

fn receipts_check(receipts: &ReceiptsReport, gates_own: u64, recorded: &Recorded) -> Check {
    let counts = recorded.counts;
    let admitted = receipts.admitted.saturating_sub(gates_own);
    let detail = format!(
        "{admitted} ADMIT, {} DUPLICATE, {} QUARANTINE, {} differences",
        receipts.duplicates, receipts.quarantined, receipts.differences.count
    );
    let complete = [
        (admitted, counts.admitted),
        (receipts.duplicates, counts.duplicate),
        (receipts.quarantined, counts.quarantined),
    ];
    let complete = complete
        .into_iter()
        .all(|(found, answered)| between(found, answered, counts.refused));
    Check::new("receipts", receipts.verified && complete, detail)
}

/// An event that was refused may have been admitted all the same: its answer was lost.
fn between(found: u64, answered: u64, refused: u64) -> bool {
    (answered..=answered + refused).contains(&found)
}

const ORDER: &str = "once, as sent, in order per key";

/// What is known of the bus while it is read.
struct SyntheticBus<'a> {
    template: &'a Template,
    workload: &'a Workload,
    recorded: &'a Recorded,
    refused: Option<HashSet<u64>>,
    /// One bit for each number.
    seen: Vec<u64>,
    /// One more than the last event of each key, counted among its producer's.
    last_of_key: Vec<u32>,
    expected: Vec<u8>,
    records: u64,
    wrong: u64,
    first_wrong: Option<String>,
}

impl<'a> SyntheticBus<'a> {
    fn new(template: &'a Template, workload: &'a Workload, recorded: &'a Recorded) -> Self {
        let mixture = workload.mixture();
        let refused = recorded.refused_numbers.as_ref();
        SyntheticBus {
            template,
            workload,
            recorded,
            refused: refused.map(|numbers| numbers.iter().copied().collect()),
            seen: Vec::new(),
            last_of_key: vec![0; mixture.keys as usize],
            expected: template.line().to_vec(),
            records: 0,
            wrong: 0,
            first_wrong: None,
        }
    }

    fn check(mut self, paths: &RunPaths, topic: &str) -> anyhow::Result<Check> {
        let partitions = bus_partitions(paths)?.into_iter();
        for (topic, partition) in partitions.filter(|(found, _)| found == topic) {
            let mut reader = BusReader::open(paths, &topic, partition, ReadBound::Journal)?;
            let mut lines = reader.stream(0)?;
            while let Some((offset, line)) = lines.next_line()? {
                let Some(envelope) = BusLine::parse(line).map(|line| line.envelope) else {
                    self.note(format!("{topic}/{partition}@{offset} is no bus record"));
                    continue;
                };
                if let Err(why) = self.see(envelope) {
                    self.note(format!("{topic}/{partition}@{offset}: {why}"));
                }
            }
        }
        let counts = self.recorded.counts;
        let detail = format!(
            "{} records, each the event that was sent, each key in the order of sending{}",
            self.records,
            match &self.first_wrong {
                None => String::new(),
                Some(first) => format!("; {} are wrong, the first: {first}", self.wrong),
            }
        );
        if self.refused.is_none() && self.wrong > 0 {
            let why = "too many events were refused to tell which copies were admitted late";
            return Ok(Check::open(ORDER, format!("{detail}; {why}")));
        }
        let complete = between(self.records, counts.admitted, counts.refused);
        Ok(Check::new(ORDER, self.wrong == 0 && complete, detail))
    }

    fn note(&mut self, what: String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert(what);
    }

    fn see(&mut self, envelope: &[u8]) -> Result<(), &'static str> {
        self.records += 1;
        let number = self.template.identity_of(envelope);
        let number = number.ok_or("not an event of this load")?;
        let event = self.workload.event(number);
        if event.kind != Kind::Fresh {
            return Err("an event that must not be admitted");
        }
        self.template.write(&event, &mut self.expected);
        if self.expected[..envelope.len()] != *envelope {
            return Err("other bytes than were sent");
        }
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            return Err("an event that is on the bus already");
        }
        self.seen[word] |= bit;
        let was_refused = self
            .refused
            .as_ref()
            .is_some_and(|refused| refused.contains(&number));
        if was_refused {
            // A copy of it came through later: its place says nothing.
            return Ok(());
        }
        let sent = (number / self.workload.mixture().producers) as u32 + 1;
        let last = &mut self.last_of_key[event.key as usize];
        if *last >= sent {
            return Err("an event behind a later one of its key");
        }
        *last = sent;
        Ok(())
    }
}

/// Each topic's partitions are read beside the rows of its output: a row is the next record of one of them,
/// or it was not admitted.
fn check_world(
    paths: &RunPaths,
    source: &dyn WorldSource,
    outputs: &[WorldOutput],
    recorded: &Recorded,
) -> anyhow::Result<Check> {
    let mut partitions: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (topic, partition) in bus_partitions(paths)? {
        partitions.entry(topic).or_default().push(partition);
    }
    let mut found = 0;
    for WorldOutput { context, topic, .. } in outputs {
        if outputs.iter().filter(|other| other.topic == *topic).count() > 1 {
            return Ok(Check::open(ORDER, format!("several outputs go to {topic}")));
        }
        let mut heads = Vec::new();
        for partition in partitions.get(topic).into_iter().flatten() {
            let mut reader = BusReader::open(paths, topic, *partition, ReadBound::Journal)?;
            heads.push(Head::of(reader.stream(0)?)?);
        }
        let mut fault = None;
        frame_view(source, context, |batch, _| {
            for range in &batch.envelopes {
                let envelope = &batch.lines[range.start as usize..range.end as usize];
                match pass(&mut heads, envelope) {
                    Ok(passed) => found += u64::from(passed),
                    Err(error) => fault = Some(error),
                }
            }
            fault.is_none()
        })?;
        if let Some(error) = fault {
            return Err(error.into());
        }
        if heads.iter().any(|head| head.envelope.is_some()) {
            let detail = format!("{topic} holds a record that is not the next row of its world");
            return Ok(Check::new(ORDER, false, detail));
        }
    }
    let counts = recorded.counts;
    let holds = between(found, counts.admitted, counts.refused);
    let detail = format!("{found} records, each the next row of its world");
    Ok(Check::new(ORDER, holds, detail))
}

/// The next record of a partition.
struct Head {
    lines: BusStream,
    envelope: Option<Vec<u8>>,
}

impl Head {
    fn of(lines: BusStream) -> Result<Self, StoreError> {
        let mut head = Head {
            lines,
            envelope: Some(Vec::new()),
        };
        head.advance()?;
        Ok(head)
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        let next = self.lines.next_line()?;
        // A line that is no record equals no row, so it stays and is found at the end.
        let envelope =
            next.map(|(_, line)| BusLine::parse(line).map_or(line, |line| line.envelope));
        match (envelope, &mut self.envelope) {
            (Some(envelope), Some(held)) => {
                held.clear();
                held.extend_from_slice(envelope);
            }
            (_, held) => *held = None,
        }
        Ok(())
    }
}

/// Passes the record that is this row, if one is next.
fn pass(heads: &mut [Head], row: &[u8]) -> Result<bool, StoreError> {
    let next = heads
        .iter_mut()
        .find(|head| head.envelope.as_deref() == Some(row));
    match next {
        Some(head) => head.advance().map(|()| true),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorder::{Answered, Outcome, Recording};
    use super::super::template::tests::identity;
    use super::super::workload::Mixture;
    use super::*;

    struct Load {
        template: Template,
        workload: Workload,
    }

    fn load() -> Load {
        let mixture = Mixture {
            seed: 1,
            keys: 2,
            skew: 0.0,
            duplicates: 0.0,
            invalid: 0.2,
            producers: 2,
        };
        Load {
            template: Template::new(&identity(), None).unwrap(),
            workload: Workload::new(mixture),
        }
    }

    impl Load {
        fn envelope(&self, number: u64) -> Vec<u8> {
            let mut line = self.template.line().to_vec();
            self.template.write(&self.workload.event(number), &mut line);
            line.pop();
            line
        }

        /// Numbers of the first producer that are of this kind; it has one key.
        fn numbers(&self, kind: Kind) -> Vec<u64> {
            let own = (0..100).map(|sent| sent * 2);
            own.filter(|number| self.workload.event(*number).kind == kind)
                .collect()
        }

        fn see(&self, refused: &[u64], bus: &[Vec<u8>]) -> Result<(), &'static str> {
            let recording = Recording::new(1);
            let batch = Answered {
                sent_at: 0,
                answered_at: 0,
                measured_from: 0,
            };
            let events = refused
                .iter()
                .map(|number| (*number, None, Outcome::Refused("x")));
            recording.part(0).answered(&batch, events);
            let recorded = recording.recorded();
            let mut seen = SyntheticBus::new(&self.template, &self.workload, &recorded);
            bus.iter().try_for_each(|envelope| seen.see(envelope))
        }
    }

    #[test]
    fn every_wrong_record_on_the_bus_is_found() {
        let load = load();
        let fresh = load.numbers(Kind::Fresh);
        let at = |place: usize| load.envelope(fresh[place]);
        assert_eq!(load.see(&[], &[at(0), at(1), at(3)]), Ok(()));
        let order = load.see(&[], &[at(1), at(0)]);
        assert_eq!(order, Err("an event behind a later one of its key"));
        let twice = load.see(&[], &[at(0), at(0)]);
        assert_eq!(twice, Err("an event that is on the bus already"));
        let invalid = load.envelope(load.numbers(Kind::Invalid)[0]);
        let admitted = load.see(&[], &[invalid]);
        assert_eq!(admitted, Err("an event that must not be admitted"));
        let mut changed = at(2);
        let last = changed.len() - 3;
        changed[last] ^= 1;
        assert_eq!(load.see(&[], &[changed]), Err("other bytes than were sent"));
        let foreign = load.see(&[], &[b"{}".to_vec()]);
        assert_eq!(foreign, Err("not an event of this load"));
    }

    #[test]
    fn an_event_that_was_refused_may_come_later_by_its_copy() {
        let load = load();
        let fresh = load.numbers(Kind::Fresh);
        let bus = [load.envelope(fresh[1]), load.envelope(fresh[0])];
        assert_eq!(load.see(&fresh[..1], &bus), Ok(()));
    }

    #[test]
    fn an_answer_that_was_lost_leaves_room_for_its_event_and_no_more() {
        assert!(between(10, 10, 0) && between(11, 10, 1));
        assert!(!between(9, 10, 5) && !between(12, 10, 1));
    }
}
