//! Drains an instance, so that it goes without failing a call. Never takes longer than allowed: the
//! process is about to end.

use std::time::Duration;

use super::{guard::Registered, in_flight::InFlight, state::DeregisterError};
use crate::{proto::Status, runtime::clock};

/// The longest wait until the registry shows the instance as `DRAINING`.
const ANNOUNCE_MAX: Duration = Duration::from_secs(1);

/// The time that callers have to see it: many times the propagation of a change.
const PROPAGATION_TIME: Duration = Duration::from_secs(1);

/// The longest grace.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The result of [`Registered::drain`].
///
/// ```no_run
/// # async fn example(registered: waypost_client::Registered) {
/// let drained = registered.drain(std::time::Duration::from_secs(10)).await;
/// if let Err(error) = drained.deregistered {
///     eprintln!("callers may still come until the TTL has passed: {error}");
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Drained {
    /// True if the registry confirmed in time that the instance is `DRAINING`.
    pub announced: bool,
    /// The calls in flight at the deregistration: 0, unless the grace was over.
    pub unfinished: usize,
    /// The result of the deregistration, as of [`Registered::deregister`].
    pub deregistered: Result<(), DeregisterError>,
}

impl Registered {
    /// Drains the instance within `grace`: sets its status to `DRAINING`, so that callers pick
    /// other instances; gives them 1 s to see that; then deregisters. From its start, the status
    /// does not follow [`ready_when`](crate::Registration::ready_when) any more.
    ///
    /// The registry has 1 s to confirm the status. All of it takes `grace` at most, plus the
    /// deregistration, which is bounded as in [`deregister`](Self::deregister). The server should
    /// stop after that, not before. To wait for calls in flight, use
    /// [`drain_calls`](Self::drain_calls), or a server that finishes them when it stops.
    ///
    /// If the future is dropped, the instance is deregistered in the background, best effort, as
    /// when the guard is dropped.
    ///
    /// ```no_run
    /// # async fn example(registered: waypost_client::Registered) {
    /// use std::time::Duration;
    ///
    /// // On SIGTERM:
    /// let drained = registered.drain(Duration::from_secs(10)).await;
    /// println!("left, announced: {}", drained.announced);
    /// // ... and now the server stops.
    /// # }
    /// ```
    pub async fn drain(self, grace: Duration) -> Drained {
        self.drain_calls(&InFlight::new(), grace).await
    }

    /// As [`drain`](Self::drain); but before it deregisters, waits until the calls that `in_flight`
    /// counts have ended, as long as `grace` allows.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use tonic::{service::LayerExt, transport::Server};
    /// use waypost_client::{Client, InFlight, Registration};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (_reporter, orders) = tonic_health::server::health_reporter();
    /// let client = Client::new("http://127.0.0.1:7510")?;
    /// let registration = Registration::new("orders", "10.0.0.7", 8080);
    /// let registered = client.register_in_background(registration);
    ///
    /// let in_flight = InFlight::new();
    /// let service = in_flight.named_layer(orders); // a generated server
    /// let leave = async move {
    ///     let _asked = tokio::signal::ctrl_c().await; // or SIGTERM
    ///     let drained = registered.drain_calls(&in_flight, Duration::from_secs(20)).await;
    ///     println!("left with {} calls unfinished", drained.unfinished);
    /// };
    /// // The server stops taking calls once callers have left.
    /// let address = "0.0.0.0:8080".parse()?;
    /// Server::builder().add_service(service).serve_with_shutdown(address, leave).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drain_calls(mut self, in_flight: &InFlight, grace: Duration) -> Drained {
        let end = clock::now() + grace.min(GRACE_MAX);
        let left = || end.saturating_duration_since(clock::now());
        let announced = self.announce(ANNOUNCE_MAX.min(grace)).await;
        // Callers never saw an instance that was never registered.
        if self.lease_id().is_some() {
            clock::sleep(PROPAGATION_TIME.min(left())).await;
        }
        // Calls that have not ended by then are in the result.
        let _ = clock::within(left(), in_flight.wait_idle()).await;
        let unfinished = in_flight.count();
        let deregistered = self.deregister().await;
        Drained { announced, unfinished, deregistered }
    }

    async fn announce(&mut self, limit: Duration) -> bool {
        // Boxed, so that the futures of callers stay small.
        let announced = Box::pin(async {
            self.stop_following_readiness().await;
            match self.lease_id() {
                Some(_) => self.set_status(Status::Draining).await.is_ok(),
                None => false,
            }
        });
        clock::within(limit, announced).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_documented() {
        assert_eq!(
            (ANNOUNCE_MAX, PROPAGATION_TIME),
            (Duration::from_secs(1), Duration::from_secs(1))
        );
    }
}
