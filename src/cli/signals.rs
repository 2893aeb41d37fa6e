//! The signals that a program receives. Those that it listens to have no other effect on it.

use std::{fs, future::poll_fn, task::Poll};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CommandError;

/// The signals that ask a program to stop.
const STOP: [Number; 2] = [Number::TERM, Number::INT];

/// The other signals that a person or a supervisor sends on purpose. Left out are those that report
/// a fault or a limit of this process itself, those that the terminal sends to its readers and
/// writers, and real-time signals, which there is no way to send without unsafe code.
const FORWARDED: &[Number] = &[
    Number::HUP,
    Number::QUIT,
    Number::USR1,
    Number::USR2,
    Number::ALARM,
    Number::VTALARM,
    Number::PROF,
    Number::WINCH,
    Number::URG,
    Number::IO,
    Number::ABORT,
    Number::TSTP,
    Number::CONT,
    #[cfg(target_os = "linux")]
    Number::POWER,
];

/// The signals that are listened to.
#[derive(Debug)]
pub(crate) struct SignalListener {
    streams: Vec<(Number, Signal)>,
}

impl SignalListener {
    /// SIGTERM, SIGINT, and SIGHUP unless the program was started so that it survives its terminal.
    pub(crate) fn listen() -> Result<Self, CommandError> {
        Self::listen_to(&[Number::HUP])
    }

    /// All that are meant for a command that runs in the place of this program. What was ignored when
    /// this program started stays so, for the command as well.
    pub(crate) fn listen_for_command() -> Result<Self, CommandError> {
        Self::listen_to(FORWARDED)
    }

    fn listen_to(unless_ignored: &[Number]) -> Result<Self, CommandError> {
        // Read before anything is caught: a handler replaces the ignoring that nohup has set up.
        let ignored = ignored();
        let is_ignored = |number: Number| ignored & (1 << (number.as_raw() - 1)) != 0;
        let numbers = unless_ignored.iter().copied().filter(|number| !is_ignored(*number));
        let listen = |number: Number| {
            let stream =
                signal(SignalKind::from_raw(number.as_raw())).map_err(CommandError::Signals)?;
            Ok((number, stream))
        };
        let streams = STOP.into_iter().chain(numbers).map(listen);
        Ok(Self { streams: streams.collect::<Result<_, CommandError>>()? })
    }

    /// The next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Number {
        poll_fn(|context| {
            let mut streams = self.streams.iter_mut();
            let received = streams.find_map(|(number, stream)| {
                stream.poll_recv(context).is_ready().then_some(*number)
            });
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Returns whether a signal asks a program to stop.
pub(crate) fn is_stop(number: Number) -> bool {
    STOP.contains(&number)
}

/// A bit for each signal that the process was started to ignore; the lowest is signal 1. Known on
/// Linux alone.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
