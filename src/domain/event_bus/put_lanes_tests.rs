use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const LIMITS: RequestLimits = RequestLimits {
    records_max: 500,
    bytes_max: 5 << 20,
};

fn records(keys: &[u8], bytes: u32) -> Vec<LaneRecord> {
    let record = |(item, key): (usize, &u8)| LaneRecord {
        key: Hash32::of(&[*key]),
        item: item as u32,
        bytes,
    };
    keys.iter().enumerate().map(record).collect()
}

fn always(_item: u32) -> Admission {
    Admission::Now
}

/// Requests of one lane when everything is placed.
fn requests(lane: &mut PutLane, limits: &RequestLimits) -> Vec<Vec<u32>> {
    let (mut sent, mut items) = (Vec::new(), Vec::new());
    while lane.next_put(limits, &mut always, &mut items) == NextPut::Send {
        sent.push(items.clone());
        lane.settle(|_| true);
    }
    sent
}

#[test]
fn a_request_holds_one_record_of_each_key_and_long_keys_go_first() {
    let records = records(&[1, 2, 3, 3, 3, 4, 5], 10);
    let mut lanes = spread(&records, &LIMITS, 1);
    let limits = RequestLimits {
        records_max: 3,
        ..LIMITS
    };
    assert_eq!(
        requests(&mut lanes[0], &limits),
        [vec![2, 0, 1], vec![3, 5, 6], vec![4]]
    );
    assert_eq!(lanes[0].left(), 0);
}

#[test]
fn the_longest_key_decides_how_many_requests_there_are() {
    let mut keys: Vec<u8> = (0..200).collect();
    keys.extend([7; 9]);
    let records = records(&keys, 10);
    let limits = RequestLimits {
        records_max: 50,
        ..LIMITS
    };
    let sent = requests(&mut spread(&records, &limits, 1)[0], &limits);
    assert_eq!(sent.len(), 10, "ten records of one key, the others beside");
}

#[test]
fn failed_records_go_first_in_the_next_request() {
    let records = records(&[1, 1, 2, 2, 2, 3], 10);
    let mut lane = spread(&records, &LIMITS, 1).remove(0);
    let mut items = Vec::new();
    assert_eq!(
        lane.next_put(&LIMITS, &mut always, &mut items),
        NextPut::Send
    );
    assert_eq!(items, [2, 0, 5]);
    lane.settle(|position| position != 2);
    let one = RequestLimits {
        records_max: 1,
        ..LIMITS
    };
    assert_eq!(lane.next_put(&one, &mut always, &mut items), NextPut::Send);
    assert_eq!(items, [5]);
    lane.settle(|_| true);
    assert_eq!(requests(&mut lane, &LIMITS), [vec![3, 1], vec![4]]);
}

#[test]
fn a_request_is_closed_by_bytes_and_one_that_is_larger_goes_alone() {
    let limits = RequestLimits {
        records_max: 500,
        bytes_max: 100,
    };
    let mut lane = spread(&records(&[1, 2, 3, 4], 40), &limits, 1).remove(0);
    assert_eq!(requests(&mut lane, &limits), [vec![0, 1], vec![2, 3]]);
    let mut lane = spread(&records(&[1, 2], 400), &limits, 1).remove(0);
    assert_eq!(requests(&mut lane, &limits), [vec![0], vec![1]]);
}

#[test]
fn few_records_use_one_lane_and_many_use_all() {
    let keys: Vec<u8> = (0..=255).collect();
    assert_eq!(spread(&records(&keys, 10), &LIMITS, 4).len(), 1);
    let small = RequestLimits {
        records_max: 100,
        ..LIMITS
    };
    assert_eq!(spread(&records(&keys, 10), &small, 4).len(), 3);
    assert_eq!(spread(&records(&keys, 1 << 20), &LIMITS, 4).len(), 4);
    assert_eq!(spread(&[], &LIMITS, 4).len(), 1);
}

#[test]
fn a_key_that_is_held_back_leaves_the_request_to_others() {
    let mut lane = spread(&records(&[1, 2, 1], 10), &LIMITS, 1).remove(0);
    let mut items = Vec::new();
    let mut hold_zero = |item| match item {
        0 => Admission::At(50),
        _ => Admission::Now,
    };
    let next = lane.next_put(&LIMITS, &mut hold_zero, &mut items);
    assert_eq!((next, &items[..]), (NextPut::Send, &[1][..]));
    lane.settle(|_| true);
    let next = lane.next_put(&LIMITS, &mut hold_zero, &mut items);
    assert_eq!(next, NextPut::WaitUntil(50));
    assert_eq!(requests(&mut lane, &LIMITS), [vec![0], vec![2]]);
    let next = lane.next_put(&LIMITS, &mut always, &mut items);
    assert_eq!(next, NextPut::Done);
}

/// A service that fails some records of a request, some requests, and loses some answers.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Records(u64),
    Request,
    LostAnswer,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::None),
        3 => any::<u64>().prop_map(Fault::Records),
        1 => Just(Fault::Request),
        1 => Just(Fault::LostAnswer),
    ]
}

proptest! {
    #[test]
    fn nothing_is_lost_and_every_key_keeps_its_order(
        keys in prop::collection::vec(0u8..40, 0..400),
        sizes in prop::collection::vec(1u32..200, 400),
        faults in prop::collection::vec(fault(), 0..60),
        lanes_max in 1usize..6,
        records_max in 1usize..30,
        bytes_max in 1usize..1_000,
        waits in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let limits = RequestLimits { records_max, bytes_max };
        let mut records = records(&keys, 0);
        for (record, size) in records.iter_mut().zip(&sizes) {
            record.bytes = *size;
        }
        let mut lanes = spread(&records, &limits, lanes_max);
        prop_assert!(lanes.len() <= lanes_max);
        let mut stored: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
        let mut placed = vec![0u32; keys.len()];
        let (mut faults, mut waits) = (faults.into_iter(), waits.into_iter());
        let mut items = Vec::new();
        let mut done = vec![false; lanes.len()];
        // Lanes take turns: requests of different lanes overlap in any way.
        while done.contains(&false) {
            for (lane, done) in lanes.iter_mut().zip(&mut done).filter(|(_, done)| !**done) {
                let mut admit = |_item| match waits.next() {
                    Some(true) => Admission::At(1),
                    _ => Admission::Now,
                };
                match lane.next_put(&limits, &mut admit, &mut items) {
                    NextPut::Done => *done = true,
                    NextPut::WaitUntil(_) => {}
                    NextPut::Send => {
                        let fault = faults.next().unwrap_or(Fault::None);
                        let bytes: usize = items.iter().map(|item| sizes[*item as usize] as usize).sum();
                        prop_assert!(items.len() <= records_max);
                        prop_assert!(bytes <= bytes_max || items.len() == 1);
                        let mut seen: Vec<u8> = items.iter().map(|item| keys[*item as usize]).collect();
                        seen.sort_unstable();
                        seen.dedup();
                        prop_assert_eq!(seen.len(), items.len(), "one record of each key");
                        let taken = |position: usize| match fault {
                            Fault::Request => false,
                            Fault::Records(mask) => mask >> (position % 64) & 1 == 0,
                            Fault::None | Fault::LostAnswer => true,
                        };
                        for (position, item) in items.iter().enumerate() {
                            if taken(position) {
                                stored.entry(keys[*item as usize]).or_default().push(*item);
                            }
                        }
                        let lost = matches!(fault, Fault::LostAnswer);
                        lane.settle(|position| {
                            let told = taken(position) && !lost;
                            placed[items[position] as usize] += u32::from(told);
                            told
                        });
                    }
                }
            }
        }
        prop_assert!(placed.iter().all(|times| *times == 1), "each is placed once: {placed:?}");
        for (key, items) in &stored {
            // A repeated record follows its first copy directly: no later record came between.
            let mut once = items.clone();
            once.dedup();
            let expected: Vec<u32> = (0..keys.len() as u32)
                .filter(|item| keys[*item as usize] == *key)
                .collect();
            prop_assert_eq!(once, expected);
        }
    }
}
