//! The exit codes of all programs; 0 is success.

/// The program failed.
pub const FAILED: u8 = 1;
/// The arguments are invalid.
pub const USAGE: u8 = 2;
/// The configuration is invalid.
pub const CONFIGURATION: u8 = 64;
