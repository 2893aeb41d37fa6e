//! The differences between systems: the calls of each for the same operations. Pure.
//!
//! Invariant: no system has an optimization that the others lack.

mod etcd;
mod waypost;

use std::{fmt::Debug, time::Duration};

use bytes::Bytes;
use clap::ValueEnum;
use waypost_client::proto::Instance;

use crate::{error::BenchCallError, load::connection::RpcCall};

/// A system that can be put under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// Waypost.
    Waypost,
    /// etcd 3, as services use it to register themselves: a lease and a key for each instance.
    Etcd,
}

impl System {
    pub(crate) fn protocol(self) -> &'static dyn SystemProtocol {
        match self {
            Self::Waypost => &waypost::Waypost,
            Self::Etcd => &etcd::Etcd,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waypost => "waypost",
            Self::Etcd => "etcd",
        }
    }
}

/// An event that a watch receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObservedEvent {
    /// The watch is open: later changes arrive.
    Ready,
    /// An instance has the version of this number.
    Changed(u64),
    /// The instance of this index was removed.
    Removed(u64),
}

/// The calls of a system.
pub(crate) trait SystemProtocol: Debug + Send + Sync {
    /// Returns the most leases that one message can renew.
    fn leases_a_message_max(&self) -> usize;

    /// Registers an instance with a lease of its own, or requests the lease for [`Self::attach`].
    fn register(&self, instance: &Instance, ttl: Duration) -> RpcCall;

    /// Decodes the lease of that response.
    fn lease(&self, answer: Bytes) -> Result<u64, BenchCallError>;

    /// Registers an instance with the lease, if that takes another call.
    fn attach(&self, instance: &Instance, lease: u64) -> Option<RpcCall>;

    /// Changes the version of an instance.
    fn change(&self, instance: &Instance, lease: u64) -> RpcCall;

    /// Removes an instance.
    fn deregister(&self, lease: u64) -> RpcCall;

    /// Looks up the instances of a service.
    fn resolve(&self, namespace: &str, service: &str) -> RpcCall;

    /// Returns the number of instances in that response.
    fn found(&self, answer: Bytes) -> Result<u64, BenchCallError>;

    /// Returns the path of streams of renewals.
    fn keep_alive_path(&self) -> &'static str;

    /// Encodes a framed message that renews leases.
    fn keep_alive(&self, leases: &[u64]) -> Bytes;

    /// Returns the number of inactive leases in the response.
    fn unknown(&self, answer: Bytes) -> Result<u64, BenchCallError>;

    /// Watches a service, or the whole namespace.
    fn watch(&self, namespace: &str, service: Option<&str>) -> RpcCall;

    /// Decodes the events of a watch's message, in order.
    fn seen(&self, message: Bytes) -> Result<Vec<ObservedEvent>, BenchCallError>;
}

/// Parses the index at the end of an instance's id.
fn index_of(id: &str) -> Result<u64, BenchCallError> {
    let index = id.rsplit('-').next().and_then(|digits| digits.parse().ok());
    index.ok_or(BenchCallError::InvalidResponse("an instance that was never registered"))
}

/// Parses the number of a change, which is the instance's version.
fn number_of(version: &str) -> Result<u64, BenchCallError> {
    version.parse().map_err(|_| BenchCallError::InvalidResponse("a version that was never given"))
}
