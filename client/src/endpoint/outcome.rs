//! The result of a call, as outlier detection and latency count it.

/// The outcome of a call, as it counts for or against its instance.
///
/// ```
/// use waypost_client::Outcome;
///
/// // A refusal that is the caller's own fault is a success of the instance.
/// let status = tonic::Code::InvalidArgument;
/// let outcome = match status {
///     tonic::Code::Unavailable | tonic::Code::Internal => Outcome::Failure,
///     _ => Outcome::Success,
/// };
/// assert_eq!(outcome, Outcome::Success);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The instance served it.
    Success,
    /// The instance did not serve it, and might not serve the next one.
    Failure,
    /// The instance took no connection: it is ejected at once, for a second at first.
    Unreachable,
}
