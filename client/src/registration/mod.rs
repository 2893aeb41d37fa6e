//! A registration that is kept alive. The user describes it (`spec`) and holds its `guard`; a
//! `task` registers it (`attempt`), renews its `lease` (`heartbeats`), and applies changes
//! (`updater`, `readiness`). Guard and task share its `state`. At the end it drains (`drain`,
//! `in_flight`).

mod attempt;
mod drain;
mod guard;
mod heartbeats;
mod in_flight;
mod lease;
mod readiness;
mod spec;
mod state;
mod task;
mod updater;

pub(crate) use self::heartbeats::Heartbeats;
pub use self::{
    drain::Drained,
    guard::Registered,
    in_flight::{Counted, CountedBody, CountedFuture, InFlight, OngoingCall},
    spec::{FixedStatus, Registration, Update},
    state::{DeregisterError, RegisterError, RegistrationState, UpdateError},
};
