//! How an instance leaves without failing a call. It must never take longer than it was allowed to: the
//! process is about to end.

use std::time::Duration;

use super::{guard::Registered, in_flight::InFlight, state::DeregisterError};
use crate::{proto::Status, runtime::clock};

/// How long the registry may take to hear of it.
const ANNOUNCING_MAX: Duration = Duration::from_secs(1);

/// How long callers have to see it: many times what a change takes to them.
const SETTLING: Duration = Duration::from_secs(1);

/// The longest grace that is honoured.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How it went, of [`Registered::drain`].
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
    /// Whether the registry said in time that it shows the instance as `DRAINING`.
    pub announced: bool,
    /// How many calls were in flight when the instance was deregistered: 0, unless the grace was over.
    pub unfinished: usize,
    /// What the deregistration came to, as [`Registered::deregister`].
    pub deregistered: Result<(), DeregisterError>,
}

impl Registered {
    /// Leaves without failing a call, as far as that takes no longer than `grace`: announces `DRAINING`,
    /// so that callers choose other instances; gives them time to see it (1 s); and deregisters. From
    /// its beginning on the status follows no [`ready_when`](crate::Registration::ready_when).
    ///
    /// The registry has 1 s to hear of it, and all of it takes `grace` at most, besides the
    /// deregistration, which is bounded as in [`deregister`](Self::deregister). What takes calls should stop after
    /// that, not before. To wait for calls in flight, use [`drain_calls`](Self::drain_calls), or a server
    /// that finishes them when it stops.
    ///
    /// Where the future is dropped, the instance is deregistered in the background, best effort, as when
    /// the guard is dropped.
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

    /// As [`drain`](Self::drain); and when callers have had time to see that the instance is leaving,
    /// waits until the calls that `in_flight` counts have ended, while there is time left.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use tonic::{service::LayerExt, transport::Server};
    /// use waypost_client::{Client, InFlight, Registration};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (_reporter, orders) = tonic_health::server::health_reporter();
    /// let client = Client::new("http://127.0.0.1:7510")?;
    /// let registered = client.register_in_background(Registration::new("orders", "10.0.0.7", 8080));
    ///
    /// let in_flight = InFlight::new();
    /// let service = in_flight.named_layer(orders); // a generated server
    /// let leave = async move {
    ///     let _asked = tokio::signal::ctrl_c().await; // or SIGTERM
    ///     let drained = registered.drain_calls(&in_flight, Duration::from_secs(20)).await;
    ///     println!("left with {} calls unfinished", drained.unfinished);
    /// };
    /// // The server stops taking calls once nobody is sent here any more.
    /// let address = "0.0.0.0:8080".parse()?;
    /// Server::builder().add_service(service).serve_with_shutdown(address, leave).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drain_calls(mut self, in_flight: &InFlight, grace: Duration) -> Drained {
        let end = clock::now() + grace.min(GRACE_MAX);
        let left = || end.saturating_duration_since(clock::now());
        let announced = self.announce(ANNOUNCING_MAX.min(grace)).await;
        // Nobody finds what was never registered.
        if self.lease_id().is_some() {
            clock::sleep(SETTLING.min(left())).await;
        }
        // What has not ended by then is told.
        let _ = clock::within(left(), in_flight.wait_idle()).await;
        let unfinished = in_flight.count();
        let deregistered = self.deregister().await;
        Drained { announced, unfinished, deregistered }
    }

    async fn announce(&mut self, limit: Duration) -> bool {
        // Boxed: what waits for it, in a server's future, say, stays small.
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
        assert_eq!((ANNOUNCING_MAX, SETTLING), (Duration::from_secs(1), Duration::from_secs(1)));
    }
}
