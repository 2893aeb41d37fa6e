//! The right to an open stream, which is checked at each epoch and when the credential ends.

use waypost_core::failpoint::planted;

use crate::{
    api::grpc::methods::Need,
    auth::{AccessError, Caller},
};

/// The right of a caller to a stream.
#[derive(Debug)]
pub(in crate::api::grpc) struct StreamAccess {
    caller: Caller,
    need: Need,
    /// The epoch at which the right was checked.
    epoch: u64,
}

impl StreamAccess {
    /// The right of a caller that had it at `epoch` or later.
    pub(in crate::api::grpc) fn new(caller: Caller, need: Need, epoch: u64) -> Self {
        Self { caller, need, epoch }
    }

    /// Checks that the caller still has the right.
    pub(super) fn check(&mut self) -> Result<(), AccessError> {
        if planted("stream-outlives-right") {
            return Ok(());
        }
        let epoch = self.caller.epoch();
        if epoch == self.epoch {
            return self.caller.check();
        }
        self.need.check(&self.caller)?;
        self.epoch = epoch;
        Ok(())
    }
}
