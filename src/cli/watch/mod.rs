//! `waypost watch`: prints changes of services until a signal stops it, across outages of the
//! registry.

mod fold;

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use anstyle::{AnsiColor, Style};
use clap::Args;
use serde::Serialize;
use tokio::time::{sleep, timeout};
use waypost_client::proto::{Filter, WatchRequest};
use waypost_serving::signals;

use self::fold::{FoldedWatch, InstanceEvent};
use crate::{
    cli::{
        arguments::{FilterArguments, NamespaceArgument, RegistryArguments},
        error::CommandError,
        output::{
            InstanceJson, OutputFormat, TableCell, address, format_row, json_line, print_notice,
            status_name, status_style, write,
        },
        remote::{RemoteRegistry, discovery},
    },
    clock::Clock,
};

/// A registry sends a message at least every 10 s: after this long without one it is unreachable,
/// whatever the state of the connection.
const SILENCE_MAX: Duration = Duration::from_secs(25);

/// The upper bound of the first backoff, and of every later one.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(5);

/// Fixed column widths: rows are printed one by one, before later ones are known.
const WIDTHS: [usize; 8] = [24, 7, 16, 36, 21, 8, 12, 8];

/// Watch services: print the instances, then every change, until SIGINT or SIGTERM.
///
/// Prints a line with PRESENT for each instance, then one with ADDED, UPDATED or REMOVED for each
/// change. After an outage of the registry the watch resumes where it stopped.
#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// Services, which need not exist yet [default: all of the namespace].
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    registry: RegistryArguments,
    #[command(flatten)]
    namespace: NamespaceArgument,
    #[command(flatten)]
    filter: FilterArguments,
}

#[derive(Debug, Serialize)]
struct EventJson<'a> {
    time: &'a str,
    kind: &'a str,
    reason: Option<&'a str>,
    revision: u64,
    instance: InstanceJson<'a>,
}

pub(crate) async fn run(arguments: WatchArguments) -> Result<(), CommandError> {
    let stop = signals::stop().map_err(CommandError::Signals)?;
    let output = arguments.registry.output;
    let mut watch = WatchSession {
        remote: RemoteRegistry::new(arguments.registry.access()?),
        namespace: arguments.namespace.namespace,
        services: arguments.services,
        filter: arguments.filter.into(),
        state: FoldedWatch::default(),
        output,
        failures: 0,
    };
    if output == OutputFormat::Table {
        write(&(header() + "\n")).await?;
    }
    tokio::select! {
        () = stop => Ok(()),
        Err(error) = watch.run() => Err(error),
    }
}

/// A watch that reconnects.
struct WatchSession {
    remote: RemoteRegistry,
    namespace: String,
    services: Vec<String>,
    filter: Filter,
    state: FoldedWatch,
    output: OutputFormat,
    /// Failed attempts since the last message.
    failures: u32,
}

impl WatchSession {
    /// Prints changes until a permanent error.
    async fn run(&mut self) -> Result<Infallible, CommandError> {
        loop {
            let Err(error) = self.run_stream().await;
            // Before the first snapshot, a wrong URL is more likely than an outage.
            if self.state.cursor().is_none() || !error.is_transient() {
                return Err(error);
            }
            if self.failures == 0 {
                print_notice(&format_args!("{error}; retrying"));
            }
            self.state.disconnected();
            self.remote.use_next_address();
            sleep(backoff(self.failures, fastrand::f64())).await;
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Prints the changes of one stream until it ends.
    async fn run_stream(&mut self) -> Result<Infallible, CommandError> {
        let request = WatchRequest {
            namespace: self.namespace.clone(),
            services: self.services.clone(),
            filter: Some(self.filter.clone()),
            resume: self.state.cursor(),
        };
        let mut stream = self
            .remote
            .call(async |channel| discovery(channel).watch(request.clone()).await)
            .await?;
        loop {
            let message = timeout(SILENCE_MAX, stream.message()).await;
            let message = message.map_err(|_| {
                let limit = SILENCE_MAX.as_secs();
                self.remote.unreachable(format!("no message within {limit} s"))
            })?;
            let message = message.map_err(|status| self.remote.error(&status))?;
            let message =
                message.ok_or_else(|| self.remote.unreachable("the registry closed the stream"))?;
            if self.failures > 0 {
                print_notice(&"reconnected to the registry");
                self.failures = 0;
            }
            let events = self.state.fold(message);
            if !events.is_empty() {
                write(&self.lines(&events)?).await?;
            }
        }
    }

    fn lines(&self, events: &[InstanceEvent]) -> Result<String, CommandError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(Clock::start().wall().0);
        let time = humantime::format_rfc3339_millis(now).to_string();
        let line = |event: &InstanceEvent| match self.output {
            OutputFormat::Json => json_line(&EventJson {
                time: &time,
                kind: event.kind,
                reason: event.reason.as_deref(),
                revision: event.revision,
                instance: (&event.instance).into(),
            }),
            OutputFormat::Table => Ok(row(event, &time) + "\n"),
        };
        events.iter().map(line).collect()
    }
}

/// Returns a random part of a span that doubles with every failure (full jitter: M. Brooker,
/// "Exponential Backoff And Jitter", 2015).
fn backoff(failures: u32, random: f64) -> Duration {
    let span = BACKOFF_BASE.saturating_mul(2_u32.saturating_pow(failures.min(31)));
    span.min(BACKOFF_CAP).mul_f64(random.clamp(0.0, 1.0))
}

fn header() -> String {
    let names = ["TIME", "KIND", "SERVICE", "ID", "ADDRESS", "STATUS", "REASON", "REVISION"];
    format_row(&names.map(TableCell::from), &WIDTHS)
}

fn row(event: &InstanceEvent, time: &str) -> String {
    let InstanceEvent { kind, instance, reason, revision } = event;
    let cells = [
        time.into(),
        TableCell::styled(kind, kind_style(kind)),
        (&instance.service).into(),
        (&instance.id).into(),
        address(instance).into(),
        TableCell::styled(status_name(instance.status), status_style(instance.status)),
        reason.as_deref().unwrap_or_default().into(),
        revision.to_string().into(),
    ];
    format_row(&cells, &WIDTHS)
}

fn kind_style(kind: &str) -> Style {
    match kind {
        "ADDED" => AnsiColor::Green.on_default(),
        "UPDATED" => AnsiColor::Yellow.on_default(),
        "REMOVED" => AnsiColor::Red.on_default(),
        _ => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_cap() {
        let waits: Vec<u128> = (0..8).map(|n| backoff(n, 1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(u32::MAX, 0.5), BACKOFF_CAP / 2);
    }
}
