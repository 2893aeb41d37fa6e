//! The handle to one service: its view, and picks from it. All handles of a client to one service
//! share one watch, which must never outlive the last of them.

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

/// How often to look whether an instance that failed is to be tried again.
const EJECTED_PAUSE: Duration = Duration::from_millis(100);

/// Why a service did not become ready.
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
    /// The registry refuses to tell: the name is not one that a service can have, say. It is asked
    /// again from time to time.
    #[error("the registry refused the watch: {0}")]
    Refused(#[source] Refusal),
    /// The watch ended, with the runtime that it ran in.
    #[error("the watch has ended")]
    Stopped,
}

/// A service, as its callers see it: who its instances are, and which one to call.
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

    /// A service whose instances are these for ever, without a registry: for tests of code that
    /// takes a `Service`.
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

    /// The same service, its calls spread in another way. The view stays shared; calls in flight
    /// count for all handles.
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

    /// The same service, its choices made by randomness that begins with `seed`: the same each time,
    /// for tests. Set the policy first.
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

    /// The same service, but only those of its instances that match: all that is given, as the
    /// registry has it. An empty filter lets all through.
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

    /// The same service for a caller in `zone`: calls stay there as long as the zone has its share of
    /// the instances (by weight: of three zones a third). Where it has less, so many calls go to the
    /// zones that have more that all instances are loaded alike, if each zone makes as many calls as
    /// the next. Where most of the instances fail that calls would go to, and where the zone has none,
    /// calls go to all.
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
    /// let service = Service::fixed([instance("a", "east"), instance("b", "west")]).with_zone("west");
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

    /// The same service, but no more than `size` of its instances (at least one): so that of many
    /// callers and many instances not each has a connection to each. Which ones follows from `caller`,
    /// a name that tells this caller from the others and should outlive its restarts; an instance that
    /// comes or goes changes at most one of them. Where most of them fail, calls go to all.
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

    /// The same service, with instances that begin to take traffic getting a tenth of their share of
    /// calls at first, and more as time passes: all of it after `window`. For services whose instances
    /// have to warm up. Time passes with what calls [report](Pick::report) and with what the registry
    /// says, every 10 s at least while it is there. Default: zero, all at once.
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

    /// The service's name: the one that it was asked for, or the one of the first
    /// [fixed](Self::fixed) instance.
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

    /// Waits until the instances are known for the first time; then, and ever after, returns at
    /// once, also while the registry is away. A service without instances is ready too.
    ///
    /// Waits for as long as the registry can't be reached: to bound it, wrap it in
    /// [`tokio::time::timeout`]. Cancel safe.
    ///
    /// # Errors
    /// [`ReadyError::Refused`] where the registry refuses to tell, [`ReadyError::Stopped`] where the
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

    /// The instances as they are now known; `None` before they are known for the first time.
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

    /// Whether the view is up to date, now and whenever that changes. Does not keep the watch alive: when
    /// the last handle is gone, it ends.
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

    /// Chooses an instance for a call. Never waits, takes no lock, allocates nothing and needs no
    /// runtime; takes constant time with most policies.
    ///
    /// # Errors
    /// [`NoInstance`] says why there is none.
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

    /// Where there is `none`: whose time is over is known by the clock, where no call tells what time it
    /// is.
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

    /// The same for a call that can wait: where there is no instance, until there is one, but no longer
    /// than `max`. Cancel safe.
    ///
    /// # Errors
    /// [`NoInstance`] says why there was none in the end.
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
                    // Time alone ends that.
                    Err(NoInstance::AllEjected { .. }) => clock::sleep(EJECTED_PAUSE).await,
                    // No other view can come.
                    Err(none) if changes.next().await.is_none() => return Err(none),
                    Err(_) => {}
                }
            }
        };
        clock::within(max, found).await.unwrap_or_else(|| self.pick(context))
    }

    /// Chooses an instance for a call that begins now. However long nobody called: who was left alone
    /// may be due for a probe.
    #[cfg(any(feature = "tower", feature = "http", feature = "reqwest"))]
    pub(crate) fn pick_now(&self, context: &PickContext<'_>) -> Result<Pick, NoInstance> {
        if let Some(candidates) = self.selected.candidates().load().as_ref() {
            candidates.advance(clock::now());
        }
        self.pick(context)
    }

    /// The same, what `suits` the call; none where none does.
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

    /// The slowest answer lately.
    pub(crate) fn slowest_answer(&self) -> Duration {
        let stats = self.watched.published.stats();
        stats.slowest().latest(stats.latest())
    }

    /// Whether there is such an instance among those that a call may go to.
    pub(crate) fn has(&self, such: impl Fn(&Endpoint) -> bool) -> bool {
        let candidates = self.selected.candidates().load();
        candidates.as_ref().is_some_and(|candidates| candidates.any(such))
    }

    /// Tells when the instances change. Keeps the watch alive, as the handle does.
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
