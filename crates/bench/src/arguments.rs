//! What can be said to the load generator.

use clap::{Args, Subcommand, ValueEnum};

use crate::{
    limit::LimitArguments,
    protocol::System,
    workload::{
        ExpiryLoad, HeartbeatLoad, MixedLoad, RegisterLoad, ResolveLoad, RestartLoad, WatchLoad,
    },
};

/// What to measure, and how.
#[derive(Clone, Debug, Args)]
pub struct LoadArguments {
    #[command(subcommand)]
    pub(crate) workload: Workload,
    #[command(flatten)]
    pub(crate) setting: RunOptions,
}

/// What servers are asked to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Workload {
    /// Register new instances.
    Register(RegisterLoad),
    /// Keep many instances alive.
    Heartbeat(HeartbeatLoad),
    /// Look services up.
    Resolve(ResolveLoad),
    /// Change instances while many watch.
    Watch(WatchLoad),
    /// Let many leases run out at once.
    Expiry(ExpiryLoad),
    /// Kill the server, and start it again on what it kept.
    Restart(RestartLoad),
    /// Registrations, lookups and heartbeats of many clients at once.
    Mixed(MixedLoad),
    /// Serve as the limit that servers are measured against.
    #[command(hide = true)]
    Limit(LimitArguments),
}

/// What all workloads share.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    /// How often to measure; what is shown is the median, and the spread.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: u64,
    /// Bytes of each instance's metadata, in four entries.
    #[arg(long, global = true, default_value_t = 64)]
    pub(crate) payload: usize,
    /// Start a server for the run, with a directory of its own below the current one, in place of the
    /// registry at the URL.
    #[arg(long, global = true)]
    pub(crate) spawn: bool,
    /// What keeps the registry that is started.
    #[arg(long, global = true, value_enum, default_value = "disk")]
    pub(crate) store: BenchStore,
    /// What to measure: etcd is asked as services ask it that register themselves, and started from the
    /// search path.
    #[arg(long, global = true, value_enum, default_value = "waypost")]
    pub(crate) system: System,
}

/// What keeps a registry that is started.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BenchStore {
    /// A file, synced before anything is answered.
    Disk,
    /// Nothing.
    Memory,
}

impl BenchStore {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}
