//! Turns: work that is begun side by side and goes on in the order it was begun.

use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// Gives out turns, one after the other.
#[derive(Debug, Default)]
pub struct Turns {
    /// How the turn given out last ends. The lock is held to put another one in its place.
    last: Mutex<Option<oneshot::Receiver<Ended>>>,
}

/// A place in the order.
#[derive(Debug)]
pub struct Turn {
    before: Option<oneshot::Receiver<Ended>>,
    before_is_lost: bool,
    end: Option<oneshot::Sender<Ended>>,
}

/// How a turn ended.
#[derive(Debug)]
enum Ended {
    Done,
    /// It was dropped; the turn it was still waiting for, if any.
    Lost(Option<oneshot::Receiver<Ended>>),
}

/// What became of the turns before one that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// All are done.
    Done,
    /// The one before was dropped.
    Lost,
}

impl Turns {
    /// The turn behind all that were given out.
    pub fn next(&self) -> Turn {
        let (end, ended) = oneshot::channel();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Turn {
            before: last.replace(ended),
            before_is_lost: false,
            end: Some(end),
        }
    }
}

impl Turn {
    /// Waits until all turns before have ended.
    pub async fn comes(&mut self) -> Before {
        while let Some(before) = &mut self.before {
            let ended = before.await.unwrap_or(Ended::Lost(None));
            self.before_is_lost |= matches!(ended, Ended::Lost(_));
            self.before = match ended {
                Ended::Done => None,
                Ended::Lost(further) => further,
            };
        }
        match self.before_is_lost {
            true => Before::Lost,
            false => Before::Done,
        }
    }

    /// Ends a turn that has come: the next one comes. A turn that is dropped instead is lost.
    pub fn end(mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(Ended::Done);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            // Without a next turn nobody needs to know.
            let _ = end.send(Ended::Lost(self.before.take()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    /// What has become of the turns before, if they have ended.
    fn looked_at(turn: &mut Turn) -> Option<Before> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(turn.comes()).poll(&mut context) {
            Poll::Ready(before) => Some(before),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_turn_comes_when_all_before_it_have_ended() {
        let turns = Turns::default();
        let [mut first, mut second, mut third] = [turns.next(), turns.next(), turns.next()];
        assert_eq!(looked_at(&mut third), None);
        assert_eq!(looked_at(&mut second), None);
        assert_eq!(looked_at(&mut first), Some(Before::Done));
        assert_eq!(looked_at(&mut second), None, "the first is still on");
        first.end();
        assert_eq!(looked_at(&mut third), None);
        assert_eq!(looked_at(&mut second), Some(Before::Done));
        second.end();
        assert_eq!(looked_at(&mut third), Some(Before::Done));
        third.end();
        assert_eq!(looked_at(&mut turns.next()), Some(Before::Done));
    }

    #[test]
    fn a_lost_turn_is_told_of_and_what_it_waited_for_is_waited_for() {
        let turns = Turns::default();
        let [mut first, second, mut third] = [turns.next(), turns.next(), turns.next()];
        drop(second);
        assert_eq!(looked_at(&mut third), None, "the first has not come");
        assert_eq!(looked_at(&mut first), Some(Before::Done));
        first.end();
        assert_eq!(looked_at(&mut third), Some(Before::Lost));
        drop(third);
        let mut fourth = turns.next();
        assert_eq!(looked_at(&mut fourth), Some(Before::Lost));
        fourth.end();
        assert_eq!(looked_at(&mut turns.next()), Some(Before::Done));
    }
}
