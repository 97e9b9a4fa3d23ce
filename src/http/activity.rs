//! Whether a connection gets anywhere: its client must send every request head, and take every answer, in time.
//!
//! Steps are counted and looked at twice in the time they may take. A timer and a look at the clock for every
//! request would tell the same at a price that single pushes feel. A byte of a head is no step, so a head that
//! trickles in is late, too.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What happens on one connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// Steps so far; odd while a request is handled.
    steps: Arc<AtomicU64>,
}

/// A request that is being handled, until this is dropped.
#[derive(Debug)]
pub struct Handling(Activity);

impl Activity {
    /// A request head has arrived. How long its handling may take is not ours to say.
    pub fn handle(&self) -> Handling {
        self.steps.fetch_add(1, Ordering::Relaxed);
        Handling(self.clone())
    }

    /// Some bytes of an answer were taken.
    fn wrote(&self) {
        self.steps.fetch_add(2, Ordering::Relaxed);
    }

    /// Resolves when the client has done nothing for `patience`, or for up to half as long again.
    pub async fn stalled(&self, patience: Duration) {
        let (mut seen, mut quiet) = (self.steps.load(Ordering::Relaxed), 0);
        while quiet < 2 {
            tokio::time::sleep(patience / 2).await;
            let steps = self.steps.load(Ordering::Relaxed);
            let is_idle = steps == seen && steps.is_multiple_of(2);
            quiet = if is_idle { quiet + 1 } else { 0 };
            seen = steps;
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client's stream that counts what its client takes.
pub struct ActiveStream {
    stream: TcpStream,
    activity: Activity,
}

impl ActiveStream {
    /// Counts into `activity`.
    pub fn new(stream: TcpStream, activity: Activity) -> ActiveStream {
        ActiveStream { stream, activity }
    }

    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.activity.wrote();
        }
        written
    }
}

impl AsyncRead for ActiveStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ActiveStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep, timeout};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// How long it takes from now until the client is late.
    async fn late_after(activity: &Activity) -> Duration {
        let began = Instant::now();
        activity.stalled(PATIENCE).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_sends_a_head_is_late_when_patience_ends() {
        assert!(
            late_after(&Activity::default()).await.abs_diff(PATIENCE) < Duration::from_millis(9)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_as_long_as_it_takes_and_the_next_head_may_not() {
        let activity = Activity::default();
        let handling = activity.handle();
        assert!(
            timeout(10 * PATIENCE, activity.stalled(PATIENCE))
                .await
                .is_err()
        );
        let watched = activity.clone();
        let watch = tokio::spawn(async move { late_after(&watched).await });
        sleep(PATIENCE / 4).await;
        drop(handling);
        let late = watch.await.unwrap() - PATIENCE / 4;
        assert!((PATIENCE..=PATIENCE * 3 / 2).contains(&late), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_on_taking_an_answer_is_not_late() {
        let activity = Activity::default();
        let writer = activity.clone();
        let writing = async {
            for _ in 0..20 {
                sleep(PATIENCE / 2).await;
                writer.wrote();
            }
        };
        let late = late_after(&activity);
        let (late, ()) = tokio::join!(late, writing);
        assert!(late >= 11 * PATIENCE, "{late:?}");
    }
}
