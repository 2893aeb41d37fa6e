//! The registry as one client reaches it: its URLs (`url`), which of its addresses is in use
//! (`failback`), when its connection moves to renewed credentials (`renewal`), requests to it
//! (`link`), when they are sent again with refused credentials (`denial`), what its errors mean
//! (`refusal`), and how its outages are reported (`state`, `outage`).

mod denial;
mod failback;
mod link;
mod outage;
mod refusal;
mod renewal;
mod state;
mod url;

pub(crate) use self::{
    denial::{CredentialChanges, CredentialState, denied_backoff, denied_delay},
    link::{AddressDialer, REQUEST_TIMEOUT, RegistryConnection, RegistryLink, RequestFailure},
    outage::Outage,
    refusal::{Retryability, message},
    url::{is_https, is_loopback, parse_url},
};
pub use self::{
    refusal::{FieldViolation, Refusal},
    state::RegistryState,
};
