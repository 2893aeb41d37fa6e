//! Why a run of the benchmark failed.

use std::{io, path::PathBuf};

/// Why a run of the benchmark failed. Errors of single calls under load are figures instead.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The URL is none that the load generator takes.
    #[error("{url}: expected http://host:port")]
    Url {
        /// What was given.
        url: String,
    },
    /// The arguments contradict each other.
    #[error("{0}")]
    Arguments(String),
    /// The server can't be reached.
    #[error("can't connect to {address}: {source}")]
    Connect {
        /// Where it should listen.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A call failed that the workload stands on.
    #[error("{what}: {source}")]
    Call {
        /// What was to be done.
        what: &'static str,
        /// Why it failed.
        source: BenchCallError,
    },
    /// A server can't be started.
    #[error("can't start {program}: {source}", program = program.display())]
    Start {
        /// What was to be run.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A server that was started does not come up.
    #[error("{what} does not come up within {seconds} s")]
    Silent {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        seconds: u64,
    },
    /// The load generator can't work on a thread of its own.
    #[error("a thread of the load generator: {0}")]
    Thread(#[source] io::Error),
    /// A directory for the server that is started can't be made or read.
    #[error("can't work in {directory}: {source}", directory = directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The limit's server failed.
    #[error("the limit's server failed: {0}")]
    Limit(#[source] io::Error),
}

/// Why one call failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchCallError {
    /// The connection or the stream broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] h2::Error),
    /// The server said no.
    #[error("answered with status {code}: {message}")]
    Refused {
        /// gRPC's number of the status.
        code: i32,
        /// What the server says.
        message: String,
    },
    /// The answer is none that the protocol has.
    #[error("the answer makes no sense: {0}")]
    Nonsense(&'static str),
}
