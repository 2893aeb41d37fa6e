//! The end of a connection that stays strange for too long, makes room, or is refused too often.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use super::acquaintance::{Acquaintance, EVICTED, GUEST, KNOWN, REFUSED};

/// The time from its arrival in which a caller must become known, and in which a caller without a
/// name must begin its next call.
const STRANGE_MAX: Duration = Duration::from_secs(10);

/// The reason to close a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing was allowed in time.
    Overdue,
    /// It was the oldest stranger at the limit.
    Evicted,
    /// Too many credentials were refused. Responses under way may still be sent.
    Refused,
}

/// Ready once a connection must end. Made at the connection's arrival, and polled whenever the
/// connection is. Cancel safe.
#[derive(Debug)]
pub(crate) struct Closing {
    acquaintance: Arc<Acquaintance>,
    /// A known caller has none.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Closing {
    pub(super) fn new(acquaintance: Arc<Acquaintance>) -> Self {
        Self { acquaintance, timer: None }
    }
}

impl Future for Closing {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        if self.acquaintance.state() == KNOWN {
            self.timer = None;
            return Poll::Pending;
        }
        // Before the state is read again: a change after that wakes.
        self.acquaintance.waker.register(context.waker());
        match self.acquaintance.state() {
            KNOWN => {
                self.timer = None;
                return Poll::Pending;
            }
            EVICTED => return Poll::Ready(End::Evicted),
            REFUSED => return Poll::Ready(End::Refused),
            GUEST if self.acquaintance.take_visited() || self.acquaintance.has_visits() => {
                self.timer = None;
                if self.acquaintance.has_visits() {
                    return Poll::Pending;
                }
            }
            _ => {}
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(STRANGE_MAX)));
        timer.as_mut().poll(context).map(|()| End::Overdue)
    }
}
