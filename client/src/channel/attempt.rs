//! A call that was sent to an instance. However it ends, its instance is told once what it came to, or
//! that nobody waited for it any more.

use std::time::Duration;

use http::Response;
use tonic::body::Body;

use super::{
    answer::{Answered, Counted, is_failure},
    failure::is_unavailable,
    inflow::Inflow,
};
use crate::{
    balance::Pick,
    clock::{self, Instant},
    outlier::Sign,
};

/// A call that was sent, until it is answered or given up.
pub(super) struct Attempt {
    /// Gone once it was answered.
    pick: Option<Pick>,
    began: Instant,
    /// When the caller's patience ends, where that is known.
    deadline: Option<Instant>,
}

impl Attempt {
    pub(super) fn begin(pick: Pick, deadline: Option<Instant>) -> Self {
        Self { pick: Some(pick), began: clock::now(), deadline }
    }

    fn end(mut self) -> (Pick, Duration) {
        let pick = self.pick.take().expect("it is gone with the attempt alone");
        (pick, clock::now() - self.began)
    }

    pub(super) fn answered(self, response: Response<Inflow>) -> Response<Body> {
        let (pick, took) = self.end();
        // An answer without a body says in its head how the call went.
        let failed = response.status().is_server_error()
            || is_unavailable(&response)
            || is_failure(response.headers());
        if failed {
            pick.endpoint().note(Sign::Bad, took);
        }
        let call = Answered { pick, took: (!failed).then_some(took) };
        response.map(|body| Body::new(Counted { body, call: Some(call) }))
    }

    pub(super) fn unsent(self) -> Pick {
        self.end().0
    }

    pub(super) fn lost(self) -> Pick {
        let (pick, took) = self.end();
        pick.endpoint().note(Sign::Bad, took);
        pick
    }
}

impl Drop for Attempt {
    /// Nobody waits any more: because it took too long, or for the caller's own reasons.
    fn drop(&mut self) {
        let Some(pick) = &self.pick else { return };
        let now = clock::now();
        let took = now - self.began;
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            pick.endpoint().note(Sign::Bad, took);
        } else {
            pick.endpoint().note_given_up(took);
        }
    }
}
