//! The progress of a request's upload, and the side that it waits for. Pure: takes the time as an
//! argument. Must not count the caller's own pauses as time of the instance.

use crate::runtime::clock::Instant;

/// How far an upload has come. The default is that of a request without a body.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UploadProgress {
    /// When the caller's last piece came, or its end; none before the first one.
    latest: Option<Instant>,
    /// Whether the instance has taken all that the caller sent, and waits for more.
    awaits_caller: bool,
}

impl UploadProgress {
    /// A piece came from the caller, or the end.
    pub(crate) fn advance(&mut self, now: Instant) {
        *self = Self { latest: Some(now), awaits_caller: false };
    }

    /// The instance has taken all that there is.
    pub(crate) fn pause(&mut self) {
        self.awaits_caller = true;
    }

    /// The upload no longer waits for the caller: the attempt that did is over, or another one begins.
    pub(crate) fn resume(&mut self, now: Instant) {
        if self.awaits_caller {
            self.advance(now);
        }
    }

    /// Returns whether the caller is what is waited for.
    pub(crate) fn awaits_caller(self) -> bool {
        self.awaits_caller
    }

    /// Since when the instance is what is waited for, of an attempt or a call that `began` then; `now`
    /// while the caller is.
    pub(crate) fn timeout_start(self, began: Instant, now: Instant) -> Instant {
        if self.awaits_caller { now } else { self.latest_or(began) }
    }

    /// The caller's last piece, or the beginning, where that was later.
    pub(crate) fn latest_or(self, began: Instant) -> Instant {
        self.latest.map_or(began, |latest| latest.max(began))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::clock;

    #[test]
    fn time_counts_from_the_last_piece_and_not_while_the_caller_is_waited_for() {
        let began = clock::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut progress = UploadProgress::default();
        assert_eq!(progress.timeout_start(began, at(9)), began, "no body");
        progress.advance(at(1));
        assert_eq!(progress.timeout_start(began, at(9)), at(1));
        progress.pause();
        assert_eq!(progress.timeout_start(began, at(9)), at(9));
        assert_eq!(progress.latest_or(began), at(1));
        progress.advance(at(20));
        assert_eq!(progress.timeout_start(began, at(21)), at(20));
        progress.resume(at(22));
        assert_eq!(progress.timeout_start(began, at(23)), at(20), "it did not wait for the caller");
        progress.pause();
        progress.resume(at(25));
        assert_eq!(progress.timeout_start(began, at(26)), at(25));
        assert_eq!(progress.timeout_start(at(30), at(31)), at(30), "a later attempt");
    }
}
