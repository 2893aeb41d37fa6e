//! What differs between systems: how each is asked for the same things. It must never do for one system
//! what the load generator does not do for the other.

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
    /// etcd 3, as services use it that register themselves: a lease and a key an instance.
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

/// What a watch tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObservedEvent {
    /// The watch stands: what happens from here on is told.
    Ready,
    /// An instance got the version of this number.
    Changed(u64),
    /// The instance of this index is gone.
    Removed(u64),
}

/// How a system is asked.
pub(crate) trait SystemProtocol: Debug + Send + Sync {
    /// How many leases one message can renew.
    fn leases_a_message_max(&self) -> usize;

    /// Registers an instance with a lease of its own, or has that granted with which it registers.
    fn register(&self, instance: &Instance, ttl: Duration) -> RpcCall;

    /// The lease in the answer.
    fn lease(&self, answer: Bytes) -> Result<u64, BenchCallError>;

    /// Registers an instance with the lease, where that takes another call.
    fn attach(&self, instance: &Instance, lease: u64) -> Option<RpcCall>;

    /// Gives an instance another version.
    fn change(&self, instance: &Instance, lease: u64) -> RpcCall;

    /// Removes an instance.
    fn deregister(&self, lease: u64) -> RpcCall;

    /// Asks for the instances of a service.
    fn resolve(&self, namespace: &str, service: &str) -> RpcCall;

    /// How many instances are in the answer.
    fn found(&self, answer: Bytes) -> Result<u64, BenchCallError>;

    /// Where a stream of renewals goes.
    fn keep_alive_path(&self) -> &'static str;

    /// A message that renews leases, framed.
    fn keep_alive(&self, leases: &[u64]) -> Bytes;

    /// How many of the leases did not live.
    fn unknown(&self, answer: Bytes) -> Result<u64, BenchCallError>;

    /// Follows a service, or the whole namespace.
    fn watch(&self, namespace: &str, service: Option<&str>) -> RpcCall;

    /// What a message of a watch tells, in its order.
    fn seen(&self, message: Bytes) -> Result<Vec<ObservedEvent>, BenchCallError>;
}

/// The index of an instance, which its id ends with.
fn index_of(id: &str) -> Result<u64, BenchCallError> {
    let index = id.rsplit('-').next().and_then(|digits| digits.parse().ok());
    index.ok_or(BenchCallError::Nonsense("an instance that was never registered"))
}

/// The number of a change, which is the instance's version.
fn number_of(version: &str) -> Result<u64, BenchCallError> {
    version.parse().map_err(|_| BenchCallError::Nonsense("a version that was never given"))
}
