//! The instances of a service as a stream of changes for tower's balancers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt, stream};
use tower::discover::Change;

use crate::{
    endpoint::Snapshot,
    proto::Instance,
    service::{Changes, Service},
};

/// The instances of a service that take traffic, as tower's
/// [`Discover`](tower::discover::Discover): first the current ones, then each insertion and
/// removal, by id. Made by [`Service::discover`], with the feature `tower`.
///
/// An instance whose address changes is inserted again under its key, which replaces it. Other
/// changes emit nothing. The stream ends when no further change is possible, as [`Changes::next`]
/// does. It buffers nothing: a slow reader gets all changes since its last read at once.
///
/// A balancer needs services instead of instances: [`map_ok`] converts them.
///
/// [`map_ok`]: https://docs.rs/futures-util/latest/futures_util/stream/trait.TryStreamExt.html
///
/// ```
/// use futures_util::TryStreamExt;
/// use tower::{ServiceExt, balance::p2c::Balance, discover::Change, load::Constant, service_fn};
/// use waypost_client::{Instance, Service, proto::Status};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), tower::BoxError> {
/// # let instance =
/// #     Instance { id: "a".into(), status: Status::Up.into(), ..Instance::default() };
/// # let orders = Service::fixed([instance]);
/// let services = orders.discover().map_ok(|change| match change {
///     Change::Insert(id, instance) => {
///         // Any transport; here one that only returns the id.
///         let call = service_fn(move |()| {
///             std::future::ready(Ok::<_, tower::BoxError>(instance.id.clone()))
///         });
///         Change::Insert(id, Constant::new(call, 1))
///     }
///     Change::Remove(id) => Change::Remove(id),
/// });
/// assert_eq!(Balance::new(services).oneshot(()).await?, "a");
/// # Ok(())
/// # }
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct Discover {
    changes: Pin<Box<dyn Stream<Item = Change<String, Instance>> + Send>>,
}

impl Service {
    /// Returns the instances that take traffic, for tower's balancers. With the feature `tower`.
    /// Keeps the watch alive, as the handle does.
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use tower::discover::Change;
    /// use waypost_client::{Instance, Service, proto::Status};
    ///
    /// # #[tokio::main]
    /// # async fn main() {
    /// let up = Instance { id: "a".into(), status: Status::Up.into(), ..Instance::default() };
    /// let mut changes = Service::fixed([up]).discover();
    /// assert!(matches!(changes.next().await, Some(Ok(Change::Insert(id, _))) if id == "a"));
    /// assert!(changes.next().await.is_none(), "a fixed service has no other");
    /// # }
    /// ```
    pub fn discover(&self) -> Discover {
        let start = (self.changes(), KnownAddresses::default());
        let changes =
            stream::unfold(start, async |(mut changes, mut known): (Changes, KnownAddresses)| {
                let snapshot = changes.next().await?;
                Some((stream::iter(known.update(&snapshot)), (changes, known)))
            });
        // Balancers poll again after the end.
        Discover { changes: Box::pin(changes.flatten().fuse()) }
    }
}

impl Stream for Discover {
    type Item = Result<Change<String, Instance>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.changes.as_mut().poll_next(context).map(|change| change.map(Ok))
    }
}

impl fmt::Debug for Discover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Discover").finish_non_exhaustive()
    }
}

/// The emitted instances: the address of each id.
#[derive(Debug, Default)]
struct KnownAddresses {
    addresses: BTreeMap<String, (String, u32)>,
}

impl KnownAddresses {
    /// Returns the changes to `snapshot`. Removals come first, to make room in a full balancer.
    fn update(&mut self, snapshot: &Snapshot) -> Vec<Change<String, Instance>> {
        let serving: BTreeMap<&str, &Instance> = snapshot
            .serving_endpoints()
            .as_slice()
            .iter()
            .map(|endpoint| (endpoint.instance().id.as_str(), endpoint.instance()))
            .collect();
        let mut changes = Vec::new();
        self.addresses.retain(|id, _| {
            let stays = serving.contains_key(id.as_str());
            if !stays {
                changes.push(Change::Remove(id.clone()));
            }
            stays
        });
        for (id, instance) in serving {
            let address = (instance.host.clone(), instance.port);
            if self.addresses.get(id) != Some(&address) {
                self.addresses.insert(id.to_owned(), address);
                changes.push(Change::Insert(id.to_owned(), instance.clone()));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Status;

    fn instance(id: &str, port: u32, status: Status) -> Instance {
        let (id, status) = (id.into(), status.into());
        Instance { id, host: "h".into(), port, status, ..Instance::default() }
    }

    fn words(changes: &[Change<String, Instance>]) -> Vec<String> {
        let word = |change: &Change<String, Instance>| match change {
            Change::Insert(id, instance) => format!("+{id}:{}", instance.port),
            Change::Remove(id) => format!("-{id}"),
        };
        changes.iter().map(word).collect()
    }

    #[test]
    fn only_serving_instances_and_changes_of_address_are_emitted() {
        let mut before = KnownAddresses::default();
        let mut update = |instances: &[Instance]| {
            words(&before.update(&Snapshot::new(instances.iter().cloned())))
        };
        let (a, b) = (instance("a", 1, Status::Up), instance("b", 1, Status::Starting));
        assert_eq!(update(&[a.clone(), b.clone()]), ["+a:1"]);
        let b = Instance { status: Status::Up.into(), ..b };
        assert_eq!(update(&[a.clone(), b.clone()]), ["+b:1"]);
        let heavier = Instance { weight: Some(7), ..a.clone() };
        assert_eq!(update(&[heavier, b.clone()]), [""; 0]);
        let moved = Instance { port: 2, ..a };
        let draining = Instance { status: Status::Draining.into(), ..b };
        assert_eq!(update(&[moved, draining]), ["-b", "+a:2"]);
        assert_eq!(update(&[]), ["-a"]);
    }
}
