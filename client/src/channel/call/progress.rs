//! The progress of a request's upload, and the side that it waits for. Pure: takes the time as an
//! argument. Never counts the caller's own pauses as time of the instance.

use crate::runtime::clock::Instant;

/// The progress of an upload. The default is that of a request without a body.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UploadProgress {
    /// The time of the caller's last piece, or of the end; none before the first one.
    latest: Option<Instant>,
    /// Set once the instance has read all that the caller sent.
    awaits_caller: bool,
}

impl UploadProgress {
    /// Records a piece from the caller, or the end.
    pub(crate) fn advance(&mut self, now: Instant) {
        *self = Self { latest: Some(now), awaits_caller: false };
    }

    /// Records that the instance has read all that is available.
    pub(crate) fn pause(&mut self) {
        self.awaits_caller = true;
    }

    /// Ends the wait for the caller: the attempt that waited is over, or another one starts.
    pub(crate) fn resume(&mut self, now: Instant) {
        if self.awaits_caller {
            self.advance(now);
        }
    }

    /// Returns whether the upload waits for the caller.
    pub(crate) fn awaits_caller(self) -> bool {
        self.awaits_caller
    }

    /// Returns the start of the instance's time, for an attempt or a call that `began` then; `now`
    /// while the upload waits for the caller.
    pub(crate) fn timeout_start(self, began: Instant, now: Instant) -> Instant {
        if self.awaits_caller { now } else { self.latest_or(began) }
    }

    /// Returns the time of the caller's last piece, or the beginning if that was later.
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
    fn time_counts_from_the_last_piece_and_not_while_the_caller_pauses() {
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
