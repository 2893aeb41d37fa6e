//! Access: the identity of each caller, and the decision on each of its acts.
//!
//! From the top: [`Gate`] identifies callers; [`Caller`] decides, and makes the [`Permit`]s that
//! the engine takes; `session` is what a caller is judged by; [`TrustCell`] the version of the
//! policy in force; `audit` records what callers did and were refused. The decisions themselves are
//! in `waypost_auth::policy`.

mod act;
pub mod audit;
mod caller;
mod error;
mod gate;
mod lease_rights;
mod origin;
mod permit;
mod quota;
mod session;
mod tls;
mod trust;

pub(crate) use audit::AuditTrail;
pub(crate) use caller::CallerIdentity;
pub use caller::{Caller, WatchTarget};
pub use error::{AccessError, AccessObject, ActionName};
pub(crate) use gate::{ConnectionGate, GateRefusal, RightChanges};
pub use gate::{Gate, HostCheck, Peer};
pub(crate) use lease_rights::LeaseRights;
pub use permit::{
    CopyStore, DiscoverService, ListNamespace, OperateService, Permit, ReadStatus, RegisterService,
    ReleaseNamespace, WatchScope,
};
pub use quota::PrincipalLimit;
pub(crate) use quota::WatchSlot;
pub(crate) use tls::TlsContext;
pub use trust::{Trust, TrustCell};
