//! `waypost bench`: measures a registry, or one that it starts, under load, beside the limit of the
//! machine.

use std::env;

use clap::Args;
use tokio::select;

use crate::cli::{
    arguments::RegistryArguments,
    error::CommandError,
    output::{OutputFormat, print, print_json},
    signals::SignalListener,
};

/// Measure a registry under load.
///
/// Prints throughput, latency and cost, beside the limit: the same load
/// against a bare gRPC server that only responds.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    bench: waypost_bench::LoadArguments,
    #[command(flatten)]
    registry: RegistryArguments,
}

pub(crate) async fn run(arguments: BenchArguments) -> Result<(), CommandError> {
    let BenchArguments { bench, registry } = arguments;
    let access = registry.access()?;
    let channel = access.channel(0);
    let program = env::current_exe().map_err(CommandError::CurrentProgram)?;
    let mut signals = SignalListener::listen()?;
    let report = select! {
        biased;
        _ = signals.next() => return Err(CommandError::Interrupted),
        report = waypost_bench::run(bench, access.first(), channel, program) => report?,
    };
    let Some(report) = report else { return Ok(()) };
    match registry.output {
        OutputFormat::Json => print_json(&report)?,
        OutputFormat::Table => print(&report)?,
    }
    if report.is_flawed() { Err(CommandError::BenchErrors) } else { Ok(()) }
}
