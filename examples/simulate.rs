//! Runs the real server and the real client crate in simulated worlds, one a seed, and looks for
//! anything that should not be seen. Uses no real network, and ends by itself.
//!
//! Each world has a process of its own: the runtime numbers its tasks throughout a process and goes
//! by the numbers, so that one world would show in the next.
//!
//! ```sh
//! cargo run --release --example simulate -- --seeds 0..100 --minutes 22
//! ```
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers, with a thread for each simulated world"
)]

use std::{
    collections::BTreeMap,
    env, io,
    ops::Range,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};
use waypost_simulation::random_run::{self, Outcome};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The interval of progress reports.
const TELLING: Duration = Duration::from_secs(10);

/// Simulates a registry, its users and everything that can go wrong between them.
#[derive(Debug, Parser)]
struct Arguments {
    /// The seeds, from the first to the one after the last.
    #[arg(long, value_parser = seeds, default_value = "0..20", overrides_with = "seeds")]
    seeds: Range<u64>,
    /// Simulated time of each world, in minutes.
    #[arg(long, default_value_t = 22)]
    minutes: u64,
    /// The number of worlds simulated at a time [default: all cores].
    #[arg(long)]
    jobs: Option<usize>,
    /// Plants a defect in the server: the run is good when it is found.
    #[cfg(feature = "failpoints")]
    #[arg(long)]
    defect: Option<String>,
    /// Print the logs of server and clients with simulated times; a filter such as `info`.
    #[arg(long)]
    log: Option<String>,
    /// Simulates the first seed in this process, and prints what it came to.
    #[arg(long, hide = true)]
    one: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("FROM..TO")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(number(from)?..number(to)?)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(cores).max(1);
    if arguments.one {
        return run_one(&arguments);
    }
    let total = match run_all(&arguments, jobs) {
        Ok(total) => total,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let found = !total.violations.is_empty();
    #[cfg(feature = "failpoints")]
    if let Some(defect) = &arguments.defect {
        match total.violations.iter().min() {
            Some((seed, _)) => println!("{defect} is found at seed {seed}"),
            None => println!("{defect} is not found in {} worlds", total.worlds),
        }
        return if found { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    total.tell();
    if found { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs the world of the first seed in this process.
fn run_one(arguments: &Arguments) -> ExitCode {
    if let Some(filter) = &arguments.log {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(SimulatedTime)
            .with_writer(io::stderr)
            .init();
    }
    #[cfg(feature = "failpoints")]
    if let Some(defect) = &arguments.defect
        && let Err(error) = fail::cfg(defect, "return")
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let outcome = random_run::run(arguments.seeds.start, arguments.minutes);
    match serde_json::to_writer(io::stdout(), &outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a world in a process of its own, with the arguments of this one.
fn run_apart(seed: u64) -> io::Result<Outcome> {
    let world = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .arg("--one")
        .arg(format!("--seeds={seed}..{}", seed + 1))
        .stderr(Stdio::inherit())
        .output()?;
    Ok(serde_json::from_slice(&world.stdout)?)
}

/// Simulated time and host, at the head of each line of the log.
struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let (host, step) = waypost_simulation::here();
        write!(writer, "{step} ms, host {host}")
    }
}

/// Runs seeds on several threads until all are done or one shows something wrong.
///
/// Errors: a world panicked or can't be run; the message was printed.
fn run_all(arguments: &Arguments, jobs: usize) -> Result<Total, String> {
    let next = Arc::new(AtomicU64::new(arguments.seeds.start));
    let stop = Arc::new(AtomicBool::new(false));
    let end = arguments.seeds.end;
    let (done, outcomes) = mpsc::sync_channel(jobs);
    for _ in 0..jobs {
        let (next, stop, done) = (Arc::clone(&next), Arc::clone(&stop), done.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end || done.send((seed, run_apart(seed))).is_err() {
                    break;
                }
            }
        });
    }
    drop(done);
    let mut total = Total::new();
    let mut told = Instant::now();
    for (seed, outcome) in outcomes {
        let Ok(outcome) = outcome else {
            return Err(format!("the world of seed {seed} ended without an outcome"));
        };
        total.add(outcome);
        if !total.violations.is_empty() {
            stop.store(true, Ordering::Relaxed);
        }
        if told.elapsed() > TELLING {
            told = Instant::now();
            eprintln!("{} worlds, {:.1} simulated days", total.worlds, total.days());
        }
    }
    Ok(total)
}

/// The total of all worlds.
struct Total {
    began: Instant,
    worlds: u64,
    simulated_ms: u64,
    checks: u64,
    packets: u64,
    /// The same whenever the same worlds are run.
    trace: u64,
    faults: BTreeMap<String, u64>,
    /// By seed.
    violations: Vec<(u64, String)>,
}

impl Total {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            worlds: 0,
            simulated_ms: 0,
            checks: 0,
            packets: 0,
            trace: 0,
            faults: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    fn add(&mut self, outcome: Outcome) {
        self.worlds += 1;
        self.simulated_ms += outcome.simulated_ms;
        self.checks += outcome.checks;
        self.packets += outcome.packets;
        self.trace ^= outcome.trace.rotate_left(u32::try_from(outcome.seed % 64).unwrap_or(0));
        for (kind, count) in outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        if let Some(violation) = outcome.violation {
            let seeds = format!("{}..{}", outcome.seed, outcome.seed + 1);
            let replay = "cargo run --release --example simulate -- --seeds";
            eprintln!("{violation}\n  replay: {replay} {seeds}");
            self.violations.push((outcome.seed, violation));
        }
    }

    fn days(&self) -> f64 {
        Duration::from_millis(self.simulated_ms).as_secs_f64() / 86_400.0
    }

    fn tell(&self) {
        let Self { worlds, checks, packets, faults, violations, .. } = self;
        println!(
            "{worlds} worlds, {:.2} simulated days in {:.1} s: {packets} packets, {checks} checks, \
             {} violations",
            self.days(),
            self.began.elapsed().as_secs_f64(),
            violations.len()
        );
        let faults: Vec<_> = faults.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        println!("faults: {}", faults.join(", "));
        println!("trace: {:016x}", self.trace);
    }
}
