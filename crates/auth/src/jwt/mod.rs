//! Signed tokens (JWT), and the `keys` that verify them.

pub(crate) mod keys;
