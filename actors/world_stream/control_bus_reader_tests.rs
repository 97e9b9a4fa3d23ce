//! Which messages are offered again, when, and which never.

use super::*;
use crate::runtime::TreeHandle;
use crate::world_stream::ready_desk::{ReadyDesk, TakeUp};
use crate::world_stream::ready_run::ReadyPorts;
use crate::world_stream::run_orders::RunOrders;
use crate::world_stream::runs_supervisor::{RunsSupervisor, RunsSupervisorArgs, RunsSupervisorMsg};
use crate::world_stream::testing::{FakeGate, FixedClock};
use std::sync::Mutex;
use wellspring_domain::ports::PutOutcome;
use wellspring_domain::stream::ready_decision::ReadyStatus;

/// A bus with fixed messages.
#[derive(Default)]
struct Bus {
    messages: Vec<String>,
    settled: Mutex<Vec<String>>,
}

impl ControlBus for Bus {
    fn publish(&self, _: &str, _: &str, _: &str, _: &[u8]) -> Result<PutOutcome, StoreError> {
        Ok(PutOutcome::Created)
    }
    fn poll(&self, _topic: &str, _max: usize) -> Result<Vec<ControlRecord>, StoreError> {
        let settled = self.settled.lock().unwrap();
        let open = self.messages.iter().filter(|name| !settled.contains(name));
        Ok(open
            .map(|name| ControlRecord {
                position: name.clone(),
                bytes: Vec::new(),
            })
            .collect())
    }
    fn settle(&self, _topic: &str, record: &ControlRecord) -> Result<(), StoreError> {
        self.settled.lock().unwrap().push(record.position.clone());
        Ok(())
    }
}

/// Answers by the message's name: `streamed`, `failed`, `deferred`, `terminal`, `panics`, and `held`,
/// which lasts as long as the gate of the desk is closed.
#[derive(Default)]
struct Desk {
    seen: Mutex<Vec<(String, Duration)>>,
    began: Mutex<Option<Instant>>,
    closed: Mutex<()>,
}

impl ReadyDesk for Desk {
    fn take_up(&self, record: &ControlRecord) -> Result<TakeUp, StoreError> {
        let at = self.began.lock().unwrap().unwrap().elapsed();
        let mut seen = self.seen.lock().unwrap();
        seen.push((record.position.clone(), at));
        let attempt = seen
            .iter()
            .filter(|(name, _)| *name == record.position)
            .count() as u32;
        drop(seen);
        let status = match record.position.as_str() {
            "held" => {
                drop(self.closed.lock().unwrap());
                ReadyStatus::Streamed
            }
            "streamed" => ReadyStatus::Streamed,
            "deferred" if attempt < 3 => ReadyStatus::DeferredDownstreamNotReady,
            "deferred" => ReadyStatus::Streamed,
            "failed" => ReadyStatus::Failed,
            "panics" => panic!("the desk fell over"),
            _ => {
                return Ok(TakeUp::NotReady {
                    why: "a terminal signal".to_owned(),
                });
            }
        };
        Ok(TakeUp::Ended(Box::new(ReadyOutcome {
            message_id: record.position.clone(),
            run_id: "r".to_owned(),
            status,
            reason: None,
            detail: None,
            emitted: 0,
            engine_run_root: None,
            scenario_id: None,
            attempt,
            outputs: Vec::new(),
        })))
    }
}

/// A reader and a runs supervisor over a desk.
struct Rig {
    bus: Arc<Bus>,
    reader: ActorRef<ControlBusReaderMsg>,
    runs: ActorRef<RunsSupervisorMsg>,
}

impl Rig {
    async fn start(desk: &Arc<Desk>, messages: &[&str], runs_max: usize, poll: Duration) -> Rig {
        *desk.began.lock().unwrap() = Some(Instant::now());
        let messages = messages.iter().map(|name| (*name).to_owned()).collect();
        let bus = Arc::new(Bus {
            messages,
            ..Bus::default()
        });
        let tree = TreeHandle::new(Arc::new(|| 0));
        let ports = ReadyPorts {
            desk: desk.clone(),
            gate: FakeGate::new(1, vec![]),
            clock: Arc::new(FixedClock),
            orders: RunOrders::default(),
        };
        let args = RunsSupervisorArgs {
            ports,
            node: tree.node("runs", "supervisor"),
            runs_max,
            stop_deadline: Duration::from_secs(1),
        };
        let (runs, _) = Actor::spawn(None, RunsSupervisor, args).await.unwrap();
        let args = ControlBusReaderArgs {
            bus: bus.clone(),
            topic: "fp.bus.control.v1".to_owned(),
            poll_interval: poll,
            runs: runs.clone(),
            outcomes: None,
            node: tree.node("reader", "reader"),
        };
        let (reader, _) = Actor::spawn(None, ControlBusReader, args).await.unwrap();
        Rig { bus, reader, runs }
    }

    /// Stops both and tells what was settled.
    async fn stop(self) -> Vec<String> {
        self.reader.stop_and_wait(None, None).await.unwrap();
        self.runs.stop_and_wait(None, None).await.unwrap();
        self.bus.settled.lock().unwrap().clone()
    }
}

async fn seen_after(messages: &[&str], seconds: u64) -> (Vec<(String, u64)>, Vec<String>) {
    let desk = Arc::new(Desk::default());
    let rig = Rig::start(&desk, messages, 8, Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let settled = rig.stop().await;
    let seen = desk.seen.lock().unwrap().clone();
    let seen = seen
        .into_iter()
        .map(|(name, at)| (name, at.as_secs()))
        .collect();
    (seen, settled)
}

fn times_of(seen: &[(String, u64)], name: &str) -> Vec<u64> {
    seen.iter()
        .filter(|(seen, _)| seen == name)
        .map(|(_, at)| *at)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_streamed_message_and_one_that_is_no_ready_are_settled_after_one_look() {
    let (seen, mut settled) = seen_after(&["streamed", "terminal"], 30).await;
    settled.sort();
    assert_eq!(settled, ["streamed", "terminal"]);
    assert_eq!(seen.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deferred_message_is_kept_and_looked_at_again_at_every_poll() {
    let (seen, settled) = seen_after(&["deferred"], 30).await;
    assert_eq!(times_of(&seen, "deferred"), [0, 1, 2]);
    assert_eq!(settled, ["deferred"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_rests_longer_each_time() {
    let (seen, settled) = seen_after(&["failed"], 32).await;
    assert_eq!(settled, [""; 0]);
    let times = times_of(&seen, "failed");
    let rests: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(rests.len(), 4, "{times:?}");
    for (rest, expected) in rests.iter().zip([2, 4, 8, 16]) {
        assert!((expected..=expected + 1).contains(rest), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_run_costs_its_message_a_rest_and_nothing_else() {
    let (seen, settled) = seen_after(&["panics", "streamed"], 10).await;
    assert_eq!(settled, ["streamed"]);
    assert!(times_of(&seen, "panics").len() >= 2, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::await_holding_lock)] // the desk waits for this lock on a thread of its own
async fn a_message_without_room_stays_on_the_bus_until_a_run_has_ended() {
    let desk = Arc::new(Desk::default());
    let seen = || -> Vec<String> {
        let seen = desk.seen.lock().unwrap();
        seen.iter().map(|(name, _)| name.clone()).collect()
    };
    let settled = |rig: &Rig| rig.bus.settled.lock().unwrap().len();
    let closed = desk.closed.lock().unwrap();
    let poll = Duration::from_millis(5);
    let rig = Rig::start(&desk, &["held", "streamed"], 1, poll).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((seen(), settled(&rig)), (vec!["held".to_owned()], 0));
    drop(closed);
    let end = Instant::now() + Duration::from_secs(10);
    while settled(&rig) < 2 {
        assert!(Instant::now() < end, "only {:?} were seen", seen());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seen(), ["held", "streamed"]);
    assert_eq!(rig.stop().await, ["held", "streamed"]);
}
