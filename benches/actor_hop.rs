//! What one hop from stage to stage costs an event: one event a message, and 512 events a message, with room
//! taken before a message is sent.
//!
//! `cargo bench --bench actor_hop`. Floors: a bounded tokio channel, and no hop at all.

// A bench measures with the clock of the machine.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, missing_docs)] // every bench uses its own part
mod support;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::hint::black_box;
use support::measure::Watch;
use support::session::Session;
use tokio::sync::{mpsc, oneshot};
use wellspring_actors::runtime::credit::Credit;
use wellspring_actors::runtime::{CreditLimits, Credits};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An event of 32 bytes.
type Event = [u64; 4];

/// Events that may be under way.
const ROOM: u32 = 8192;

fn main() {
    let mut session = Session::start("actor_hop");
    for (size, messages) in [(1usize, 2_000_000u64), (512, 100_000)] {
        let work = session.work(
            format!("actor hop, {size} events a message"),
            messages * size as u64,
        );
        work.way("floor: bounded tokio channel", |watch| {
            in_runtime(channel(watch, size, messages));
        })
        .way("no hop: build and sum", |watch| {
            watch.measure(|| {
                let sums = (0..messages).map(|number| sum(&black_box(message(size, number))));
                black_box(sums.fold(0, u64::wrapping_add));
            });
        })
        .way("actor with credits", |watch| {
            in_runtime(actor(watch, size, messages));
        })
        .run();
    }
    session.finish();
}

fn in_runtime(work: impl Future<Output = ()>) {
    wellspring::process::runtime()
        .expect("a runtime")
        .block_on(work);
}

fn message(size: usize, number: u64) -> Vec<Event> {
    vec![[number; 4]; size]
}

fn sum(events: &[Event]) -> u64 {
    events
        .iter()
        .fold(0, |sum, event| sum.wrapping_add(event[0] ^ event[3]))
}

async fn channel(watch: &mut Watch, size: usize, messages: u64) {
    let (sender, mut receiver) = mpsc::channel::<Vec<Event>>((ROOM as usize / size).max(1));
    let receiving = tokio::spawn(async move {
        let mut total = 0u64;
        while let Some(events) = receiver.recv().await {
            total = total.wrapping_add(sum(&events));
        }
        total
    });
    watch.begin();
    let sending = tokio::spawn(async move {
        for number in 0..messages {
            let sent = sender.send(message(size, number)).await;
            sent.expect("a receiver");
        }
    });
    sending.await.expect("a sender that ends");
    black_box(receiving.await.expect("a receiver that ends"));
    watch.end();
}

struct Summing;

enum Message {
    Events(Vec<Event>, #[allow(dead_code)] Credit), // the room is given back with the message
    End(oneshot::Sender<u64>),
}

impl Actor for Summing {
    type Msg = Message;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, _: ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        total: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Events(events, _room) => *total = total.wrapping_add(sum(&events)),
            Message::End(reply) => {
                // Nobody waits any more when the bench has failed.
                let _ = reply.send(*total);
            }
        }
        Ok(())
    }
}

async fn actor(watch: &mut Watch, size: usize, messages: u64) {
    let (actor, ended) = Actor::spawn(None, Summing, ()).await.expect("an actor");
    let credits = Credits::new(CreditLimits {
        events_max: ROOM,
        bytes_max: 1 << 24,
    });
    let target = actor.clone();
    watch.begin();
    let sending = tokio::spawn(async move {
        for number in 0..messages {
            let room = credits.take(size as u32, size as u32 * 32).await;
            let sent = target.cast(Message::Events(message(size, number), room));
            sent.expect("an actor that lives");
        }
        let (reply, answer) = oneshot::channel();
        target.cast(Message::End(reply)).expect("it lives");
        answer.await.expect("its answer")
    });
    black_box(sending.await.expect("a sender that ends"));
    watch.end();
    actor.stop(None);
    ended.await.expect("an actor that ends");
}
