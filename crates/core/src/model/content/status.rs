//! The status that an instance declares.

/// Whether an instance takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It runs but is not ready yet.
    Starting,
    /// It takes traffic.
    Up,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It runs and knows that it can't serve.
    Down,
}

impl Status {
    /// The one of this number.
    pub(super) fn from_number(number: u8) -> Self {
        let all = [Self::Starting, Self::Up, Self::Draining, Self::Down];
        all[usize::from(number)]
    }
}
