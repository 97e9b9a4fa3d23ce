//! Work that blocks, off the actors' threads: the only place where actors start threads.
//!
//! Three forms are enough: work that is done once ([`run`]), work that takes jobs for as long as its
//! owner lives ([`worker`]), and work that makes items for a bounded channel ([`producer`]).
//!
//! Threads of the operating system take turns as they please. A simulation that must be repeatable puts
//! [`VirtualThreads`] in their place for the thread it runs on: then the same work runs on that thread,
//! piece by piece, when the simulation lets it.

use super::BoxFuture;
use std::cell::RefCell;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Says when blocking work goes on in a simulation.
pub trait VirtualThreads {
    /// Resolves when the next piece of the work called `name` may run.
    fn turn(&self, name: &str) -> BoxFuture<'static, ()>;
}

thread_local! {
    static VIRTUAL: RefCell<Option<Rc<dyn VirtualThreads>>> = const { RefCell::new(None) };
}

/// Takes virtual threads away again when it is dropped.
#[must_use = "threads are virtual for as long as this lives"]
pub struct Simulated(());

/// From now on, work started on this thread runs on virtual threads.
pub fn simulate(threads: Rc<dyn VirtualThreads>) -> Simulated {
    VIRTUAL.set(Some(threads));
    Simulated(())
}

impl Drop for Simulated {
    fn drop(&mut self) {
        VIRTUAL.take();
    }
}

fn turn_of(name: &str) -> Option<BoxFuture<'static, ()>> {
    VIRTUAL.with_borrow(|threads| threads.as_ref().map(|threads| threads.turn(name)))
}

/// Runs `work` on a blocking thread. Like there, it goes on when nobody waits for it any more, and a panic
/// is an error of the handle.
pub fn run<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    match turn_of(name) {
        None => tokio::task::spawn_blocking(work),
        Some(turn) => tokio::spawn(async move {
            turn.await;
            work()
        }),
    }
}

/// The thread is gone, or has more jobs waiting than it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the thread takes no jobs")]
pub struct NotTaken;

/// The way to a [`worker`]; the thread ends when this is dropped and its jobs are done.
pub struct Jobs<J> {
    way: Way<J>,
}

enum Way<J> {
    Thread(SyncSender<J>),
    Virtual(mpsc::Sender<J>),
}

impl<J> Jobs<J> {
    /// Hands a job over, without waiting.
    pub fn give(&self, job: J) -> Result<(), NotTaken> {
        match &self.way {
            Way::Thread(jobs) => jobs.try_send(job).map_err(|_| NotTaken),
            Way::Virtual(jobs) => jobs.try_send(job).map_err(|_| NotTaken),
        }
    }
}

/// Starts a thread that does jobs in order until `work` breaks or nobody can give one any more. The
/// receiver resolves, with an error, when the thread has dropped everything it had.
pub fn worker<J: Send + 'static>(
    name: String,
    jobs_max: usize,
    mut work: impl FnMut(J) -> ControlFlow<()> + Send + 'static,
) -> io::Result<(Jobs<J>, oneshot::Receiver<()>)> {
    let (ended, gone) = oneshot::channel::<()>();
    if turn_of(&name).is_some() {
        let (jobs, mut inbox) = mpsc::channel(jobs_max);
        tokio::spawn(async move {
            while let Some(job) = inbox.recv().await {
                if let Some(turn) = turn_of(&name) {
                    turn.await;
                }
                if work(job).is_break() {
                    break;
                }
            }
            drop((inbox, work));
            drop(ended);
        });
        let way = Way::Virtual(jobs);
        return Ok((Jobs { way }, gone));
    }
    let (jobs, inbox) = sync_channel(jobs_max);
    std::thread::Builder::new().name(name).spawn(move || {
        while let Ok(job) = inbox.recv() {
            if work(job).is_break() {
                break;
            }
        }
        // Jobs that wait may own files, too.
        drop((inbox, work));
        drop(ended);
    })?;
    let way = Way::Thread(jobs);
    Ok((Jobs { way }, gone))
}

/// Nobody receives any more: whoever makes items may stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody receives any more")]
pub struct NobodyReceives;

/// Gives an item to whoever receives; waits while the channel is full.
pub type Emit<'a, T> = dyn FnMut(T) -> Result<(), NobodyReceives> + 'a;

/// Starts a thread that makes items for `out`. It ends when `make` does.
pub fn producer<T: Send + 'static>(
    name: &'static str,
    out: mpsc::Sender<T>,
    make: impl FnOnce(&mut Emit<'_, T>) + Send + 'static,
) -> io::Result<()> {
    let Some(turn) = turn_of(name) else {
        let body =
            move || make(&mut |item| out.blocking_send(item).map_err(|_gone| NobodyReceives));
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)?;
        return Ok(());
    };
    // A virtual thread cannot be stopped in the middle: it makes everything, then gives it piece by piece.
    tokio::spawn(async move {
        turn.await;
        let mut made = Vec::new();
        make(&mut |item| {
            made.push(item);
            Ok(())
        });
        for item in made {
            if out.send(item).await.is_err() {
                return;
            }
            if let Some(turn) = turn_of(name) {
                turn.await;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    struct SlowThreads;

    impl VirtualThreads for SlowThreads {
        fn turn(&self, _name: &str) -> BoxFuture<'static, ()> {
            Box::pin(tokio::time::sleep(Duration::from_secs(1)))
        }
    }

    /// What a worker and a producer did, by real or virtual threads.
    async fn done() -> (Vec<u32>, Vec<u32>, Result<(), NotTaken>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let (jobs, gone) = worker("worker".to_owned(), 4, move |job: u32| {
            log.lock().unwrap().push(job);
            match job {
                2 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        })
        .unwrap();
        for job in 1..=3 {
            jobs.give(job).unwrap();
        }
        assert!(gone.await.is_err(), "the end is told by dropping");
        let (out, mut items) = mpsc::channel(1);
        producer("producer", out, |emit| {
            (1..=4).for_each(|item| emit(item).unwrap())
        })
        .unwrap();
        let mut got = Vec::new();
        while let Some(item) = items.recv().await {
            got.push(item);
        }
        let seen = seen.lock().unwrap().clone();
        (seen, got, jobs.give(4))
    }

    #[tokio::test]
    async fn threads_do_jobs_in_order_until_one_ends_them() {
        let expected = (vec![1, 2], vec![1, 2, 3, 4], Err(NotTaken));
        assert_eq!(done().await, expected);
        assert_eq!(run("once", || 7).await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn virtual_threads_do_the_same_in_virtual_time() {
        let _simulated = simulate(Rc::new(SlowThreads));
        let start = tokio::time::Instant::now();
        let expected = (vec![1, 2], vec![1, 2, 3, 4], Err(NotTaken));
        assert_eq!(done().await, expected);
        assert_eq!(start.elapsed(), Duration::from_secs(2 + 5));
        let panics = run("once", || panic!("as asked"));
        assert!(panics.await.unwrap_err().is_panic());
    }
}
