//! The runtime S3 requests run on, and how a blocking port waits for it.
//!
//! Ports block. Requests run on threads of their own, so a caller may be a plain thread, a blocking task
//! or, by mistake, an async worker: it waits for a channel and never holds up the thread that answers it.

use std::future::Future;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, sync_channel};

use tokio::runtime::{Builder, Runtime};

/// Requests are input and output, not computing: few threads serve many.
const THREADS: usize = 2;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Makes the runtime, once per process.
pub(super) fn start() -> io::Result<()> {
    if RUNTIME.get().is_none() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("wellspring-s3")
            .enable_all()
            .build()?;
        // Two first openers: the runtime of the second is dropped unused, outside of any other runtime.
        if let Err(unused) = RUNTIME.set(runtime) {
            unused.shutdown_background();
        }
    }
    Ok(())
}

/// Work that is under way; its answer is waited for later.
pub(super) struct Pending<T>(Receiver<T>);

/// Starts work; [`start`] has been called by whoever made the client.
pub(super) fn begin<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Pending<T> {
    let (answer, answered) = sync_channel(1);
    let runtime = RUNTIME.get().expect("a client starts the runtime first");
    runtime.spawn(async move {
        // Nobody waits any more: the work was for nothing.
        let _ = answer.send(work.await);
    });
    Pending(answered)
}

impl<T> Pending<T> {
    /// Waits; `None` when the work panicked.
    pub(super) fn wait(self) -> Option<T> {
        self.0.recv().ok()
    }
}
