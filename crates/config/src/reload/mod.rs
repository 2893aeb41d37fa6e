//! Follows a configuration file: reads it again when its content changes, and at SIGHUP.
//!
//! [`WatchedFile`] has the value in force; `content` reads and compares files; [`Hangup`] receives
//! SIGHUP.

mod content;
mod hangup;
mod watched_file;

pub use hangup::Hangup;
pub use watched_file::{LoadError, WatchedFile};
