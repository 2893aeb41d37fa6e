//! Shows the main job on real processes, on loopback: a registry, a gateway, and two services
//! behind it, `orders` (15 replicas) and `prices` (2), which `orders` calls for each of its
//! requests. Under steady traffic replicas are killed with `kill -9`, drain and start, and the
//! registry itself is killed and restarted. Ends after about twenty seconds; with exit code 1 where
//! a request failed that may be repeated.
//!
//! ```sh
//! cargo run --release --example demo
//! cargo run --release --example demo -- --hold
//! cargo run --release --example demo -- --secure
//! ```
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a program that shows others, with a clock and tasks of its own"
)]

mod access;
mod access_log;
mod deployment;
mod figures;
mod journal;
mod members;
mod orders;
mod prices;
mod process;
mod replica;
mod script;
mod traffic;
mod view;

use std::{
    error::Error,
    future::pending,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use tempfile::TempDir;
use tokio::{
    signal::ctrl_c,
    time::{interval, sleep_until},
};

use crate::{
    access::Access,
    deployment::Deployment,
    figures::Tally,
    journal::Journal,
    members::Members,
    process::{Part, end_with_starter},
    script::Script,
    traffic::Traffic,
    view::View,
};

/// As the registry and the gateway have it, which are this program in another part.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The length of the demonstration.
const LENGTH: Duration = Duration::from_secs(20);
/// The interval of readings, and the time that each covers.
const READING: Duration = Duration::from_secs(1);
/// The interval of redraws and of checks of processes.
const FRAME: Duration = Duration::from_millis(250);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Shows a registry, a gateway and two services under traffic, while replicas come and go.
#[derive(Debug, Parser)]
struct Arguments {
    /// Stay until Ctrl-C, and print what to try meanwhile.
    #[arg(long)]
    hold: bool,
    /// Reach the registry over TLS alone, each process by a certificate of its own.
    #[arg(long)]
    secure: bool,
}

fn main() -> ExitCode {
    let Some(part) = Part::of_this_process() else { return show(&Arguments::parse()) };
    end_with_starter();
    match part {
        Part::Registry => waypost::cli::run(),
        Part::Gateway => waypost_gateway::cli::run(),
        Part::Replica => replica::run(),
    }
}

#[tokio::main]
async fn show(arguments: &Arguments) -> ExitCode {
    // On the heap: what it holds is large.
    match Box::pin(perform(arguments)).await {
        Ok(tally) if tally.total().failed_idempotent == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All of it, from the registry's start to the summary; what requests came to.
async fn perform(arguments: &Arguments) -> Outcome<Tally> {
    let (mut deployment, members) = set(arguments).await?;
    let (tally, journal) = (Tally::new(READING), Journal::begin(Instant::now()));
    let _following = members.follow(&journal);
    let _reading = access_log::follow(deployment.access_log()?, &tally)?;
    let traffic = Traffic::start(deployment.gateway(), &tally, &journal);
    let invitation = arguments.hold.then(|| deployment.invitation());
    let head = [deployment.title()].into_iter().chain(invitation.into_iter().flatten());
    let mut view = View::new(head.collect());
    let began = tokio::time::Instant::now();
    let end =
        async { if arguments.hold { pending().await } else { sleep_until(began + LENGTH).await } };
    tokio::pin!(end);
    let mut script = Script::begin(began);
    let mut frames = interval(FRAME);
    loop {
        tokio::select! {
            act = script.next() => {
                journal.note(act);
                deployment.act(act).await?;
            }
            _ = frames.tick() => view.draw(&tally, &members, &journal)?,
            () = &mut end => break,
            interrupted = ctrl_c() => break interrupted?,
        }
    }
    traffic.end().await;
    view.draw(&tally, &members, &journal)?;
    view.sum_up(&tally, &members, &journal)?;
    Ok(tally)
}

/// Starts all processes of the beginning.
async fn set(arguments: &Arguments) -> Outcome<(Deployment, Members)> {
    let directory = TempDir::new()?;
    let access = if arguments.secure { Access::secure(directory.path())? } else { Access::Open };
    let mut deployment = Deployment::set(directory, access).await?;
    let members = Members::new(&deployment.client()?);
    // Called services start before their callers.
    for (service, replicas) in [(prices::SERVICE, 2), (orders::SERVICE, 15)] {
        for number in 1..=replicas {
            deployment.start(&format!("{service}-{number:02}"))?;
        }
        members.wait_for(service, replicas).await?;
    }
    Ok((deployment, members))
}
