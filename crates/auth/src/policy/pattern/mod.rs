//! Patterns of the policy: of principals, and of namespaces and services.
//!
//! `principal` matches a caller and captures names from it; `target` fills them into the namespace
//! and service of `on`; `name` is one part of the outcome.
//! Pure. Invariant: a pattern matches a text in one way at most, in linear time.

mod name;
mod principal;
mod target;

pub(super) use name::NamePart;
pub(super) use principal::{Captures, PrincipalPattern};
pub(super) use target::{TargetPattern, name_part};

/// Returns whether a character can be in a name, so that a placeholder takes it.
pub(super) fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}
