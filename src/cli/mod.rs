//! The command line: parses the arguments, runs the command, and maps its result to an exit code.
//!
//! `register/`, `watch/`, `credentials/` (certificates and tokens) and `policy/` are commands with
//! parts of their own, `commands/` all others. Below them: `arguments`, `remote`, `signals`, then
//! `output/`, `error`, `exit` and `escape`.

mod arguments;
mod commands;
mod credentials;
mod error;
mod escape;
mod exit;
mod output;
mod policy;
mod register;
mod remote;
mod signals;
mod watch;

use std::process::{ExitCode, Termination};

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

use self::{
    commands::{
        backup, bench, check, deregister, drain, health, instances, release, restore, serve,
        services, status,
    },
    credentials::{ca, token, whoami},
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

/// The commands; each takes its help text from its arguments.
#[derive(Debug, Subcommand)]
enum CliCommand {
    Serve(serve::ServeArguments),
    Services(services::ServicesArguments),
    Instances(instances::InstancesArguments),
    Watch(watch::WatchArguments),
    Register(Box<register::RegisterArguments>),
    Deregister(deregister::DeregisterArguments),
    Drain(drain::DrainArguments),
    Release(release::ReleaseArguments),
    Status(status::StatusArguments),
    Health(health::HealthArguments),
    Whoami(whoami::WhoamiArguments),
    Backup(backup::BackupArguments),
    Restore(restore::RestoreArguments),
    Check(check::CheckArguments),
    Ca(ca::CaArguments),
    Token(token::TokenArguments),
    Policy(policy::PolicyArguments),
    Bench(Box<bench::BenchArguments>),
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
        CliCommand::Health(arguments) => block_on(health::run(arguments)),
        CliCommand::Whoami(arguments) => block_on(whoami::run(arguments)),
        CliCommand::Backup(arguments) => block_on(backup::run(arguments)),
        CliCommand::Restore(arguments) => exit(restore::run(&arguments)),
        CliCommand::Check(arguments) => exit(check::run(&arguments)),
        CliCommand::Ca(arguments) => exit(ca::run(arguments)),
        CliCommand::Token(arguments) => exit(token::run(&arguments)),
        CliCommand::Policy(arguments) => exit(policy::run(&arguments)),
        CliCommand::Bench(arguments) => block_on_all_cores(bench::run(*arguments)),
        CliCommand::Launch(arguments) => launch::run(arguments),
    }
}

/// Runs a command that sends requests to a registry. Returns its exit code.
fn block_on<T: Termination>(command: impl Future<Output = Result<T, CommandError>>) -> ExitCode {
    // A worker thread beside this one: heartbeats continue while a write to stdout blocks.
    block_with(Builder::new_multi_thread().worker_threads(1), command)
}

/// Runs a command that generates load from all cores.
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
    let result = runtime.block_on(command);
    // A reader that does not drain stdout must not delay the exit.
    runtime.shutdown_background();
    exit(result)
}

/// Prints the error of a command that failed. Returns the exit code.
fn exit<T: Termination>(result: Result<T, CommandError>) -> ExitCode {
    match result {
        Ok(done) => done.report(),
        // The reader of the output closed the pipe, as `head` does.
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            print_notice(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
