//! The handle to one service: its view, and picks from it.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{changes::Changes, watched::WatchedService};
use crate::{
    balance::{Balancer, NoInstance, Pick, PickContext, Policy, Selection, Subset},
    endpoint::{Endpoint, Snapshot},
    metrics::ServiceMetrics,
    proto::{Filter, Instance},
    registry::Refusal,
    runtime::{clock, hash::hash},
    transport::Dialer,
    view::{Freshness, SelectedView, ViewProgress},
};

/// The delay before a pick looks again for an ejected instance that can be probed.
const EJECTED_PAUSE: Duration = Duration::from_millis(100);

/// An error of waiting for a service.
///
/// ```no_run
/// use waypost_client::{Client, ReadyError};
///
/// # async fn example(client: Client) -> Result<(), ReadyError> {
/// match client.service("no such name").ready().await {
///     Err(ReadyError::Refused(refusal)) => eprintln!("a mistake: {refusal}"),
///     other => other?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// The registry refuses the watch: the name is not valid for a service, for example. The client
    /// retries from time to time.
    #[error("the registry refused the watch: {0}")]
    Refused(#[source] Refusal),
    /// The watch ended, with the runtime that it ran in.
    #[error("the watch has ended")]
    Stopped,
}

/// A handle to a service: its instances, and picks among them.
///
/// Cheap to clone. All handles of a [`Client`](crate::Client) to the same service share one watch,
/// which ends with the last of them. The view outlives outages of the registry: it stays as it was,
/// and changes again when the registry is back.
///
/// ```no_run
/// use waypost_client::{Client, PickContext};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new("http://127.0.0.1:7510")?;
/// let orders = client.service("orders");
/// orders.ready().await?;
/// let pick = orders.pick(&PickContext::new())?;
/// println!("calling {} at {}", pick.instance().id, pick.address());
/// // ... the call ...
/// drop(pick);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Service {
    watched: Arc<WatchedService>,
    selected: Arc<SelectedView>,
    balancer: Arc<Balancer>,
}

impl Service {
    pub(crate) fn new(watched: Arc<WatchedService>) -> Self {
        let selected = Arc::clone(watched.published.unfiltered());
        Self { watched, selected, balancer: Arc::new(Balancer::new(Policy::default())) }
    }

    /// Creates a service with these instances and no registry, for tests of code that takes a
    /// `Service`.
    ///
    /// ```
    /// use waypost_client::{Instance, PickContext, Service, proto::Status};
    ///
    /// let instance = |id: &str| Instance {
    ///     id: id.into(),
    ///     host: "10.0.0.1".into(),
    ///     port: 8080,
    ///     status: Status::Up.into(),
    ///     ..Instance::default()
    /// };
    /// let service = Service::fixed([instance("a"), instance("b")]);
    /// assert!(service.pick(&PickContext::new()).is_ok());
    /// ```
    pub fn fixed(instances: impl IntoIterator<Item = Instance>) -> Self {
        Self::new(WatchedService::fixed(Snapshot::new(instances)))
    }

    /// The same service with another policy. The view stays shared; calls in flight count for all
    /// handles.
    ///
    /// ```
    /// # use waypost_client::{Policy, Service};
    /// let service = Service::fixed([]).with_policy(Policy::RoundRobin);
    /// # drop(service);
    /// ```
    #[must_use]
    pub fn with_policy(&self, policy: Policy) -> Self {
        Self { balancer: Arc::new(Balancer::new(policy)), ..self.clone() }
    }

    /// The same service with choices that follow from `seed`, for tests. Set the policy first.
    ///
    /// ```
    /// use waypost_client::{Instance, PickContext, Service, proto::Status};
    ///
    /// let instance = |id: char| Instance {
    ///     id: id.into(),
    ///     status: Status::Up.into(),
    ///     ..Instance::default()
    /// };
    /// let service = Service::fixed(('a'..='z').map(instance));
    /// let picked = |service: Service| -> Vec<String> {
    ///     let pick = || service.pick(&PickContext::new()).expect("there are 26");
    ///     (0..10).map(|_| pick().instance().id.clone()).collect()
    /// };
    /// assert_eq!(picked(service.with_seed(7)), picked(service.with_seed(7)));
    /// ```
    #[must_use]
    pub fn with_seed(&self, seed: u64) -> Self {
        let balancer = Balancer::seeded(self.balancer.policy(), seed);
        Self { balancer: Arc::new(balancer), ..self.clone() }
    }

    /// The same service, restricted to the instances that match all criteria of `filter`, as the
    /// registry defines them. An empty filter matches all.
    ///
    /// ```
    /// use waypost_client::{Filter, Instance, NoInstance, PickContext, Service, proto::Status};
    ///
    /// let up = Instance { version: "1".into(), status: Status::Up.into(), ..Instance::default() };
    /// let second = Filter { versions: vec!["2".into()], ..Filter::default() };
    /// let service = Service::fixed([up]).with_filter(second);
    /// let none = service.pick(&PickContext::new()).unwrap_err();
    /// assert_eq!(none, NoInstance::AllFiltered { serving: 1 });
    /// ```
    #[must_use]
    pub fn with_filter(&self, filter: Filter) -> Self {
        self.with_selection(Selection { filter, ..self.selected.selection().clone() })
    }

    /// The same service for a caller in `zone`. Calls stay in the zone as long as it has its share
    /// of the instances (by weight: a third of three zones). If it has less, the surplus of calls
    /// goes to the zones that have more, so that all instances have the same load if each zone
    /// makes as many calls as the next. If most preferred instances are ejected, or the zone has
    /// none, calls go to all.
    ///
    /// ```
    /// use waypost_client::{Instance, PickContext, Service, proto::Status};
    ///
    /// let instance = |id: &str, zone: &str| Instance {
    ///     id: id.into(),
    ///     zone: zone.into(),
    ///     status: Status::Up.into(),
    ///     ..Instance::default()
    /// };
    /// let all = Service::fixed([instance("a", "east"), instance("b", "west")]);
    /// let service = all.with_zone("west");
    /// for _ in 0..100 {
    ///     assert_eq!(service.pick(&PickContext::new())?.instance().id, "b");
    /// }
    /// # Ok::<(), waypost_client::NoInstance>(())
    /// ```
    #[must_use]
    pub fn with_zone(&self, zone: impl Into<String>) -> Self {
        self.with_selection(Selection {
            zone: Some(zone.into()),
            ..self.selected.selection().clone()
        })
    }

    /// The same service, restricted to `size` of its instances (at least one), so that of many
    /// callers and many instances not each has a connection to each. The choice follows from
    /// `caller`, a name that is unique to this caller and should stay the same after a restart. An
    /// instance that comes or goes changes at most one of the choices. If most of them are ejected,
    /// calls go to all.
    ///
    /// ```
    /// use std::collections::BTreeSet;
    /// use waypost_client::{Instance, PickContext, Service, proto::Status};
    ///
    /// let instance = |id: char| Instance {
    ///     id: id.into(),
    ///     status: Status::Up.into(),
    ///     ..Instance::default()
    /// };
    /// let service = Service::fixed(('a'..='z').map(instance)).with_subset(5, "gateway-3");
    /// let called: BTreeSet<String> = (0..1_000)
    ///     .map(|_| Ok(service.pick(&PickContext::new())?.instance().id.clone()))
    ///     .collect::<Result<_, waypost_client::NoInstance>>()?;
    /// assert_eq!(called.len(), 5);
    /// # Ok::<(), waypost_client::NoInstance>(())
    /// ```
    #[must_use]
    pub fn with_subset(&self, size: usize, caller: impl AsRef<[u8]>) -> Self {
        let subset = Subset { size: size.max(1), caller: hash(caller.as_ref()) };
        self.with_selection(Selection { subset: Some(subset), ..self.selected.selection().clone() })
    }

    /// The same service with slow start: an instance that begins to take traffic gets a tenth of
    /// its share of calls at first, and all of it after `window`. For instances that have to warm
    /// up. Time advances with what calls [report](Pick::report) and with messages of the registry,
    /// at least every 10 s while it is reachable. Default: zero, no slow start.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::Service;
    /// let service = Service::fixed([]).with_slow_start(Duration::from_secs(30));
    /// # drop(service);
    /// ```
    #[must_use]
    pub fn with_slow_start(&self, window: Duration) -> Self {
        self.with_selection(Selection { slow_start: window, ..self.selected.selection().clone() })
    }

    fn with_selection(&self, selection: Selection) -> Self {
        Self { selected: self.watched.published.select(selection), ..self.clone() }
    }

    /// The name of the service; for a [fixed](Self::fixed) one that of its first instance.
    ///
    /// ```
    /// use waypost_client::{Instance, Service};
    ///
    /// let instance = Instance { service: "orders".into(), ..Instance::default() };
    /// assert_eq!(Service::fixed([instance]).name(), "orders");
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.watched.name
    }

    /// Waits until the instances are known for the first time. Returns at once after that, also
    /// while the registry is unreachable. A service without instances is ready too.
    ///
    /// Waits for as long as the registry can't be reached: to bound it, wrap it in
    /// [`tokio::time::timeout`]. Cancel safe.
    ///
    /// # Errors
    /// [`ReadyError::Refused`] if the registry refuses the watch, [`ReadyError::Stopped`] if the
    /// runtime of the watch has ended.
    ///
    /// ```
    /// # use waypost_client::{ReadyError, Service};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), ReadyError> {
    /// Service::fixed([]).ready().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ready(&self) -> Result<(), ReadyError> {
        let mut progress = self.watched.published.progress();
        let settled = |progress: &ViewProgress| {
            progress.views > 0 || progress.refusal.is_some() || progress.ended
        };
        let reached = progress.wait_for(settled).await.map_err(|_| ReadyError::Stopped)?;
        match &reached.refusal {
            _ if reached.views > 0 => Ok(()),
            Some(refusal) if !reached.ended => Err(ReadyError::Refused(refusal.clone())),
            _ => Err(ReadyError::Stopped),
        }
    }

    /// The latest view; `None` before the first one.
    ///
    /// ```
    /// # use waypost_client::Service;
    /// let snapshot = Service::fixed([]).snapshot();
    /// assert!(snapshot.is_some_and(|snapshot| snapshot.is_empty()));
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.watched.published.snapshot().load_full()
    }

    /// The freshness of the view, now and whenever it changes. Does not keep the watch alive.
    ///
    /// ```no_run
    /// # async fn example(orders: waypost_client::Service) {
    /// if let Some(since) = orders.freshness().borrow().stale_since() {
    ///     eprintln!("orders: as they were {:?} ago", since.elapsed());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn freshness(&self) -> watch::Receiver<Freshness> {
        self.watched.published.freshness()
    }

    /// Picks an instance for a call. Never waits, takes no lock, allocates nothing and needs no
    /// runtime; takes constant time with most policies.
    ///
    /// # Errors
    /// [`NoInstance`] with the reason.
    ///
    /// ```
    /// # use waypost_client::{Instance, PickContext, proto::Status};
    /// # let up = Instance { id: "a".into(), status: Status::Up.into(), ..Instance::default() };
    /// let pick = Service::fixed([up]).pick(&PickContext::new())?;
    /// assert_eq!(pick.instance().id, "a");
    ///
    /// # use waypost_client::{NoInstance, Service};
    /// let none = Service::fixed([]).pick(&PickContext::new()).unwrap_err();
    /// assert_eq!(none, NoInstance::Empty);
    /// # Ok::<(), NoInstance>(())
    /// ```
    pub fn pick(&self, context: &PickContext<'_>) -> Result<Pick, NoInstance> {
        let candidates = self.selected.candidates().load();
        let picked = match candidates.as_ref() {
            Some(candidates) => self.balancer.pick(candidates, context),
            None => Err(NoInstance::NotReady),
        };
        match picked {
            Ok(pick) => Ok(pick),
            Err(none) => self.pick_late(none, context),
        }
    }

    /// Picks again with the present time, if all are ejected: time advances with calls only, and
    /// without calls a probe may be due unnoticed.
    #[cold]
    fn pick_late(
        &self,
        mut none: NoInstance,
        context: &PickContext<'_>,
    ) -> Result<Pick, NoInstance> {
        if let NoInstance::AllEjected { .. } = none
            && let Some(candidates) = self.selected.candidates().load().as_ref()
        {
            candidates.advance(clock::now());
            match self.balancer.pick(candidates, context) {
                Ok(pick) => return Ok(pick),
                Err(still) => none = still,
            }
        }
        self.metrics().pick_failed();
        Err(none)
    }

    /// Picks an instance, or waits for one, at most for `max`. Cancel safe.
    ///
    /// # Errors
    /// [`NoInstance`] with the reason at the end.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::{NoInstance, PickContext, Service};
    /// # #[tokio::main]
    /// # async fn main() {
    /// let service = Service::fixed([]);
    /// let waited = service.wait_for_ready(&PickContext::new(), Duration::from_millis(5)).await;
    /// assert_eq!(waited.unwrap_err(), NoInstance::Empty);
    /// # }
    /// ```
    pub async fn wait_for_ready(
        &self,
        context: &PickContext<'_>,
        max: Duration,
    ) -> Result<Pick, NoInstance> {
        let mut changes = self.changes();
        let found = async {
            loop {
                match self.pick(context) {
                    Ok(pick) => return Ok(pick),
                    // Only time ends that.
                    Err(NoInstance::AllEjected { .. }) => clock::sleep(EJECTED_PAUSE).await,
                    // No other view can come.
                    Err(none) if changes.next().await.is_none() => return Err(none),
                    Err(_) => {}
                }
            }
        };
        clock::within(max, found).await.unwrap_or_else(|| self.pick(context))
    }

    /// Picks an instance for a call that starts now. Reads the clock: after a time without calls a
    /// probe may be due.
    #[cfg(any(feature = "tower", feature = "http", feature = "reqwest"))]
    pub(crate) fn pick_now(&self, context: &PickContext<'_>) -> Result<Pick, NoInstance> {
        if let Some(candidates) = self.selected.candidates().load().as_ref() {
            candidates.advance(clock::now());
        }
        self.pick(context)
    }

    /// Picks an instance that `suits` the call; none if none does.
    pub(crate) fn pick_where(
        &self,
        context: &PickContext<'_>,
        suits: impl Fn(&Endpoint) -> bool,
    ) -> Result<Option<Pick>, NoInstance> {
        let candidates = self.selected.candidates().load();
        let candidates = candidates.as_ref().ok_or(NoInstance::NotReady)?;
        candidates.advance(clock::now());
        self.balancer.pick_where(candidates, context, suits)
    }

    pub(crate) fn metrics(&self) -> &ServiceMetrics {
        self.watched.published.stats().metrics()
    }

    /// The slowest response lately.
    pub(crate) fn slowest_answer(&self) -> Duration {
        let stats = self.watched.published.stats();
        stats.slowest().latest(stats.latest())
    }

    /// Returns whether there is such an instance among those that calls may go to.
    pub(crate) fn has(&self, such: impl Fn(&Endpoint) -> bool) -> bool {
        let candidates = self.selected.candidates().load();
        candidates.as_ref().is_some_and(|candidates| candidates.any(such))
    }

    /// Returns a stream of the views of the service. Keeps the watch alive, as the handle does.
    ///
    /// ```no_run
    /// # async fn example(orders: waypost_client::Service) {
    /// let mut changes = orders.changes();
    /// while let Some(snapshot) = changes.next().await {
    ///     println!("{} instances", snapshot.len());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes::new(&self.watched)
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.watched.dialer
    }
}
