//! The right to an open stream, which is checked at each epoch and when the credential ends.

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
    /// The right of a caller that has it at the present epoch.
    pub(in crate::api::grpc) fn new(caller: Caller, need: Need) -> Self {
        let epoch = caller.epoch();
        Self { caller, need, epoch }
    }

    /// Checks that the caller still has the right.
    pub(super) fn check(&mut self) -> Result<(), AccessError> {
        let epoch = self.caller.epoch();
        if epoch == self.epoch {
            return self.caller.check();
        }
        self.need.check(&self.caller)?;
        self.epoch = epoch;
        Ok(())
    }
}
