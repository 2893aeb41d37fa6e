//! `waypost bench`: puts a registry, or one that is started for it, under load, and says what it can do
//! beside what the machine can.

use std::env;

use clap::Args;
use tokio::select;

use crate::cli::{
    arguments::RegistryArguments,
    error::CommandError,
    output::{OutputFormat, print, print_json},
    signals::SignalListener,
};

/// Put a registry under load: how much it does, how soon, at what cost, and beside it the limit, which is
/// the same load against a bare gRPC server that only answers.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    bench: waypost_bench::Arguments,
    #[command(flatten)]
    registry: RegistryArguments,
}

pub(crate) async fn run(arguments: BenchArguments) -> Result<(), CommandError> {
    let BenchArguments { bench, registry } = arguments;
    let program = env::current_exe().map_err(CommandError::CurrentProgram)?;
    let mut signals = SignalListener::listen()?;
    let report = select! {
        biased;
        _ = signals.next() => return Err(CommandError::Interrupted),
        report = waypost_bench::run(bench, registry.url.first(), program) => report?,
    };
    let Some(report) = report else { return Ok(()) };
    match registry.output {
        OutputFormat::Json => print_json(&report)?,
        OutputFormat::Table => print(&report)?,
    }
    if report.is_flawed() { Err(CommandError::BenchErrors) } else { Ok(()) }
}
