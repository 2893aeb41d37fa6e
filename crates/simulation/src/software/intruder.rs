//! A hostile client with a valid token of a service of its own. It has the ids of others' leases
//! and tries everything on them; nothing of it may have an effect, or show what it may not see.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::Code;
use waypost_client::proto::{
    Cursor, DeregisterRequest, GetStatusRequest, Instance, ListServicesRequest,
    ReleaseProtectionRequest, ResolveRequest, UpdateRequest, WatchRequest,
    admin_client::AdminClient, discovery_client::DiscoveryClient, watch_response,
};

use super::{
    probe::{PATIENCE, Probe},
    stubs::{Answer, Registry, broken, settled},
};
use crate::{
    access::{INTRUDER_SERVICE, ServiceName},
    journal::Identity,
    network::connection::Wire,
};

/// The time for which it reads a watch.
const READING_MAX: Duration = Duration::from_millis(300);

/// What a hostile client has.
#[derive(Debug)]
pub(crate) struct Loot {
    /// Others' leases, present, fenced and ended, of this and earlier starts of the registry.
    pub(crate) leases: Vec<(u64, Identity)>,
    /// The only service of others that it may discover.
    pub(crate) visible: ServiceName,
    /// All services.
    pub(crate) services: Vec<ServiceName>,
    /// A cursor of somebody else.
    pub(crate) cursor: Cursor,
}

impl Probe {
    /// Tries a few acts, in random order.
    pub(crate) async fn intrude(mut self, loot: Loot) {
        // A missing response means nothing.
        let _broken = timeout(PATIENCE, self.talk_of_intrusion(&loot)).await;
    }

    async fn talk_of_intrusion(&mut self, loot: &Loot) -> Answer<()> {
        let mut registry = Registry::open(&self.process).await?;
        let mut instance = self.instance(1);
        INTRUDER_SERVICE.clone_into(&mut instance.service);
        instance.id = format!("own-{}", self.number);
        let own = registry.register(&instance, 15_000, 1_000).await?;
        for _ in 0..self.random.u8(2..5) {
            sleep(Duration::from_millis(self.random.u64(..400))).await;
            match self.random.u8(..8) {
                0 | 1 => self.renew_others(&mut registry, own, loot).await?,
                2 | 3 => self.break_others(&mut registry, own, loot).await?,
                4 => self.write_leases(&mut registry, loot).await?,
                5 => self.write_identities(&mut registry, loot).await?,
                6 => self.administer(&registry, loot).await?,
                _ => self.spy(&registry, loot).await?,
            }
        }
        let removed = registry.deregister(own).await?;
        self.check("its own lease is its own", &removed, removed == Ok(()));
        Ok(())
    }

    /// All leases that it has or guesses, with its own one somewhere among them.
    fn ids(&mut self, own: u64, loot: &Loot) -> Vec<u64> {
        let mut ids: Vec<u64> = loot.leases.iter().map(|(lease, _)| *lease).collect();
        ids.push(0);
        let place = self.random.usize(..=ids.len());
        ids.insert(place, own);
        ids
    }

    fn check_unknown(&self, how: &str, ids: &[u64], unknown: &[u64], own: u64) {
        let expected: Vec<u64> = ids.iter().copied().filter(|id| *id != own).collect();
        self.check(how, &(ids, unknown), unknown == expected);
    }

    /// Ids beside known ones, which may be anything.
    fn guesses(&mut self, ids: &[u64]) -> Vec<u64> {
        let bit = 1 << self.random.u32(..64);
        ids.iter().flat_map(|id| [id ^ bit, id.wrapping_add(1), id.wrapping_sub(1)]).collect()
    }

    async fn renew_others(&mut self, registry: &mut Registry, own: u64, loot: &Loot) -> Answer<()> {
        let ids = self.ids(own, loot);
        let unknown = registry.unknown(ids.clone()).await?;
        self.check_unknown("others' leases are unknown to a call", &ids, &unknown, own);
        let _any = registry.unknown(self.guesses(&ids)).await?;
        Ok(())
    }

    /// Renews over a stream, and breaks it.
    async fn break_others(&mut self, registry: &mut Registry, own: u64, loot: &Loot) -> Answer<()> {
        let mut beats = registry.beats().await?;
        let ids = self.ids(own, loot);
        for _ in 0..self.random.u8(1..3) {
            let unknown = beats.unknown(ids.clone()).await?;
            self.check_unknown("others' leases are unknown to a stream", &ids, &unknown, own);
            let _any = beats.unknown(self.guesses(&ids)).await?;
        }
        drop(beats);
        // Its own lease has lost its stream as well.
        let unknown = registry.unknown(vec![own]).await?;
        self.check("its own lease lives", &unknown, unknown.is_empty());
        Ok(())
    }

    async fn write_leases(&mut self, registry: &mut Registry, loot: &Loot) -> Answer<()> {
        for (lease, identity) in &loot.leases {
            if self.random.u8(..4) > 0 {
                continue;
            }
            let updated = registry.update(*lease, 666).await?;
            let right = updated == Err(Code::NotFound);
            self.check("another's lease updates nothing", &(identity, updated), right);
            let removed = registry.deregister(*lease).await?;
            let right = removed == Err(Code::NotFound);
            self.check("another's lease deregisters nothing", &(identity, removed), right);
        }
        Ok(())
    }

    async fn write_identities(&mut self, registry: &mut Registry, loot: &Loot) -> Answer<()> {
        let denied = Err(Code::PermissionDenied);
        for (_, Identity { namespace, service, id }) in loot.leases.iter().rev().take(8) {
            let (namespace, service, id) = (namespace.clone(), service.clone(), id.clone());
            let instance = Instance {
                namespace: namespace.clone(),
                service: service.clone(),
                id: id.clone(),
                ..self.instance(666)
            };
            let taken = registry.try_register(&instance).await?;
            self.check("it registers nothing of others", &taken, taken == denied);
            let request = UpdateRequest {
                namespace: namespace.clone(),
                service: service.clone(),
                id: id.clone(),
                instance: Some(Instance { weight: Some(666), ..Instance::default() }),
                update_mask: Some(prost_types::FieldMask { paths: vec!["weight".to_owned()] }),
                lease_id: 0,
            };
            let updated = settled(registry.stub.update(request).await)?.map(drop);
            self.check("it updates no identity", &updated, updated == denied);
            let request = DeregisterRequest { lease_id: 0, namespace, service, id };
            let removed = settled(registry.stub.deregister(request).await)?.map(drop);
            self.check("it evicts nobody", &removed, removed == denied);
        }
        Ok(())
    }

    async fn administer(&mut self, registry: &Registry, loot: &Loot) -> Answer<()> {
        let denied = Err(Code::PermissionDenied);
        let mut admin = AdminClient::with_origin(registry.wire.clone(), Wire::origin());
        let status = settled(admin.get_status(GetStatusRequest {}).await)?.map(drop);
        self.check("it reads no status", &status, status == denied);
        let namespace = loot.visible.0.clone();
        let request = ReleaseProtectionRequest { namespace };
        let released = settled(admin.release_protection(request).await)?.map(drop);
        self.check("it releases nothing", &released, released == denied);
        Ok(())
    }

    async fn spy(&mut self, registry: &Registry, loot: &Loot) -> Answer<()> {
        let denied = Err(Code::PermissionDenied);
        let mut discovery = DiscoveryClient::with_origin(registry.wire.clone(), Wire::origin());
        for named in &loot.services {
            let (namespace, service) = named.clone();
            let request = ResolveRequest {
                namespace: namespace.clone(),
                service: service.clone(),
                ..ResolveRequest::default()
            };
            let resolved = settled(discovery.resolve(request).await)?.map(drop);
            let right = if *named == loot.visible { Ok(()) } else { denied };
            self.check("it resolves what it may see", &(named, resolved), resolved == right);
            let services = vec![loot.visible.1.clone(), service];
            let seen = self.watch(&mut discovery, loot, namespace, services).await?;
            let right = *named == loot.visible || seen == Err(Code::PermissionDenied);
            self.check("it watches what it may see", &(named, &seen), right);
        }
        let (namespace, visible) = loot.visible.clone();
        let seen = self.watch(&mut discovery, loot, namespace.clone(), Vec::new()).await?;
        let is_right = |seen: &Vec<Identity>| seen.iter().all(|one| one.service == visible);
        let right = seen.as_ref().is_ok_and(is_right);
        self.check("a namespace is cut to what it may see", &seen, right);
        let request = ListServicesRequest { namespace, ..ListServicesRequest::default() };
        let listed = settled(discovery.list_services(request).await)?;
        let right =
            listed.as_ref().is_ok_and(|list| list.services.iter().all(|one| one.name == visible));
        self.check("a list is cut to what it may see", &listed, right);
        Ok(())
    }

    /// Watches with a cursor of somebody else. Returns everything that it is shown.
    async fn watch(
        &mut self,
        discovery: &mut DiscoveryClient<Wire>,
        loot: &Loot,
        namespace: String,
        services: Vec<String>,
    ) -> Answer<Result<Vec<Identity>, Code>> {
        let resume = self.random.bool().then(|| loot.cursor.clone());
        let request = WatchRequest { namespace, services, resume, ..WatchRequest::default() };
        let mut stream = match settled(discovery.watch(request).await)? {
            Ok(stream) => stream,
            Err(code) => return Ok(Err(code)),
        };
        let mut seen = Vec::new();
        while let Ok(message) = timeout(READING_MAX, stream.message()).await {
            let Some(message) = message.map_err(broken)? else { break };
            match message.event {
                Some(watch_response::Event::Snapshot(part)) => {
                    seen.extend(part.instances.iter().map(Identity::of));
                }
                Some(watch_response::Event::Changes(changes)) => {
                    let instances = changes.changes.iter().filter_map(|one| one.instance.as_ref());
                    seen.extend(instances.map(Identity::of));
                }
                _ => {}
            }
        }
        Ok(Ok(seen))
    }
}
