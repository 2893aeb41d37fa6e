//! The description of an instance to register, and changes to it. Checks nothing: the registry
//! does, and names every invalid field.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;

use crate::proto::{self, Instance, RegisterRequest, Status};

/// An instance to register with [`Client::register`](crate::Client::register): its address, and
/// what callers should know about it.
///
/// ```
/// use std::time::Duration;
/// use waypost_client::Registration;
///
/// let registration = Registration::new("orders", "10.0.0.7", 8080)
///     .id("orders-7")
///     .zone("eu-1a")
///     .version("2.4.1")
///     .weight(200)
///     .metadata("shard", "7")
///     .port("metrics", 9090)
///     .ttl(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "nothing is registered before Client::register takes it"]
pub struct Registration<R = FixedStatus> {
    pub(crate) instance: Instance,
    pub(crate) ttl: Option<Duration>,
    pub(crate) disconnect_grace: Option<Duration>,
    /// The readiness stream.
    ready: R,
}

impl Registration {
    /// Creates the description of a replica of `service` at `host` (an IP address, IPv6 without
    /// brackets, or a DNS name) and `port`. All else has a default.
    ///
    /// ```
    /// # use waypost_client::Registration;
    /// let by_address = Registration::new("orders", "2001:db8::7", 8080);
    /// let by_name = Registration::new("orders", "orders-7.internal", 8080);
    /// ```
    pub fn new(service: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        let instance = Instance {
            service: service.into(),
            host: host.into(),
            port: port.into(),
            ..Instance::default()
        };
        Self { instance, ttl: None, disconnect_grace: None, ready: FixedStatus }
    }
}

impl<R> Registration<R> {
    /// Sets the id, which is unique among the replicas of the service. Default: a UUID that the
    /// client generates when it registers. Up to 256 bytes, no control characters.
    ///
    /// Only one process at a time can hold an id: the last one to register. A process that it
    /// replaces logs a warning with the other's address, and is registered again only once the
    /// other is gone ([`RegistrationState::Replaced`](crate::RegistrationState::Replaced)).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::{Registration, proto::Status};
    /// let registration = Registration::new("orders", "10.0.0.7", 8080).id("orders-7");
    /// ```
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.instance.id = id.into();
        self
    }

    /// Sets the failure domain that the replica runs in. Default: none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::{Registration, proto::Status};
    /// let registration = Registration::new("orders", "10.0.0.7", 8080).zone("eu-1a");
    /// ```
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.instance.zone = zone.into();
        self
    }

    /// Sets the version of the software. Default: none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::{Registration, proto::Status};
    /// let registration = Registration::new("orders", "10.0.0.7", 8080).version("2.4.1");
    /// ```
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.instance.version = version.into();
        self
    }

    /// Sets the share of traffic relative to the other replicas; a replica with 0 gets no new
    /// traffic. Default: 100.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::{Registration, proto::Status};
    /// let registration = Registration::new("orders", "10.0.0.7", 8080).weight(200);
    /// ```
    pub fn weight(mut self, weight: u32) -> Self {
        self.instance.weight = Some(weight);
        self
    }

    /// Adds an entry that callers can read and filter by; replaces one with the same key. Up to 64
    /// entries, keys of 128 and values of 4096 bytes, 16 KiB in all. Default: none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::{Registration, proto::Status};
    /// let registration = Registration::new("orders", "10.0.0.7", 8080).metadata("shard", "7");
    /// ```
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.instance.metadata.insert(key.into(), value.into());
        self
    }

    /// Adds a named port, besides the main one. Default: none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::{Registration, proto::Status};
    /// let registration = Registration::new("orders", "10.0.0.7", 8080).port("metrics", 9090);
    /// ```
    pub fn port(mut self, name: impl Into<String>, port: u16) -> Self {
        self.instance.ports.insert(name.into(), port.into());
        self
    }

    /// Sets the status: whether the replica takes traffic. Default: `UP`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::{Registration, proto::Status};
    /// let registration = Registration::new("orders", "10.0.0.7", 8080).status(Status::Starting);
    /// ```
    pub fn status(mut self, status: Status) -> Self {
        self.instance.status = status.into();
        self
    }

    /// Sets the time that the registration lives without a heartbeat: 1 s to 5 min; the registry
    /// refuses anything else. Default: 15 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::{Registration, proto::Status};
    /// let registration = Registration::new("orders", "10.0.0.7", 8080);
    /// let registration = registration.ttl(Duration::from_secs(10));
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the time that the registration survives the end of the stream that carries its
    /// heartbeats; at most the TTL. Default: 3 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::{Registration, proto::Status};
    /// let registration = Registration::new("orders", "10.0.0.7", 8080);
    /// let registration = registration.disconnect_grace(Duration::from_secs(1));
    /// ```
    pub fn disconnect_grace(mut self, grace: Duration) -> Self {
        self.disconnect_grace = Some(grace);
        self
    }

    /// Lets the status follow the application's readiness: `STARTING` until the stream's first
    /// `true`, then `UP` after a `true` and `DOWN` after a `false`. When the stream ends, the last
    /// status stays. Default: the status as set.
    ///
    /// The client sends each change until the registry has confirmed it, and skips changes that
    /// were superseded. A new registration has the present status. A status that is set by hand
    /// stays until the stream's next change; [`Registered::drain`](crate::Registered::drain) stops
    /// following the stream.
    ///
    /// With a watch channel:
    ///
    /// ```
    /// use tokio::sync::watch;
    /// use tokio_stream::wrappers::WatchStream;
    /// use waypost_client::{Client, Registration};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = Client::new("http://127.0.0.1:7510")?;
    /// let (ready, readiness) = watch::channel(false);
    /// let registration = Registration::new("orders", "10.0.0.7", 8080)
    ///     .ready_when(WatchStream::new(readiness));
    /// let registered = client.register_in_background(registration);
    /// // ... fill the caches ...
    /// ready.send_replace(true);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// With the health service of the process (`tonic-health`), without a call over the network:
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use tonic::Request;
    /// use tonic_health::{
    ///     ServingStatus,
    ///     pb::{HealthCheckRequest, health_server::Health},
    ///     server::{HealthReporter, HealthService},
    /// };
    /// use waypost_client::{Client, Registration};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = Client::new("http://127.0.0.1:7510")?;
    /// let reporter = HealthReporter::new();
    /// reporter.set_service_status("orders", ServingStatus::NotServing).await;
    ///
    /// let health = HealthService::from_health_reporter(reporter.clone());
    /// let request = HealthCheckRequest { service: "orders".into() };
    /// let watch = health.watch(Request::new(request)).await?.into_inner();
    /// let serving = ServingStatus::Serving as i32;
    /// let ready = watch.map(move |answer| answer.is_ok_and(|answer| answer.status == serving));
    ///
    /// let registration = Registration::new("orders", "10.0.0.7", 8080).ready_when(ready);
    /// let registered = client.register_in_background(registration);
    /// reporter.set_service_status("orders", ServingStatus::Serving).await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn ready_when<S: Stream<Item = bool>>(self, ready: S) -> Registration<S> {
        let Self { mut instance, ttl, disconnect_grace, ready: _ } = self;
        instance.set_status(Status::Starting);
        Registration { instance, ttl, disconnect_grace, ready }
    }

    /// Separates the registration from its readiness stream.
    pub(crate) fn split(self) -> (Registration, R) {
        let Self { instance, ttl, disconnect_grace, ready } = self;
        (Registration { instance, ttl, disconnect_grace, ready: FixedStatus }, ready)
    }

    pub(crate) fn request(&self) -> RegisterRequest {
        RegisterRequest {
            instance: Some(self.instance.clone()),
            ttl: self.ttl.map(duration),
            disconnect_grace: self.disconnect_grace.map(duration),
        }
    }
}

/// The readiness of a [`Registration`](crate::Registration) without a stream: the status is as set.
/// As a stream, it ends at once.
///
/// ```
/// use waypost_client::{FixedStatus, Registration};
///
/// fn replica(port: u16) -> Registration<FixedStatus> {
///     Registration::new("orders", "10.0.0.7", port)
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FixedStatus;

impl Stream for FixedStatus {
    type Item = bool;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<bool>> {
        Poll::Ready(None)
    }
}

/// Converts a duration. One that does not fit is over any limit, and the registry refuses it.
fn duration(duration: Duration) -> prost_types::Duration {
    let most = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
    duration.try_into().unwrap_or(most)
}

/// Changes to a registered instance, for [`Registered::update`](crate::Registered::update).
///
/// ```
/// use waypost_client::{Update, proto::Status};
///
/// let update = Update::new().status(Status::Draining).weight(0);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "nothing changes before Registered::update takes it"]
pub struct Update {
    status: Option<Status>,
    weight: Option<u32>,
    metadata: Option<std::collections::BTreeMap<String, String>>,
    version: Option<String>,
    zone: Option<String>,
}

impl Update {
    /// Creates an update without changes. Fields that are not set stay as they are.
    ///
    /// ```
    /// # use waypost_client::{Update, proto::Status};
    /// let update = Update::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the status: whether the replica takes traffic.
    ///
    /// ```
    /// # use waypost_client::{Update, proto::Status};
    /// let update = Update::new().status(Status::Draining);
    /// ```
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Sets the share of traffic relative to the other replicas; a replica with 0 gets no new
    /// traffic.
    ///
    /// ```
    /// # use waypost_client::{Update, proto::Status};
    /// let update = Update::new().weight(0);
    /// ```
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Replaces all metadata.
    ///
    /// ```
    /// # use waypost_client::{Update, proto::Status};
    /// let update = Update::new().metadata([("shard", "8")]);
    /// ```
    pub fn metadata<K: Into<String>, V: Into<String>>(
        mut self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key.into(), value.into()));
        self.metadata = Some(entries.collect());
        self
    }

    /// Sets the version of the software.
    ///
    /// ```
    /// # use waypost_client::{Update, proto::Status};
    /// let update = Update::new().version("2.4.2");
    /// ```
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Sets the failure domain that the replica runs in.
    ///
    /// ```
    /// # use waypost_client::{Update, proto::Status};
    /// let update = Update::new().zone("eu-1b");
    /// ```
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Applies the changes to `instance`.
    pub(crate) fn apply(&self, instance: &mut Instance) {
        if let Some(status) = self.status {
            instance.set_status(status);
        }
        if self.weight.is_some() {
            instance.weight = self.weight;
        }
        if let Some(metadata) = &self.metadata {
            instance.metadata.clone_from(metadata);
        }
        if let Some(version) = &self.version {
            instance.version.clone_from(version);
        }
        if let Some(zone) = &self.zone {
            instance.zone.clone_from(zone);
        }
    }

    /// Restores the changed fields of `instance` from `before`.
    pub(crate) fn undo(&self, instance: &mut Instance, before: &Instance) {
        if self.status.is_some() {
            instance.status = before.status;
        }
        if self.weight.is_some() {
            instance.weight = before.weight;
        }
        if self.metadata.is_some() {
            instance.metadata.clone_from(&before.metadata);
        }
        if self.version.is_some() {
            instance.version.clone_from(&before.version);
        }
        if self.zone.is_some() {
            instance.zone.clone_from(&before.zone);
        }
    }

    pub(crate) fn request(&self, lease_id: u64) -> proto::UpdateRequest {
        let mut instance = Instance::default();
        self.apply(&mut instance);
        let fields = [
            ("status", self.status.is_some()),
            ("weight", self.weight.is_some()),
            ("metadata", self.metadata.is_some()),
            ("version", self.version.is_some()),
            ("zone", self.zone.is_some()),
        ];
        let paths = fields.iter().filter(|(_, set)| *set).map(|(path, _)| (*path).to_owned());
        proto::UpdateRequest {
            lease_id,
            instance: Some(instance),
            update_mask: Some(prost_types::FieldMask { paths: paths.collect() }),
            ..proto::UpdateRequest::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_requests_exactly_its_changes() {
        let request = Update::new().weight(0).zone("b").request(7);
        assert_eq!(request.lease_id, 7);
        assert_eq!(request.update_mask.unwrap().paths, ["weight", "zone"]);
        let instance = request.instance.unwrap();
        assert_eq!((instance.weight, instance.zone.as_str()), (Some(0), "b"));
        assert!(Update::new().is_empty());
        assert!(!Update::new().metadata([("a", "b")]).is_empty());
    }

    #[test]
    fn an_update_leaves_other_fields_unchanged() {
        let before = Registration::new("orders", "h", 1).zone("a").metadata("k", "v").instance;
        let mut after = before.clone();
        Update::new().status(Status::Draining).apply(&mut after);
        assert_eq!(after.status(), Status::Draining);
        assert_eq!(Instance { status: before.status, ..after }, before);
    }

    #[test]
    fn undoing_an_update_keeps_other_changes() {
        let before = Registration::new("orders", "h", 1).zone("a").metadata("k", "v").instance;
        let mut now = before.clone();
        let update = Update::new().weight(7).zone("b").version("2").metadata([("l", "w")]);
        update.apply(&mut now);
        now.set_status(Status::Draining);
        update.undo(&mut now, &before);
        assert_eq!(now.status(), Status::Draining);
        Update::new().status(Status::Draining).undo(&mut now, &before);
        assert_eq!(now, before);
    }

    #[test]
    fn unset_fields_are_left_to_the_registry() {
        let request = Registration::new("orders", "h", 1).request();
        assert_eq!((request.ttl, request.disconnect_grace), (None, None));
        let instance = request.instance.unwrap();
        assert_eq!((instance.status, instance.weight, instance.id.as_str()), (0, None, ""));
    }

    #[test]
    fn an_endless_ttl_is_sent_as_the_longest() {
        let request = Registration::new("orders", "h", 1).ttl(Duration::MAX).request();
        assert_eq!(request.ttl.unwrap().seconds, i64::MAX);
    }
}
