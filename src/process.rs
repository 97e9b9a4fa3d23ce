//! The process around the daemon: runtime, memory pages, signals, file descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A runtime with as many threads as cores, and never one only: a batch being judged must not hold up an accept. More
/// take turns without getting anything done sooner. What waits hands its thread over
/// ([`wait_here`](crate::blocking_runtime::wait_here)).
pub fn runtime() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    Builder::new_multi_thread()
        .worker_threads(cores.max(2))
        .thread_name("wellspring")
        .enable_all()
        .build()
}

/// Keeps the kernel from backing this process with huge pages. The allocator asks for them, and then each first
/// touch of fresh memory clears 2 MiB where 4 KiB are needed: an answer waits milliseconds for it, and memory
/// that bounded buffers never fill is resident all the same.
pub fn without_huge_pages() {
    // A kernel without huge pages has nothing to be kept from.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay as the system has them");
    }
}

/// Raises the number of open files as far as it goes and returns it: every connection needs one.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Turns true at SIGTERM or SIGINT. A second signal ends the process at once.
pub fn stop_signal() -> io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        for count in 1.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if count > 1 {
                std::process::exit(130);
            }
            sender.send_replace(true);
        }
    });
    Ok(receiver)
}
