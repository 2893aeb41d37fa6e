//! The registry as one client reaches it: its URLs (`url`), which of its addresses is in use
//! (`failback`), requests to it (`link`), what its errors mean (`refusal`), and how its outages are
//! reported (`state`, `outage`).

mod failback;
mod link;
mod outage;
mod refusal;
mod state;
mod url;

pub(crate) use self::{
    link::{REQUEST_TIMEOUT, RegistryConnection, RegistryLink, RequestFailure},
    outage::Outage,
    refusal::{Retryability, message},
    url::parse_url,
};
pub use self::{
    refusal::{FieldViolation, Refusal},
    state::RegistryState,
};
