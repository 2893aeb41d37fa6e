//! What wraps a response on its way to the caller.

pub(crate) mod compression;
