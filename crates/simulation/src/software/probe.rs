//! Probes of the registry over a link without faults, in which every response is certain
//! beforehand: renewals, deadlines, fencing. A missing response, after a kill of the registry, ends
//! the probe and proves nothing.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::{sleep, timeout};
use tonic::Code;
use waypost_client::proto::{
    DeregisterRequest, GetStatusRequest, Instance, ReleaseProtectionRequest,
    admin_client::AdminClient,
};

use super::stubs::{Answer, Beats, Broken, Registry, broken, settled};
use crate::{
    access::PROBES,
    journal::{Event, Identity, Journal, Lapse},
    network::connection::Wire,
    network::socket::Process,
    time::HostClock,
};

/// Longer than any stall of the registry.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// A conversation to come.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Makes names that no other probe has.
    pub(crate) number: u64,
    pub(crate) process: Process,
    pub(crate) clock: HostClock,
    pub(crate) journal: Journal,
    pub(crate) random: Rng,
}

/// The ways to renew a lease.
#[derive(Clone, Copy)]
pub(super) enum Renewal {
    Call,
    Update,
    Stream,
}

impl Probe {
    /// An instance of a service that has no other.
    pub(super) fn instance(&self, weight: u32) -> Instance {
        Instance {
            namespace: PROBES.to_owned(),
            service: format!("probe-{}", self.number),
            id: "it".to_owned(),
            host: "10.0.0.2".to_owned(),
            port: 80,
            weight: Some(weight),
            ..Instance::default()
        }
    }

    pub(super) fn check(&self, what: &str, seen: &impl std::fmt::Debug, right: bool) {
        let event = if right {
            Event::Answered { checks: 1 }
        } else {
            Event::Wrong(format!("{what}: seen {seen:?} (probe-{})", self.number))
        };
        self.journal.write(self.clock.now(), event);
    }

    /// Takes an identity over and tries what the fenced lease still does.
    pub(crate) async fn fence(mut self) {
        let talk = timeout(PATIENCE, self.talk_of_fencing()).await;
        // A missing response means nothing.
        let _broken = talk;
    }

    async fn talk_of_fencing(&mut self) -> Answer<()> {
        let mut registry = Registry::open(&self.process).await?;
        let (ttl_ms, grace_ms) = (15_000, 3_000);
        let old = registry.register(&self.instance(1), ttl_ms, grace_ms).await?;
        let mut beats = registry.beats().await?;
        let unknown = beats.unknown(vec![old]).await?;
        self.check("a living lease is renewed over a stream", &unknown, unknown.is_empty());
        // Half of the time the content stays the same, and watchers see nothing.
        let weight = if self.random.bool() { 1 } else { 2 };
        let new = registry.register(&self.instance(weight), ttl_ms, grace_ms).await?;
        self.check("a take-over grants another lease", &new, new != old);
        let unknown = registry.unknown(vec![old, new]).await?;
        self.check("of a fenced and a living lease one is unknown", &unknown, unknown == [old]);
        let unknown = beats.unknown(vec![old]).await?;
        self.check("a fenced lease is unknown over its stream", &unknown, unknown == [old]);
        let updated = registry.update(old, 77).await?;
        let fenced = Err(Code::FailedPrecondition);
        self.check("a fenced lease updates nothing", &updated, updated == fenced);
        let removed = registry.deregister(old).await?;
        self.check("a fenced lease deregisters nothing", &removed, removed == fenced);
        let weights = registry.weights(&self.instance(0)).await?;
        self.check("what a fenced lease tried had no effect", &weights, weights == [weight]);
        let updated = registry.update(new, 3).await?;
        self.check("a living lease updates", &updated, updated == Ok(()));
        let weights = registry.weights(&self.instance(0)).await?;
        self.check("a read sees the write before it", &weights, weights == [3]);
        let removed = registry.deregister(new).await?;
        self.check("a living lease deregisters", &removed, removed == Ok(()));
        let weights = registry.weights(&self.instance(0)).await?;
        self.check("what was deregistered is gone", &weights, weights.is_empty());
        let unknown = registry.unknown(vec![old, new]).await?;
        self.check("ended leases are unknown", &unknown, unknown == [old, new]);
        let updated = registry.update(new, 4).await?;
        self.check("an ended lease updates nothing", &updated, updated == Err(Code::NotFound));
        Ok(())
    }

    /// Removes an identity as an operator does.
    pub(crate) async fn evict(self, identity: Identity) {
        let Identity { namespace, service, id } = identity;
        let request = DeregisterRequest { lease_id: 0, namespace, service, id };
        let asked = async {
            let mut registry = Registry::open(&self.process).await?;
            settled(registry.stub.deregister(request).await)
        };
        if let Ok(Ok(evicted)) = timeout(PATIENCE, asked).await {
            let right = matches!(evicted, Ok(_) | Err(Code::NotFound));
            self.check("an operator evicts what is there", &evicted, right);
        }
    }

    /// Checks the number of held instances of a namespace in the status.
    pub(crate) async fn protection(self, namespace: String, held: u64) {
        let asked = async {
            let wire = Registry::open(&self.process).await?.wire;
            let mut admin = AdminClient::with_origin(wire, Wire::origin());
            let status = admin.get_status(GetStatusRequest {}).await.map_err(broken)?;
            Ok::<_, Broken>(status.into_inner().protection)
        };
        if let Ok(Ok(told)) = timeout(PATIENCE, asked).await {
            let seen = told.iter().find(|one| one.namespace == namespace).map(|one| one.held);
            self.check("the status tells of what is held", &told, seen.unwrap_or(0) == held);
        }
    }

    /// Releases the held instances of a namespace and checks their number.
    pub(crate) async fn release(self, namespace: String, held: u64) {
        let asked = async {
            let wire = Registry::open(&self.process).await?.wire;
            let mut admin = AdminClient::with_origin(wire, Wire::origin());
            let request = ReleaseProtectionRequest { namespace };
            let released = admin.release_protection(request).await.map_err(broken)?;
            Ok::<_, Broken>(released.into_inner().evicted)
        };
        if let Ok(Ok(evicted)) = timeout(PATIENCE, asked).await {
            self.check("all that is held is released", &evicted, evicted == held);
        }
    }

    /// Leases that have to be unknown by now.
    pub(crate) async fn ended(self, leases: Vec<u64>) {
        let asked = async {
            let mut registry = Registry::open(&self.process).await?;
            registry.unknown(leases.clone()).await
        };
        if let Ok(Ok(unknown)) = timeout(PATIENCE, asked).await {
            let right = unknown == leases;
            self.check("leases that were given up for others are unknown", &unknown, right);
        }
    }

    /// Renews a lease for a while and then no more: it has to end when its time is over.
    pub(crate) async fn lapse(mut self) {
        let talk = timeout(PATIENCE, self.talk_until_lapse()).await;
        if let Ok(Ok((lapse, _registry, _beats))) = talk {
            self.journal.write(self.clock.now(), Event::Lapsing(lapse));
            // Connection and stream stay open meanwhile.
            sleep(PATIENCE).await;
        }
    }

    async fn talk_until_lapse(&mut self) -> Answer<(Lapse, Registry, Beats)> {
        let ttl_ms = [1_000, 1_500, 2_000, 3_000, 5_000, 15_000][self.random.usize(..6)];
        let grace_ms = self.random.u64(..=ttl_ms);
        let instance = self.instance(1);
        let mut registry = Registry::open(&self.process).await?;
        let mut began = self.clock.now();
        let lease = registry.register(&instance, ttl_ms, grace_ms).await?;
        let mut renewed = (began, self.clock.now());
        let mut beats = registry.beats().await?;
        let mut by_stream = false;
        for _ in 0..self.random.u8(..5) {
            let wait_ms = self.random.u64(..=ttl_ms * 9 / 10);
            sleep(Duration::from_millis(wait_ms)).await;
            began = self.clock.now();
            let renewal = [Renewal::Call, Renewal::Update, Renewal::Stream][self.random.usize(..3)];
            let lives = match renewal {
                Renewal::Call => registry.unknown(vec![lease]).await?.is_empty(),
                Renewal::Update => registry.update(lease, 1).await? == Ok(()),
                Renewal::Stream => beats.unknown(vec![lease]).await?.is_empty(),
            };
            by_stream = matches!(renewal, Renewal::Stream);
            renewed = (began, self.clock.now());
            // If the registry was stalled, the renewal may have come too late.
            let in_time = wait_ms + 200 < ttl_ms && renewed.1 < began + 200;
            self.check("a lease that is renewed in time lives", &lives, lives || !in_time);
            if !lives {
                return Err(Broken);
            }
        }
        let mut broken = None;
        if by_stream && self.random.bool() {
            let now = self.clock.now();
            self.process.kill();
            broken = Some((now, grace_ms));
        }
        let identity = Identity::of(&instance);
        Ok((Lapse { identity, renewed, ttl_ms, broken }, registry, beats))
    }
}
