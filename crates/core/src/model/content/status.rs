//! The status that an instance declares.
//!
//! Pure.

/// The status that an instance declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not ready yet.
    Starting,
    /// Ready for traffic.
    Up,
    /// Finishes the calls that it has, and takes no new ones.
    Draining,
    /// Running, but unable to serve.
    Down,
}

impl Status {
    /// Returns the status with this discriminant.
    pub(super) fn from_number(number: u8) -> Self {
        let all = [Self::Starting, Self::Up, Self::Draining, Self::Down];
        all[usize::from(number)]
    }
}
