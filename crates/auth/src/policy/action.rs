//! The actions that rules allow, and the part of the registry that an action is on.
//!
//! Pure.

use std::{fmt, str::FromStr};

use thiserror::Error;
use waypost_core::model::{Name, ServiceKey};

/// The rights that a rule can give (`may` in the policy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Reads the health of the server. Every known caller has this right.
    Probe,
    /// Looks up and watches services.
    Discover,
    /// Registers, renews, updates and removes instances by their leases.
    Register,
    /// Updates and removes instances by their identity, and releases protected ones.
    Operate,
    /// Reads the status and the metrics of the server.
    Status,
    /// Copies everything.
    Backup,
}

/// The text is not the name of an [`Action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be one of probe, discover, register, operate, status, backup")]
pub struct UnknownAction;

impl Action {
    /// All actions.
    pub const ALL: [Self; 6] =
        [Self::Probe, Self::Discover, Self::Register, Self::Operate, Self::Status, Self::Backup];

    /// Returns the name in the policy, in errors and in audit records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Discover => "discover",
            Self::Register => "register",
            Self::Operate => "operate",
            Self::Status => "status",
            Self::Backup => "backup",
        }
    }

    /// Returns whether the action is on the server as a whole, never on some services.
    #[must_use]
    pub fn is_on_server(self) -> bool {
        matches!(self, Self::Probe | Self::Status | Self::Backup)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL.into_iter().find(|action| action.name() == text).ok_or(UnknownAction)
    }
}

/// The part of the registry that an action is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// The server as a whole, which includes every service.
    Server,
    /// Every service of a namespace.
    Namespace(&'a Name),
    /// One service.
    Service(&'a ServiceKey),
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Actions(u8);

impl Actions {
    pub(super) fn insert(&mut self, action: Action) {
        self.0 |= 1 << action as u8;
    }

    pub(super) fn contains(self, action: Action) -> bool {
        self.0 & (1 << action as u8) != 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.contains(*action))
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        let mut set = Self::default();
        actions.into_iter().for_each(|action| set.insert(action));
        set
    }
}
