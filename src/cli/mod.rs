//! The command line.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A service-discovery registry: exact membership, leases, and watches over gRPC.
#[derive(Debug, Parser)]
#[command(name = "waypost", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the registry.
    Serve(serve::ServeArguments),
}

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
    }
}

/// The exit code for a bad configuration.
const CONFIGURATION: u8 = 64;

/// Says what went wrong, on standard error; the exit code for it.
#[expect(clippy::print_stderr, reason = "the command line speaks to its user")]
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("waypost: {error}");
    ExitCode::FAILURE
}
