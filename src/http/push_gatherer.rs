//! What decides which single pushes are decided together.
//!
//! An event that comes while nothing is under way goes at once. While others are, more are gathered: until as many
//! wait as are under way, or those under way are answered. Then the callers of one half prepare their next events
//! while the other half's become durable, and there are few large batches instead of many small ones, each of which
//! would cost a sync. Nothing is held longer than [`HELD_MAX`]. Durable: nothing; an event in here was not answered
//! yet, and a caller whose answer is lost sends it again.

use super::single_pushes::{EVENTS_MAX, SinglePush, batches};
use super::state::HttpState;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use wellspring_domain::lent_buffers::LentBuffers;

/// Longest time an event is held for others to come: less than a slow disk takes to sync.
const HELD_MAX: Duration = Duration::from_millis(5);

/// Gathers single pushes into batches.
pub struct Gatherer {
    pushes: mpsc::Receiver<SinglePush>,
    /// Events handed over and not answered.
    under_way: watch::Sender<usize>,
}

/// Events that are under way until this is dropped.
struct UnderWay {
    events: usize,
    all: watch::Sender<usize>,
}

impl Gatherer {
    /// Gathers what comes out of a channel.
    pub(super) fn new(pushes: mpsc::Receiver<SinglePush>) -> Gatherer {
        Gatherer {
            pushes,
            under_way: watch::Sender::new(0),
        }
    }

    /// Gathers until nobody can push any more.
    pub async fn run(mut self, state: HttpState) {
        let mut waiting = Vec::with_capacity(EVENTS_MAX);
        let mut buffers = LentBuffers::default();
        while self.gather(&mut waiting).await {
            for mut batch in batches(waiting.drain(..), &mut buffers) {
                let under_way = UnderWay::begin(&self.under_way, batch.events());
                let bytes = buffers.lend(batch.take_bytes());
                let deciding = batch.decide(bytes, state.clone());
                tokio::spawn(async move {
                    deciding.await;
                    drop(under_way);
                });
            }
        }
    }

    /// Waits for the events of the next batches; false when none will come.
    async fn gather(&mut self, waiting: &mut Vec<SinglePush>) -> bool {
        if self.pushes.recv_many(waiting, EVENTS_MAX).await == 0 {
            return false;
        }
        // Requests that have arrived by now hand their events over first.
        tokio::task::yield_now().await;
        while waiting.len() < EVENTS_MAX
            && let Ok(push) = self.pushes.try_recv()
        {
            waiting.push(push);
        }
        if is_worth_waiting(waiting.len(), *self.under_way.borrow()) {
            // What came until then is in `waiting`.
            let _ = tokio::time::timeout(HELD_MAX, self.gather_more(waiting)).await;
        }
        true
    }

    async fn gather_more(&mut self, waiting: &mut Vec<SinglePush>) {
        let mut under_way = self.under_way.subscribe();
        while is_worth_waiting(waiting.len(), *under_way.borrow_and_update()) {
            let room = EVENTS_MAX - waiting.len();
            tokio::select! {
                received = self.pushes.recv_many(waiting, room) => {
                    if received == 0 {
                        return;
                    }
                }
                _ = under_way.changed() => {}
            }
        }
    }
}

/// Whether events that wait should wait for more.
fn is_worth_waiting(waiting: usize, under_way: usize) -> bool {
    waiting < under_way.min(EVENTS_MAX)
}

impl UnderWay {
    fn begin(all: &watch::Sender<usize>, events: usize) -> UnderWay {
        all.send_modify(|under_way| *under_way += events);
        UnderWay {
            events,
            all: all.clone(),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.send_modify(|under_way| *under_way -= self.events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::single_pushes::tests::push;
    use wellspring_actors::runtime::credit::{CreditLimits, Credits};

    #[test]
    fn events_wait_only_for_as_many_as_are_under_way_and_fit_a_batch() {
        assert!(!is_worth_waiting(1, 0) && !is_worth_waiting(1, 1));
        assert!(is_worth_waiting(1, 2) && is_worth_waiting(255, 256));
        assert!(!is_worth_waiting(256, 256));
        assert!(!is_worth_waiting(EVENTS_MAX, 2 * EVENTS_MAX));
    }

    struct Scene {
        credits: Credits,
        pushes: mpsc::Sender<SinglePush>,
        gatherer: Gatherer,
        waiting: Vec<SinglePush>,
    }

    impl Scene {
        fn new() -> Scene {
            let (pushes, receiver) = mpsc::channel(64);
            Scene {
                credits: Credits::new(CreditLimits {
                    events_max: 100,
                    bytes_max: 1000,
                }),
                pushes,
                gatherer: Gatherer::new(receiver),
                waiting: Vec::new(),
            }
        }

        async fn push(&self, count: usize) {
            for _ in 0..count {
                let push = push(&self.credits, "a", b"1".to_vec());
                assert!(self.pushes.send(push).await.is_ok());
            }
        }

        /// How many events were gathered, and how long that took.
        async fn gathered(&mut self) -> (usize, Duration) {
            let began = tokio::time::Instant::now();
            assert!(self.gatherer.gather(&mut self.waiting).await);
            (self.waiting.drain(..).count(), began.elapsed())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_alone_goes_at_once_and_nothing_is_held_for_longer_than_that() {
        let mut scene = Scene::new();
        scene.push(1).await;
        assert_eq!(scene.gathered().await, (1, Duration::ZERO));
        let _others = UnderWay::begin(&scene.gatherer.under_way, 3);
        scene.push(3).await;
        assert_eq!(scene.gathered().await, (3, Duration::ZERO));
        scene.push(2).await;
        assert_eq!(scene.gathered().await, (2, HELD_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_held_until_as_many_wait_as_are_under_way_or_those_are_answered() {
        let mut scene = Scene::new();
        let [first, second] = [4, 3].map(|n| UnderWay::begin(&scene.gatherer.under_way, n));
        let later = Duration::from_millis(1);
        scene.push(2).await;
        let all = scene.pushes.clone();
        let more = push(&scene.credits, "a", b"1".to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(later).await;
            assert!(all.send(more).await.is_ok());
            tokio::time::sleep(later).await;
            drop(first);
        });
        assert_eq!(scene.gathered().await, (3, 2 * later));
        drop(second);
        scene.push(1).await;
        assert_eq!(scene.gathered().await, (1, Duration::ZERO));
        drop(scene.pushes);
        assert!(!scene.gatherer.gather(&mut scene.waiting).await);
    }
}
