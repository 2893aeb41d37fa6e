//! Reads `[limits]`: the bounds of each request.

use std::time::Duration;

use waypost_config::{
    Invalid, Section,
    value::{byte_size, positive_duration},
};

/// The bounds of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestLimits {
    /// The greatest size of a request's body, in bytes; `None`: unbounded. Default: 16 MiB.
    pub(crate) body: Option<u64>,
    /// The time from the end of the upload to the response's head, for routes without a timeout.
    /// Never 0. Default: 30 s.
    pub(crate) timeout: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { body: Some(16 << 20), timeout: Duration::from_secs(30) }
    }
}

impl RequestLimits {
    /// Reads `[limits]`.
    pub(super) fn read(section: &mut Section<'_>) -> Result<Self, Invalid> {
        let default = Self::default();
        let body = section.read("body", byte_size);
        let timeout = section.read("timeout", positive_duration);
        Ok(Self {
            body: body?.map_or(default.body, |bytes| (bytes > 0).then_some(bytes)),
            timeout: timeout?.unwrap_or(default.timeout),
        })
    }
}
