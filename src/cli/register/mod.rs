//! `waypost register`: keeps an instance registered for as long as it runs, or as a command runs.
//! What the registry does must never hold the command up.

mod child;
pub(crate) mod launch;
mod lifecycle;
mod readiness;

use std::{
    ffi::OsString,
    pin::pin,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use clap::{Args, ValueEnum};
use rustix::process::Signal;
use tokio::time::timeout;
use waypost_client::{Registration, proto};

use self::{
    child::{Child, ChildEvent, exited_as_requested},
    lifecycle::{InstanceLifecycle, StopRequest},
    readiness::ReadinessCheck,
};
use crate::cli::{
    arguments::{HostPort, KeyValue, NamedPort, NamespaceArgument, RegistryArguments},
    error::CommandError,
    exit::exit_code,
    output::print_notice,
    signals::{SignalListener, is_stop},
};

/// How long the registry may take, besides the drain time, before the command gets the signal.
const DEREGISTER_GRACE: Duration = Duration::from_secs(2);

/// How long the instance may take to leave in all.
const DEREGISTER_MAX: Duration = Duration::from_secs(5);

/// Register an instance and keep it registered, for as long as this or a command runs.
///
/// With a command, runs it, registers the instance while it runs, and ends with its exit code: 128 + n
/// where signal n ended it, 127 where there is no such program, 126 where it can't be run.
///
/// At SIGTERM or SIGINT, the instance drains: its status becomes DRAINING, callers choose others and
/// finish their calls, and after --drain-time it is deregistered. Only then the command gets the
/// signal, and is waited for; a second signal kills it. So what stops this program must signal it
/// alone (systemd: KillMode=mixed). All other signals are passed on to the command, which stays
/// registered.
///
/// The command runs in a process group of its own, which gets all signals: keys typed in the terminal
/// (Ctrl-C, Ctrl-Z) go to this program first, and the command can't read from the terminal. It is
/// killed where this program is (on Linux), but not what it has started.
#[derive(Debug, Args)]
pub(crate) struct RegisterArguments {
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
    metadata: Vec<KeyValue>,
    /// A further port; may be given several times.
    #[arg(long = "port", value_name = "NAME=PORT")]
    ports: Vec<NamedPort>,
    /// How long the instance stays registered without a heartbeat: 1s to 5min [default: 15s].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Whether the instance takes traffic [default: up].
    #[arg(long, value_enum, ignore_case = true)]
    status: Option<InitialStatus>,
    /// Registers the instance as STARTING, and as UP once this check succeeds: a GET that is answered
    /// with 2xx (http://HOST:PORT/PATH), a connection (tcp://HOST:PORT), or a file that is there
    /// (file:PATH). The check is repeated until then, and not after that.
    #[arg(long, value_name = "CHECK", conflicts_with = "status")]
    ready: Option<ReadinessCheck>,
    /// How long the instance is DRAINING before it is deregistered and the command gets the signal to
    /// stop. Long enough for callers to see it (below 1 s) and to finish their calls.
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = humantime::parse_duration,
        default_value = "2s",
        requires = "command"
    )]
    drain_time: Duration,
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

pub(crate) async fn run(mut arguments: RegisterArguments) -> Result<ExitCode, CommandError> {
    let command = std::mem::take(&mut arguments.command);
    let lifecycle = InstanceLifecycle {
        url: arguments.registry.url.clone(),
        output: arguments.registry.output,
        namespace: arguments.namespace.namespace.clone(),
        ready: arguments.ready.take(),
        drain_time: arguments.drain_time,
        registration: registration(arguments),
    };
    match command.split_first() {
        None => {
            run_alone(&lifecycle, &mut SignalListener::listen()?).await?;
            Ok(ExitCode::SUCCESS)
        }
        Some((program, rest)) => {
            let mut signals = SignalListener::listen_for_command()?;
            let child = Child::spawn(program, rest).await?;
            run_with_command(child, &lifecycle, &mut signals).await
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
    for KeyValue { key, value } in arguments.metadata {
        registration = registration.metadata(key, value);
    }
    for NamedPort { name, port } in arguments.ports {
        registration = registration.port(name, port);
    }
    registration
}

/// Keeps the instance registered until a signal comes; a second one ends everything at once.
async fn run_alone(
    lifecycle: &InstanceLifecycle,
    signals: &mut SignalListener,
) -> Result<(), CommandError> {
    let stop = StopRequest::default();
    let mut running = pin!(lifecycle.run(&stop));
    tokio::select! {
        ended = &mut running => return ended,
        _ = signals.next() => stop.stop_now(),
    }
    tokio::select! {
        left = running => left,
        _ = signals.next() => Err(CommandError::Deregister("a second signal came".to_owned())),
    }
}

/// Keeps the instance registered until the command ends or is to end.
async fn run_with_command(
    mut child: Child,
    lifecycle: &InstanceLifecycle,
    signals: &mut SignalListener,
) -> Result<ExitCode, CommandError> {
    let stop = StopRequest::default();
    let mut running = pin!(lifecycle.run(&stop));
    let event = tokio::select! {
        event = child.next(signals) => event?,
        refused = &mut running => {
            child.stop(Signal::TERM, signals).await?;
            return refused.map(|()| ExitCode::SUCCESS);
        }
    };
    let signal = match event {
        ChildEvent::Exited(status) => {
            stop.stop_now();
            wait_deregistered(running, signals).await;
            return exit_result(status, None);
        }
        ChildEvent::StopRequested(signal) => signal,
    };
    stop.drain();
    let limit = lifecycle.drain_time.saturating_add(DEREGISTER_GRACE);
    // Callers leave first; the command goes on with their calls.
    let event = tokio::select! {
        event = child.next(signals) => Some(event?),
        left = timeout(limit, &mut running) => match left {
            Ok(left) => {
                print_failure(left);
                return exit_result(child.stop(signal, signals).await?, Some(signal));
            }
            Err(_) => None,
        },
    };
    stop.stop_now();
    let status = match event {
        Some(ChildEvent::Exited(status)) => status,
        Some(ChildEvent::StopRequested(_)) => child.stop(Signal::KILL, signals).await?,
        // The registry is slow: the command is not held up any longer.
        None => child.stop(signal, signals).await?,
    };
    wait_deregistered(running, signals).await;
    exit_result(status, Some(signal))
}

/// Waits for the instance to leave, but not for ever, nor once another signal comes.
async fn wait_deregistered(
    running: impl Future<Output = Result<(), CommandError>>,
    signals: &mut SignalListener,
) {
    let timed_out = || Err(CommandError::Deregister("the registry does not answer".to_owned()));
    tokio::select! {
        left = timeout(DEREGISTER_MAX, running) => print_failure(left.unwrap_or_else(|_| timed_out())),
        () = next_stop(signals) => {}
    }
}

/// Waits for a signal that asks to stop. The command has ended: there is nothing to pass others to.
async fn next_stop(signals: &mut SignalListener) {
    while !is_stop(signals.next().await) {}
}

/// Reports a failure that is not the command's: its end alone counts.
fn print_failure(left: Result<(), CommandError>) {
    if let Err(failure) = left {
        print_notice(&failure);
    }
}

fn exit_result(status: ExitStatus, signal: Option<Signal>) -> Result<ExitCode, CommandError> {
    if exited_as_requested(status, signal) {
        Ok(ExitCode::from(exit_code(status)))
    } else {
        Err(CommandError::Command(status))
    }
}
