//! Reads TOML configuration and reports all errors at once, each with its line.
//!
//! [`parse`] gives a file to a function as a [`Section`], which reads the file key by key with the
//! functions of [`value`]. Keys that nothing read are errors. With the feature `reload`,
//! `reload` follows a file. Pure, but for that and for files that a value names.

mod error;
#[cfg(feature = "reload")]
pub mod reload;
mod section;
pub mod value;

pub use error::{ConfigError, ConfigErrors, Invalid};
pub use section::{Read, Section, decode, parse};
