//! The command line: what there is to report, who does it, and how it ends.

mod arguments;
mod commands;
mod error;
mod escape;
mod exit;
mod output;
mod register;
mod remote;
mod signals;
mod watch;

use std::process::{ExitCode, Termination};

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

use self::{
    commands::{
        backup, bench, check, deregister, drain, instances, release, restore, serve, services,
        status,
    },
    error::CommandError,
    output::{fail, print_notice},
    register::launch,
};

/// A service-discovery registry: exact membership, leases, and watches over gRPC.
#[derive(Debug, Parser)]
#[command(name = "waypost", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

/// Where a command has no comment here, its help is that of its arguments, all of it.
#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the registry.
    Serve(serve::ServeArguments),
    /// List the services of a namespace.
    Services(services::ServicesArguments),
    Instances(instances::InstancesArguments),
    Watch(watch::WatchArguments),
    Register(Box<register::RegisterArguments>),
    /// Remove an instance from the registry.
    Deregister(deregister::DeregisterArguments),
    /// Have an instance finish what it has and take nothing new.
    Drain(drain::DrainArguments),
    /// Remove the instances of a namespace that mass-expiry protection holds.
    Release(release::ReleaseArguments),
    /// Show how the registry stands.
    Status(status::StatusArguments),
    /// Write an image of everything that is registered to a file, while the registry works.
    Backup(backup::BackupArguments),
    /// Begin a store with what an image holds, for a registry to be started with.
    Restore(restore::RestoreArguments),
    /// Read all of a store that no registry works with, and say what is in it.
    Check(check::CheckArguments),
    /// Put a registry under load.
    Bench(Box<bench::BenchArguments>),
    /// Become a command that is killed when the program ends that started this one.
    #[command(hide = true)]
    Launch(launch::LaunchArguments),
}

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        CliCommand::Serve(arguments) => serve::run(arguments),
        CliCommand::Services(arguments) => block_on(services::run(arguments)),
        CliCommand::Instances(arguments) => block_on(instances::run(arguments)),
        CliCommand::Watch(arguments) => block_on(watch::run(arguments)),
        CliCommand::Register(arguments) => block_on(register::run(*arguments)),
        CliCommand::Deregister(arguments) => block_on(deregister::run(arguments)),
        CliCommand::Drain(arguments) => block_on(drain::run(arguments)),
        CliCommand::Release(arguments) => block_on(release::run(arguments)),
        CliCommand::Status(arguments) => block_on(status::run(arguments)),
        CliCommand::Backup(arguments) => block_on(backup::run(arguments)),
        CliCommand::Restore(arguments) => end(restore::run(&arguments)),
        CliCommand::Check(arguments) => end(check::run(&arguments)),
        CliCommand::Bench(arguments) => block_on_all_cores(bench::run(*arguments)),
        CliCommand::Launch(arguments) => launch::run(arguments),
    }
}

/// Runs a command that asks a registry to its end; the exit code for it.
fn block_on<T: Termination>(command: impl Future<Output = Result<T, CommandError>>) -> ExitCode {
    // A thread besides this one: heartbeats go on while a line is written.
    block_with(Builder::new_multi_thread().worker_threads(1), command)
}

/// Runs a command that needs all that the machine has.
fn block_on_all_cores(command: impl Future<Output = Result<(), CommandError>>) -> ExitCode {
    block_with(&mut Builder::new_multi_thread(), command)
}

fn block_with<T: Termination>(
    builder: &mut Builder,
    command: impl Future<Output = Result<T, CommandError>>,
) -> ExitCode {
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("can't start the runtime: {error}")),
    };
    let ended = runtime.block_on(command);
    // Whoever does not read the output must not keep the command from its end.
    runtime.shutdown_background();
    end(ended)
}

/// The exit code for how a command ended.
fn end<T: Termination>(ended: Result<T, CommandError>) -> ExitCode {
    match ended {
        Ok(ended) => ended.report(),
        // Whoever read the output has had enough of it.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            print_notice(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
