//! One small asynchronous runtime per process for clients behind blocking ports.
//!
//! Ports block (`src/domain/ports.rs`); the clients of the managed backends are asynchronous. A port's call
//! runs its future on the calling thread, while this runtime drives connections and timers, so that neither
//! the program's own runtime nor its blocking threads have to.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

/// Threads that drive connections; the work of a call is done on its caller's thread.
const DRIVER_THREADS: usize = 2;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

fn runtime() -> &'static Runtime {
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(DRIVER_THREADS)
            .thread_name("backend-client")
            .enable_all()
            .build()
            .expect("threads and a poller can be made at start-up")
    })
}

/// Waits for `future`. Right from plain threads and from `spawn_blocking`; called on a worker of a
/// multi-threaded runtime it first hands the worker's other tasks over, so that nothing waits for itself.
pub fn block_on<F: Future>(future: F) -> F::Output {
    wait_here(|| runtime().handle().block_on(future))
}

/// Runs something that waits, on this thread. On a worker of a multi-threaded runtime the worker's other tasks are
/// handed over first: there are no more workers than cores.
pub fn wait_here<T>(wait: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|current| current.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}

/// The runtime's handle, for background tasks of clients.
pub fn handle() -> &'static Handle {
    runtime().handle()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn short_wait() -> u8 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        7
    }

    #[test]
    fn a_plain_thread_waits_for_a_future() {
        assert_eq!(block_on(short_wait()), 7);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_only_worker_of_a_runtime_may_wait_for_another_task() {
        let (done, wait) = std::sync::mpsc::channel();
        let waiting = tokio::spawn(async move {
            tokio::spawn(async move { done.send(7).unwrap() });
            wait_here(|| wait.recv().unwrap())
        });
        assert_eq!(waiting.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_blocking_task_of_a_single_threaded_runtime_waits_too() {
        let waited = tokio::task::spawn_blocking(|| block_on(short_wait())).await;
        assert_eq!(waited.unwrap(), 7);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_worker_of_another_runtime_does_not_deadlock() {
        let waited = tokio::spawn(async { block_on(short_wait()) }).await;
        assert_eq!(waited.unwrap(), 7);
        let waited = tokio::task::spawn_blocking(|| block_on(short_wait())).await;
        assert_eq!(waited.unwrap(), 7);
    }
}
