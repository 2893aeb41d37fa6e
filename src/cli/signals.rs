//! Signals that the program receives. Listening to a signal replaces its default action.

use std::{fs, future::poll_fn, task::Poll};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CommandError;

/// The signals that request a program to stop.
const STOP: [Number; 2] = [Number::TERM, Number::INT];

/// The other signals that a person or a supervisor sends on purpose; they are forwarded to the
/// command. Excluded: signals about a fault or limit of this process, those that the terminal sends
/// to its readers and writers, and real-time signals, which safe code can't send.
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

/// Receives a set of signals.
#[derive(Debug)]
pub(crate) struct SignalListener {
    streams: Vec<(Number, Signal)>,
}

impl SignalListener {
    /// Listens to SIGTERM, SIGINT, and to SIGHUP unless it was ignored at the start (nohup).
    pub(crate) fn listen() -> Result<Self, CommandError> {
        Self::listen_to(&[Number::HUP])
    }

    /// Listens to the stop signals and to those that are forwarded to a command. Signals that were
    /// ignored at the start stay ignored, for the command as well.
    pub(crate) fn listen_for_command() -> Result<Self, CommandError> {
        Self::listen_to(FORWARDED)
    }

    fn listen_to(unless_ignored: &[Number]) -> Result<Self, CommandError> {
        // Read before a handler is installed, which would replace what nohup has set.
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

    /// Receives the next signal. Cancel safe.
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

/// Returns whether a signal requests a stop.
pub(crate) fn is_stop(number: Number) -> bool {
    STOP.contains(&number)
}

/// Returns a bit mask of the signals that the process ignored when it started; the lowest bit is
/// signal 1. Zero except on Linux.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
