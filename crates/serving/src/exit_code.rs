//! The exit codes of all programs. 0 is success; clap exits with 2 on invalid arguments.

/// The program failed.
pub const FAILED: u8 = 1;
/// The configuration is invalid.
pub const CONFIGURATION: u8 = 64;
