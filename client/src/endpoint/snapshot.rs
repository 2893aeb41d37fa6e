//! The instances of a service at one moment. Immutable: a change makes a new snapshot. Calls in
//! flight, connections and health outlive it, in the endpoints.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    coarse_clock::Tick, endpoint::Endpoint, service_stats::ServiceStats,
    weighted::WeightedEndpoints,
};
use crate::proto::{Cursor, Instance};

/// The instances of one service at one position of the registry's history.
///
/// ```
/// use waypost_client::{Instance, Snapshot};
///
/// let instance = |id: &str| Instance { id: id.into(), ..Instance::default() };
/// let snapshot = Snapshot::new([instance("b"), instance("a")]);
/// let ids: Vec<&str> = snapshot.instances().map(|instance| instance.id.as_str()).collect();
/// assert_eq!(ids, ["a", "b"]);
/// assert!(snapshot.instance("a").is_some());
/// ```
#[derive(Debug)]
pub struct Snapshot {
    /// All endpoints, in order of their ids.
    endpoints: Box<[Arc<Endpoint>]>,
    /// The endpoints that take new traffic.
    serving: Arc<WeightedEndpoints>,
    /// The endpoints that the registry does not have (yet), and when they are removed.
    missing: Box<[(Arc<Endpoint>, Instant)]>,
    cursor: Cursor,
    stats: Arc<ServiceStats>,
}

impl Snapshot {
    /// Creates a snapshot of `instances`, for tests and for lists from elsewhere. The last of
    /// several instances with the same id counts. Its cursor is empty.
    ///
    /// ```
    /// use waypost_client::{Instance, Snapshot};
    ///
    /// let with = |weight| Instance { weight: Some(weight), ..Instance::default() };
    /// let snapshot = Snapshot::new([with(1), with(2)]);
    /// assert!(snapshot.instances().map(|instance| instance.weight).eq([Some(2)]));
    /// ```
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        let mut instances = instances.into_iter().peekable();
        let named = |first: &Instance| ServiceStats::new(&first.namespace, &first.service);
        let stats = Arc::new(instances.peek().map(named).unwrap_or_default());
        let mut endpoints: Vec<_> =
            instances.map(|instance| Arc::new(Endpoint::new(instance, &stats))).collect();
        // The sort is stable: after the reversal, the last of equals comes first.
        endpoints.reverse();
        endpoints.sort_by(|a, b| a.instance().id.cmp(&b.instance().id));
        endpoints.dedup_by(|later, first| later.instance().id == first.instance().id);
        Self::sorted(endpoints.into_boxed_slice(), Cursor::default(), stats)
    }

    /// Creates a snapshot of endpoints that are in order of their ids.
    pub(crate) fn sorted(
        endpoints: Box<[Arc<Endpoint>]>,
        cursor: Cursor,
        stats: Arc<ServiceStats>,
    ) -> Self {
        let serving = endpoints.iter().filter(|endpoint| endpoint.is_serving()).cloned();
        let serving = Arc::new(WeightedEndpoints::new(serving));
        assume_latencies(serving.as_slice(), stats.latest());
        Self { endpoints, serving, missing: Box::default(), cursor, stats }
    }

    /// Marks the endpoints that are missing from the registry, in order of their ids.
    pub(crate) fn with_missing(self, missing: Box<[(Arc<Endpoint>, Instant)]>) -> Self {
        Self { missing, ..self }
    }

    /// Returns all instances, with any status, in order of their ids.
    ///
    /// ```
    /// use waypost_client::{Instance, Snapshot, proto::Status};
    ///
    /// let up = Instance { id: "a".into(), status: Status::Up.into(), ..Instance::default() };
    /// let down = Instance { id: "b".into(), status: Status::Down.into(), ..Instance::default() };
    /// let snapshot = Snapshot::new([up, down]);
    /// assert!(snapshot.instances().map(|instance| &*instance.id).eq(["a", "b"]));
    /// ```
    pub fn instances(&self) -> impl ExactSizeIterator<Item = &Instance> {
        self.endpoints.iter().map(|endpoint| endpoint.instance())
    }

    /// Returns the instance with this id. Takes logarithmic time.
    ///
    /// ```
    /// use waypost_client::{Instance, Snapshot, proto::Status};
    ///
    /// let up = Instance { id: "a".into(), status: Status::Up.into(), ..Instance::default() };
    /// let down = Instance { id: "b".into(), status: Status::Down.into(), ..Instance::default() };
    /// let snapshot = Snapshot::new([up, down]);
    /// assert!(snapshot.instance("b").is_some());
    /// assert!(snapshot.instance("c").is_none());
    /// ```
    #[must_use]
    pub fn instance(&self, id: &str) -> Option<&Instance> {
        let found =
            self.endpoints.binary_search_by(|endpoint| endpoint.instance().id.as_str().cmp(id));
        found.ok().map(|index| self.endpoints[index].instance())
    }

    /// Returns the number of instances, with any status.
    ///
    /// ```
    /// use waypost_client::{Instance, Snapshot, proto::Status};
    ///
    /// let up = Instance { id: "a".into(), status: Status::Up.into(), ..Instance::default() };
    /// let down = Instance { id: "b".into(), status: Status::Down.into(), ..Instance::default() };
    /// let snapshot = Snapshot::new([up, down]);
    /// assert_eq!(snapshot.len(), 2);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Returns whether there are no instances.
    ///
    /// ```
    /// assert!(waypost_client::Snapshot::new([]).is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Returns the number of instances that take new traffic: `UP` or `SUSPECT`, with a weight over
    /// 0.
    ///
    /// ```
    /// use waypost_client::{Instance, Snapshot, proto::Status};
    ///
    /// let up = Instance { id: "a".into(), status: Status::Up.into(), ..Instance::default() };
    /// let down = Instance { id: "b".into(), status: Status::Down.into(), ..Instance::default() };
    /// let snapshot = Snapshot::new([up, down]);
    /// assert_eq!(snapshot.serving(), 1);
    /// ```
    #[must_use]
    pub fn serving(&self) -> usize {
        self.serving.len()
    }

    /// Returns the instances that the registry does not have, and how long each stays. They were
    /// known before the registry lost its data, and have until then to register again
    /// ([`Builder::keep_missing_for`](crate::Builder::keep_missing_for)), or longer while the
    /// registry is unreachable. In order of their ids; they are also among [`Self::instances`].
    ///
    /// ```
    /// use waypost_client::Snapshot;
    ///
    /// assert_eq!(Snapshot::new([]).missing().len(), 0);
    /// ```
    pub fn missing(&self) -> impl ExactSizeIterator<Item = (&Instance, Instant)> {
        self.missing.iter().map(|(endpoint, until)| (endpoint.instance(), *until))
    }

    /// Returns the position in the registry's history that this snapshot reflects (and, after the
    /// registry lost its data, that its missing instances add to).
    ///
    /// ```
    /// use waypost_client::Snapshot;
    ///
    /// assert_eq!(Snapshot::new([]).cursor().revision, 0, "one of no registry");
    /// ```
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Returns the instances that take new traffic.
    pub(crate) fn serving_endpoints(&self) -> &Arc<WeightedEndpoints> {
        &self.serving
    }

    pub(crate) fn stats(&self) -> &Arc<ServiceStats> {
        &self.stats
    }
}

/// Assumes the median latency of their peers for new instances: they are neither flooded nor
/// avoided.
fn assume_latencies(serving: &[Arc<Endpoint>], now: Tick) {
    let latencies = serving.iter().map(|endpoint| endpoint.latency().nanos(now));
    let (mut known, unknown): (Vec<f32>, Vec<f32>) = latencies.partition(|nanos| *nanos > 0.0);
    if known.is_empty() || unknown.is_empty() {
        return;
    }
    let middle = known.len() / 2;
    let (_, median, _) = known.select_nth_unstable_by(middle, f32::total_cmp);
    serving.iter().for_each(|endpoint| endpoint.latency().assume(*median, now));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Status;

    fn instance(id: &str, status: Status, weight: Option<u32>) -> Instance {
        let host = "10.0.0.1".into();
        Instance {
            id: id.into(),
            host,
            port: 80,
            status: status.into(),
            weight,
            ..Default::default()
        }
    }

    #[test]
    fn only_up_and_suspect_instances_with_weight_serve() {
        let snapshot = Snapshot::new([
            instance("a", Status::Up, None),
            instance("b", Status::Suspect, Some(1)),
            instance("c", Status::Up, Some(0)),
            instance("d", Status::Draining, None),
            instance("e", Status::Starting, None),
            instance("f", Status::Down, None),
            instance("g", Status::Unspecified, None),
        ]);
        let serving = snapshot.serving_endpoints().as_slice();
        assert!(serving.iter().map(|endpoint| &*endpoint.instance().id).eq(["a", "b"]));
        assert_eq!((snapshot.len(), snapshot.serving()), (7, 2));
    }

    #[test]
    fn an_unknown_status_does_not_serve() {
        let snapshot = Snapshot::new([Instance { status: 77, ..instance("a", Status::Up, None) }]);
        assert_eq!(snapshot.serving(), 0);
    }

    #[test]
    fn the_last_of_equal_ids_counts() {
        let snapshot = Snapshot::new([
            instance("a", Status::Up, Some(1)),
            instance("a", Status::Up, Some(2)),
            instance("a", Status::Up, Some(3)),
        ]);
        assert_eq!(snapshot.len(), 1);
        assert_eq!(snapshot.instance("a").and_then(|instance| instance.weight), Some(3));
    }
}
