//! Numbers from the environment: seeds to replay, lengths of longer runs.

use std::env;

/// Reads a number from an environment variable.
///
/// # Panics
/// If the variable is not a number.
pub fn from_environment(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Returns the seed of a test's randomness, and prints it.
///
/// `WAYPOST_SEED` replays the seed of an earlier run.
pub fn seed() -> u64 {
    let seed = from_environment("WAYPOST_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("WAYPOST_SEED={seed}");
    seed
}
