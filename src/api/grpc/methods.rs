//! The methods of the port: the right that each needs before its handler decides, and whether its
//! responses are a stream. A test holds the table against reflection.
//!
//! Pure. Invariant: a method without a row is not called.

use crate::auth::{AccessError, Caller};

/// A method of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    /// The last part of the path.
    pub(super) name: &'static str,
    pub(super) family: Family,
    pub(super) need: Need,
    pub(super) responses: Responses,
}

/// The part of the port that serves a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Health, which is served while the server shuts down.
    Health,
    /// Reflection. It reads its next request before it finds that the caller is gone, so its
    /// requests must be ended too.
    Reflection,
    /// The services of `waypost.v1`.
    Registry,
}

/// The right that a call needs, and a stream keeps needing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A known caller, or one that may read the health.
    Probe,
    /// A known caller. Leases are decided on one by one.
    Known,
    /// The handler decides on the names in the request, which `anonymous` may discover.
    Discover,
    /// The right to copy the store.
    Backup,
}

/// The number of responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Responses {
    One,
    /// Shutting down ends the stream.
    Stream,
}

impl Method {
    /// Returns the method with a path; `None` if there is none.
    pub(super) fn of(path: &str) -> Option<Self> {
        use Family::{Health, Reflection, Registry};
        use Need::{Backup, Discover, Known, Probe};
        use Responses::{One, Stream};
        let (name, family, need, responses) = match path {
            "/waypost.v1.Registry/Register" => ("Register", Registry, Known, One),
            "/waypost.v1.Registry/Heartbeat" => ("Heartbeat", Registry, Known, One),
            "/waypost.v1.Registry/KeepAlive" => ("KeepAlive", Registry, Known, Stream),
            "/waypost.v1.Registry/Update" => ("Update", Registry, Known, One),
            "/waypost.v1.Registry/Deregister" => ("Deregister", Registry, Known, One),
            "/waypost.v1.Discovery/Resolve" => ("Resolve", Registry, Discover, One),
            "/waypost.v1.Discovery/ListServices" => ("ListServices", Registry, Discover, One),
            "/waypost.v1.Discovery/Watch" => ("Watch", Registry, Discover, Stream),
            "/waypost.v1.Admin/GetStatus" => ("GetStatus", Registry, Known, One),
            "/waypost.v1.Admin/ReleaseProtection" => ("ReleaseProtection", Registry, Known, One),
            "/waypost.v1.Admin/WhoAmI" => ("WhoAmI", Registry, Known, One),
            "/waypost.v1.Admin/Backup" => ("Backup", Registry, Backup, Stream),
            "/grpc.health.v1.Health/Check" => ("Check", Health, Probe, One),
            "/grpc.health.v1.Health/List" => ("List", Health, Probe, One),
            "/grpc.health.v1.Health/Watch" => ("Watch", Health, Probe, Stream),
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
                ("ServerReflectionInfo", Reflection, Known, Stream)
            }
            _ => return None,
        };
        Some(Self { name, family, need, responses })
    }
}

impl Need {
    /// Checks that a caller has the right.
    pub(super) fn check(self, caller: &Caller) -> Result<(), AccessError> {
        match self {
            Self::Probe => caller.check_probe(),
            Self::Known => caller.check_known(),
            Self::Discover => caller.check_discovery(),
            Self::Backup => caller.copy_store().map(drop),
        }
    }
}
