//! Exit codes of `register -- COMMAND`, as shells have them: the command's own, 126, 127 or 128 +
//! n. All others are in `waypost_serving`.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

/// The exit codes for a command that does not exist, and for one that can't be executed.
pub(crate) const NOT_FOUND: u8 = 127;
pub(crate) const NOT_RUNNABLE: u8 = 126;

/// The exit code of a program that signal `n` terminated is this plus `n`.
pub(crate) const SIGNALLED: i32 = 128;

/// Returns the exit code of a command: its own, or 128 + n if signal n terminated it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|number| SIGNALLED + number));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn the_exit_code_is_the_commands_own() {
        for code in [0, 1, 3, 64, 255] {
            assert_eq!(i32::from(exit_code(exited(code))), code);
        }
        let dumped_core = 0x80;
        for (status, code) in [(9, 137), (15, 143), (11 | dumped_core, 139), (64, 192)] {
            assert_eq!(exit_code(ExitStatus::from_raw(status)), code);
        }
    }
}
