//! Errors of a benchmark run, and of single calls.

use std::{io, path::PathBuf};

/// The error of a benchmark run. Errors of single calls under load are figures instead.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The URL is not supported.
    #[error("{url}: expected https://host:port or http://host:port")]
    Url {
        /// The given URL.
        url: String,
    },
    /// The arguments contradict each other.
    #[error("{0}")]
    Arguments(String),
    /// Connecting failed.
    #[error("can't connect to {address}: {source}")]
    Connect {
        /// The server's address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// A call failed that the workload needs.
    #[error("{what}: {source}")]
    Call {
        /// The purpose of the call.
        what: &'static str,
        /// The cause.
        source: BenchCallError,
    },
    /// Starting a server failed.
    #[error("can't start {program}: {source}", program = program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A started server does not respond.
    #[error("{what} does not respond within {seconds} s of its start")]
    Silent {
        /// The server or stream.
        what: &'static str,
        /// The time waited.
        seconds: u64,
    },
    /// A thread of the load generator failed.
    #[error("a thread of the load generator failed: {0}")]
    Thread(#[source] io::Error),
    /// The started server's directory can't be created or read.
    #[error("can't use directory {directory}: {source}", directory = directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The limit's server failed.
    #[error("the limit's server failed: {0}")]
    Limit(#[source] io::Error),
}

/// The error of one call.
#[derive(Debug, thiserror::Error)]
pub enum BenchCallError {
    /// The connection or stream broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] h2::Error),
    /// The server returned an error status.
    #[error("returned status {code}: {message}")]
    Refused {
        /// The number of the gRPC status.
        code: i32,
        /// The message of the status.
        message: String,
    },
    /// The response violates the protocol.
    #[error("invalid response: {0}")]
    InvalidResponse(&'static str),
}
