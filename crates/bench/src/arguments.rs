//! Command-line arguments of the load generator.

use clap::{Args, Subcommand, ValueEnum};

use crate::{
    limit::LimitArguments,
    protocol::System,
    workload::{
        ExpiryLoad, HeartbeatLoad, MixedLoad, RegisterLoad, ResolveLoad, RestartLoad, WatchLoad,
    },
};

/// The workload and its options.
#[derive(Clone, Debug, Args)]
pub struct LoadArguments {
    #[command(subcommand)]
    pub(crate) workload: Workload,
    #[command(flatten)]
    pub(crate) setting: RunOptions,
}

/// The workloads.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Workload {
    /// Register new instances.
    Register(RegisterLoad),
    /// Renew the leases of many instances.
    Heartbeat(HeartbeatLoad),
    /// Look up services.
    Resolve(ResolveLoad),
    /// Change instances while many watchers receive the changes.
    Watch(WatchLoad),
    /// Let many leases expire at once.
    Expiry(ExpiryLoad),
    /// Kill the server and restart it from its data directory.
    Restart(RestartLoad),
    /// Run registrations, lookups and heartbeats of many clients at once.
    Mixed(MixedLoad),
    /// Serve the limit that servers are measured against.
    #[command(hide = true)]
    Limit(LimitArguments),
}

/// The options of all workloads.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    /// Rounds to measure; the report shows the median and the spread.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: u64,
    /// Bytes of each instance's metadata, in four entries.
    #[arg(long, global = true, default_value_t = 64)]
    pub(crate) payload: usize,
    /// Start a server for the run, with a directory below the current one, instead of using the
    /// registry at the URL.
    #[arg(long, global = true)]
    pub(crate) spawn: bool,
    /// Storage backend of the started registry.
    #[arg(long, global = true, value_enum, default_value = "disk")]
    pub(crate) store: BenchStore,
    /// System to measure; etcd is used as services use it to register themselves, and started from
    /// the search path.
    #[arg(long, global = true, value_enum, default_value = "waypost")]
    pub(crate) system: System,
}

/// The storage backend of a started registry.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BenchStore {
    /// Durable: each write is synced before its response.
    Disk,
    /// Lost on restart.
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
