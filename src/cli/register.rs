//! `waypost register`: keeps an instance registered for as long as it runs, or as a command runs.
//! What the registry does must never hold the command up.

use std::{ffi::OsString, pin::pin, process::ExitStatus, time::Duration};

use clap::{Args, ValueEnum};
use rustix::process::Signal;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use waypost_client::{Registration, proto};

use super::{
    arguments::{Entry, HostPort, NamedPort, NamespaceArgument, RegistryArguments},
    child::{Child, ended_well},
    failure::Failure,
    presence::Presence,
    say,
    signals::Signals,
};

/// How long a signal is kept from the command, for the instance to leave first.
const LEAVE_FIRST_MAX: Duration = Duration::from_secs(2);

/// How long the instance may take to leave in all.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// Register an instance and keep it registered, for as long as this or a command runs.
///
/// With a command, runs it at once, registers while it lives and deregisters when it ends. At
/// SIGTERM, SIGINT or SIGHUP deregisters first, then passes the signal on to the command (and all
/// that it has started) and waits for it; a second signal kills it. Ends with 0 where the command
/// ended well.
#[derive(Debug, Args)]
pub(super) struct RegisterArguments {
    /// The service that the instance is a replica of.
    #[arg(long, value_name = "NAME")]
    service: String,
    /// Where the instance is reached; an IPv6 address is in brackets.
    #[arg(long, value_name = "HOST:PORT")]
    address: HostPort,
    /// Tells the instance from the others of its service [default: one that the registry makes].
    #[arg(long)]
    id: Option<String>,
    /// The failure domain that the instance runs in.
    #[arg(long)]
    zone: Option<String>,
    /// The version of the software.
    #[arg(long)]
    version: Option<String>,
    /// The share of traffic; 0 takes none [default: 100].
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// An entry that callers can read and filter by; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<Entry>,
    /// A further port; may be given several times.
    #[arg(long = "port", value_name = "NAME=PORT")]
    ports: Vec<NamedPort>,
    /// How long the instance stays registered without a heartbeat: 1s to 5min [default: 15s].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Whether the instance takes traffic [default: up].
    #[arg(long, value_enum, ignore_case = true)]
    status: Option<InitialStatus>,
    #[command(flatten)]
    registry: RegistryArguments,
    #[command(flatten)]
    namespace: NamespaceArgument,
    /// The command to run, and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum InitialStatus {
    /// It runs and is not ready yet.
    Starting,
    /// It takes traffic.
    Up,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It runs and can't serve.
    Down,
}

impl From<InitialStatus> for proto::Status {
    fn from(status: InitialStatus) -> Self {
        match status {
            InitialStatus::Starting => Self::Starting,
            InitialStatus::Up => Self::Up,
            InitialStatus::Draining => Self::Draining,
            InitialStatus::Down => Self::Down,
        }
    }
}

pub(super) async fn run(mut arguments: RegisterArguments) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let command = std::mem::take(&mut arguments.command);
    let presence = Presence {
        url: arguments.registry.url.clone(),
        output: arguments.registry.output,
        namespace: arguments.namespace.namespace.clone(),
        registration: registration(arguments),
    };
    match command.split_first() {
        None => stay(&presence, &mut signals).await,
        Some((program, rest)) => {
            let child = Child::spawn(program, rest)?;
            accompany(child, &presence, &mut signals).await
        }
    }
}

fn registration(arguments: RegisterArguments) -> Registration {
    let HostPort { host, port } = arguments.address;
    let mut registration = Registration::new(arguments.service, host, port);
    if let Some(id) = arguments.id {
        registration = registration.id(id);
    }
    if let Some(zone) = arguments.zone {
        registration = registration.zone(zone);
    }
    if let Some(version) = arguments.version {
        registration = registration.version(version);
    }
    if let Some(weight) = arguments.weight {
        registration = registration.weight(weight);
    }
    if let Some(ttl) = arguments.ttl {
        registration = registration.ttl(ttl);
    }
    if let Some(status) = arguments.status {
        registration = registration.status(status.into());
    }
    for Entry { key, value } in arguments.metadata {
        registration = registration.metadata(key, value);
    }
    for NamedPort { name, port } in arguments.ports {
        registration = registration.port(name, port);
    }
    registration
}

/// Keeps the instance registered until a signal comes; a second one ends everything at once.
async fn stay(presence: &Presence, signals: &mut Signals) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let mut present = pin!(presence.keep(&stop));
    tokio::select! {
        ended = &mut present => return ended,
        _ = signals.next() => stop.cancel(),
    }
    tokio::select! {
        left = present => left,
        _ = signals.next() => Err(Failure::Leave("a second signal came".to_owned())),
    }
}

/// What comes first of all that can happen to a command.
enum First {
    Ended(Result<ExitStatus, Failure>),
    Unregistered(Result<(), Failure>),
    Asked(Signal),
}

/// Keeps the instance registered until the command ends or is to end.
async fn accompany(
    mut child: Child,
    presence: &Presence,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let mut present = pin!(presence.keep(&stop));
    let first = tokio::select! {
        ended = child.wait() => First::Ended(ended),
        left = &mut present => First::Unregistered(left),
        signal = signals.next() => First::Asked(signal),
    };
    stop.cancel();
    match first {
        First::Ended(status) => {
            tokio::select! {
                () = leave(present) => {}
                _ = signals.next() => {}
            }
            judge(status?, None)
        }
        First::Unregistered(refused) => {
            child.end(Signal::TERM, signals).await?;
            refused
        }
        First::Asked(signal) => {
            let status = match timeout(LEAVE_FIRST_MAX, &mut present).await {
                Ok(left) => {
                    complain(left);
                    child.end(signal, signals).await
                }
                Err(_) => tokio::join!(child.end(signal, signals), leave(present)).0,
            };
            judge(status?, Some(signal))
        }
    }
}

/// Waits for the instance to leave, but not for ever.
async fn leave(present: impl Future<Output = Result<(), Failure>>) {
    let left = timeout(LEAVE_MAX, present).await;
    let silent = || Err(Failure::Leave("the registry does not answer".to_owned()));
    complain(left.unwrap_or_else(|_| silent()));
}

/// The command's end counts, not the registry's part in it.
fn complain(left: Result<(), Failure>) {
    if let Err(failure) = left {
        say(&failure);
    }
}

fn judge(status: ExitStatus, signal: Option<Signal>) -> Result<(), Failure> {
    if ended_well(status, signal) { Ok(()) } else { Err(Failure::Command(status)) }
}
