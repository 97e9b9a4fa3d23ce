//! Serving connections: bounded in number, with a deadline for whoever does not go on, closed gracefully.

use super::activity::{ActiveStream, Activity};
use super::gate_service::GateService;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Bounds of the listener.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Most connections at once; more are answered 503 and closed.
    pub connections_max: usize,
    /// Longest time a client may take to send a request head, or to take anything of an answer.
    pub header_timeout: Duration,
    /// Longest time open connections get to finish when the server stops.
    pub drain_deadline: Duration,
}

/// Connections that are turned away and not closed yet, at most.
const FAREWELLS_MAX: usize = 256;

/// Longest time one of them is kept.
const FAREWELL: Duration = Duration::from_millis(500);

/// What a client gets that comes when every connection is taken.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 52\r\n\r\n{\"detail\":\"no free connection\",\"error\":\"GATE_BUSY\"}\n";

/// Serves until `stop` turns true, then lets open requests finish.
pub async fn serve(
    listener: TcpListener,
    service: GateService,
    limits: ServerLimits,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let farewells = Arc::new(Semaphore::new(FAREWELLS_MAX));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    // Out of descriptors or a client that left: others must still be served.
                    tracing::warn!(%error, "connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            () = stopped(&mut stop) => break,
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            turn_away(stream, &farewells);
            continue;
        };
        // Small answers must not wait for more.
        let _ = stream.set_nodelay(true);
        let activity = Activity::default();
        let service = service.on_connection(activity.clone());
        let stream = TokioIo::new(ActiveStream::new(stream, activity.clone()));
        let mut builder = http1::Builder::new();
        builder
            .max_buf_size(16 * 1024)
            // A client that has said all it wants still gets its answer. And the connection is not read while a
            // request is handled, which would take new memory for every one of them.
            .half_close(true)
            // Head and body of an answer are small: one copy costs less than a write of two parts.
            .writev(false);
        let connection = graceful.watch(builder.serve_connection(stream, service));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                // A client that breaks its connection is its own problem.
                _ended = connection => {}
                () = activity.stalled(limits.header_timeout) => {}
            }
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(limits.drain_deadline, graceful.shutdown()).await;
}

/// Resolves when the flag turns true or nobody can turn it any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Answers when a request arrives: what comes unasked breaks a connection that a client keeps for later.
/// Afterwards the connection is kept a moment longer, because closing it on a request that is still arriving
/// would reset it and the client might never read its answer. Only so many are kept at once; others are closed.
fn turn_away(mut stream: TcpStream, farewells: &Arc<Semaphore>) {
    let Ok(farewell) = farewells.clone().try_acquire_owned() else {
        return;
    };
    tokio::spawn(async move {
        let asked = tokio::time::timeout(FAREWELL, stream.peek(&mut [0])).await;
        if matches!(asked, Ok(Ok(1..))) {
            let _ = stream.try_write(FULL);
            let _ = stream.shutdown().await;
            let mut unread = [0; 4096];
            let until_closed = async { while matches!(stream.read(&mut unread).await, Ok(1..)) {} };
            let _ = tokio::time::timeout(FAREWELL, until_closed).await;
        }
        drop(farewell);
    });
}
