//! `waypost bench`: puts a registry, or one that is started for it, under load, and says what it can do
//! beside what the machine can.

use std::env;

use clap::Args;
use tokio::select;

use crate::cli::{
    arguments::RegistryArguments,
    failure::Failure,
    output::{Output, print, print_json},
    signals::Signals,
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

pub(crate) async fn run(arguments: BenchArguments) -> Result<(), Failure> {
    let BenchArguments { bench, registry } = arguments;
    let program = env::current_exe().map_err(Failure::Program)?;
    let mut signals = Signals::listen()?;
    let report = select! {
        biased;
        _ = signals.next() => return Err(Failure::Interrupted),
        report = waypost_bench::run(bench, registry.url.first(), program) => report?,
    };
    let Some(report) = report else { return Ok(()) };
    match registry.output {
        Output::Json => print_json(&report)?,
        Output::Table => print(&report)?,
    }
    if report.is_flawed() { Err(Failure::Flawed) } else { Ok(()) }
}
