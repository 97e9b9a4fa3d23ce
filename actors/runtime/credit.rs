//! Credits: room that is taken before a message is sent and travels inside it.
//!
//! Mailboxes are unbounded, so they must never be the queue. The receiver of data owns a [`Credits`]
//! of events and bytes; a sender waits for permits, moves the [`Credit`] into the message, and the
//! receiver drops it when the batch has left it (durable, or sent on). A dying actor drops its
//! mailbox and with it every credit inside, so none can leak.
//!
//! Order of waiting is always events, then bytes, so two waiting senders cannot hold what the other
//! wants. A batch larger than the limit would wait for ever: split it first.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How much may be in flight towards one receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditLimits {
    /// Most events in flight.
    pub events_max: u32,
    /// Most bytes in flight.
    pub bytes_max: u32,
}

/// What is in flight now, for metrics and the live tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditGauges {
    /// Events in flight.
    pub events_in_use: u32,
    /// Most events in flight.
    pub events_limit: u32,
    /// Bytes in flight.
    pub bytes_in_use: u32,
    /// Most bytes in flight.
    pub bytes_limit: u32,
    /// Time senders have waited for room, summed since the start.
    pub blocked_micros: u64,
}

/// The room in front of one receiver. Clones share it.
#[derive(Clone)]
pub struct Credits {
    room: Arc<Room>,
}

struct Room {
    limits: CreditLimits,
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    blocked_micros: AtomicU64,
}

/// Room for one batch. Travels inside the message; dropping it gives the room back.
#[derive(Debug)]
pub struct Credit {
    events: Option<OwnedSemaphorePermit>,
    bytes: Option<OwnedSemaphorePermit>,
}

impl Credits {
    /// Room for at most `limits` in flight.
    pub fn new(limits: CreditLimits) -> Self {
        assert!(
            limits.events_max > 0 && limits.bytes_max > 0,
            "no room at all would block for ever"
        );
        Credits {
            room: Arc::new(Room {
                limits,
                events: Arc::new(Semaphore::new(limits.events_max as usize)),
                bytes: Arc::new(Semaphore::new(limits.bytes_max as usize)),
                blocked_micros: AtomicU64::new(0),
            }),
        }
    }

    /// Waits for room: use between stages. Time spent waiting is counted.
    pub async fn take(&self, events: u32, bytes: u32) -> Credit {
        self.assert_fits(events, bytes);
        if let Some(credit) = self.try_take(events, bytes) {
            return credit;
        }
        let waited = BlockedTime {
            room: &self.room,
            since: Instant::now(),
        };
        let credit = Credit {
            events: acquire(&self.room.events, events).await,
            bytes: acquire(&self.room.bytes, bytes).await,
        };
        drop(waited);
        credit
    }

    /// Waits for room, but not for ever: use at the HTTP edge (429 with Retry-After). Those who wait are
    /// served in the order they came, so a sender that was just answered cannot overtake them for ever.
    /// What could never fit is refused at once.
    pub async fn take_within(&self, events: u32, bytes: u32, patience: Duration) -> Option<Credit> {
        let limits = self.room.limits;
        if events > limits.events_max || bytes > limits.bytes_max {
            return None;
        }
        if let Some(credit) = self.try_take(events, bytes) {
            return Some(credit);
        }
        tokio::time::timeout(patience, self.take(events, bytes))
            .await
            .ok()
    }

    /// Takes room or refuses at once.
    ///
    /// A batch that could never fit is refused too.
    pub fn try_take(&self, events: u32, bytes: u32) -> Option<Credit> {
        Some(Credit {
            events: try_acquire(&self.room.events, events)?,
            bytes: try_acquire(&self.room.bytes, bytes)?,
        })
    }

    /// What is in flight now.
    pub fn gauges(&self) -> CreditGauges {
        let limits = self.room.limits;
        CreditGauges {
            events_in_use: limits.events_max - free(&self.room.events),
            events_limit: limits.events_max,
            bytes_in_use: limits.bytes_max - free(&self.room.bytes),
            bytes_limit: limits.bytes_max,
            blocked_micros: self.room.blocked_micros.load(Ordering::Relaxed),
        }
    }

    /// The limits this room was made with.
    pub fn limits(&self) -> CreditLimits {
        self.room.limits
    }

    fn assert_fits(&self, events: u32, bytes: u32) {
        let limits = self.room.limits;
        assert!(
            events <= limits.events_max && bytes <= limits.bytes_max,
            "a batch of {events} events and {bytes} bytes is larger than the limit and would wait for ever"
        );
    }
}

impl Credit {
    /// Events this credit stands for.
    pub fn events(&self) -> u32 {
        self.events
            .as_ref()
            .map_or(0, |permit| permit.num_permits() as u32)
    }

    /// Bytes this credit stands for.
    pub fn bytes(&self) -> u32 {
        self.bytes
            .as_ref()
            .map_or(0, |permit| permit.num_permits() as u32)
    }

    /// Joins another credit of the same room into this one, e.g. bytes taken before reading a body
    /// and events taken after splitting it.
    pub fn merge(&mut self, other: Credit) {
        merge_permits(&mut self.events, other.events);
        merge_permits(&mut self.bytes, other.bytes);
    }

    /// Splits a part off, e.g. when one body becomes batches for several shards. `None` if this
    /// credit does not hold that much.
    pub fn split(&mut self, events: u32, bytes: u32) -> Option<Credit> {
        if events > self.events() || bytes > self.bytes() {
            return None;
        }
        let events = self
            .events
            .as_mut()
            .and_then(|permit| permit.split(events as usize));
        let bytes = self
            .bytes
            .as_mut()
            .and_then(|permit| permit.split(bytes as usize));
        Some(Credit { events, bytes })
    }
}

/// Counts blocked time also when the waiting future is dropped.
struct BlockedTime<'a> {
    room: &'a Room,
    since: Instant,
}

impl Drop for BlockedTime<'_> {
    fn drop(&mut self) {
        let micros = self.since.elapsed().as_micros() as u64;
        self.room
            .blocked_micros
            .fetch_add(micros, Ordering::Relaxed);
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> Option<OwnedSemaphorePermit> {
    if permits == 0 {
        return None;
    }
    let permit = semaphore.clone().acquire_many_owned(permits).await;
    Some(permit.expect("credits are never closed"))
}

/// `None`: no room. `Some(None)`: nothing was asked for.
fn try_acquire(semaphore: &Arc<Semaphore>, permits: u32) -> Option<Option<OwnedSemaphorePermit>> {
    if permits == 0 {
        return Some(None);
    }
    semaphore
        .clone()
        .try_acquire_many_owned(permits)
        .ok()
        .map(Some)
}

fn merge_permits(into: &mut Option<OwnedSemaphorePermit>, from: Option<OwnedSemaphorePermit>) {
    match (into.as_mut(), from) {
        (Some(held), Some(more)) => held.merge(more),
        (None, more) => *into = more,
        (Some(_), None) => {}
    }
}

fn free(semaphore: &Semaphore) -> u32 {
    semaphore.available_permits() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(events_max: u32, bytes_max: u32) -> Credits {
        Credits::new(CreditLimits {
            events_max,
            bytes_max,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_waits_until_room_comes_back_and_the_wait_is_counted() {
        let credits = room(10, 1000);
        let held = credits.take(8, 100).await;
        let waiter = tokio::spawn({
            let credits = credits.clone();
            async move { credits.take(4, 10).await }
        });
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert!(!waiter.is_finished());
        drop(held);
        let taken = waiter.await.unwrap();
        assert_eq!((taken.events(), taken.bytes()), (4, 10));
        assert_eq!(credits.gauges().blocked_micros, 250_000);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_limit_a_sender_like_events_do() {
        let credits = room(100, 50);
        let held = credits.take(1, 50).await;
        let waiter = tokio::spawn({
            let credits = credits.clone();
            async move { credits.take(1, 1).await }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!waiter.is_finished());
        drop(held);
        waiter.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_in_order_and_leaves_nothing_behind_when_patience_ends() {
        let patience = Duration::from_secs(1);
        let credits = room(4, 100);
        let held = credits.take(4, 0).await;
        assert!(credits.take_within(3, 0, patience).await.is_none());
        let first = tokio::spawn({
            let credits = credits.clone();
            async move { credits.take_within(4, 0, patience).await }
        });
        tokio::task::yield_now().await;
        drop(held);
        // Room is there, but it belongs to the one that waits.
        assert!(credits.try_take(1, 0).is_none());
        let first = first.await.unwrap().unwrap();
        assert_eq!(first.events(), 4);
        drop(first);
        assert_eq!(credits.gauges().events_in_use, 0);
        assert!(credits.take_within(5, 0, patience).await.is_none());
    }

    #[test]
    fn a_try_refuses_at_once_and_keeps_nothing_of_a_refused_take() {
        let credits = room(4, 100);
        let held = credits.try_take(2, 90).unwrap();
        assert!(credits.try_take(3, 1).is_none());
        assert!(credits.try_take(1, 11).is_none());
        assert_eq!(credits.gauges().events_in_use, 2);
        assert!(credits.try_take(5, 0).is_none());
        drop(held);
        assert_eq!(credits.gauges(), room(4, 100).gauges());
    }

    #[test]
    fn credits_merge_and_split_without_losing_a_permit() {
        let credits = room(10, 100);
        let mut body = credits.try_take(0, 60).unwrap();
        body.merge(credits.try_take(6, 0).unwrap());
        let part = body.split(2, 20).unwrap();
        assert_eq!(
            (body.events(), body.bytes(), part.events(), part.bytes()),
            (4, 40, 2, 20)
        );
        assert!(body.split(5, 0).is_none());
        drop(part);
        assert_eq!(
            (
                credits.gauges().events_in_use,
                credits.gauges().bytes_in_use
            ),
            (4, 40)
        );
        drop(body);
        assert_eq!(
            (
                credits.gauges().events_in_use,
                credits.gauges().bytes_in_use
            ),
            (0, 0)
        );
    }

    #[tokio::test]
    #[should_panic(expected = "would wait for ever")]
    async fn a_batch_that_can_never_fit_is_a_programming_error() {
        room(4, 100).take(5, 1).await;
    }
}
