//! A writer: the only one of its identities, one request at a time, without a pause.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use fastrand::Rng;
use prost_types::FieldMask;
use tonic::{Code, transport::Channel};
use waypost_client::proto::{
    self, DeregisterRequest, HeartbeatRequest, Instance, RegisterRequest, UpdateRequest,
    registry_client::RegistryClient,
};
use waypost_testing::{
    registry::{Identity, millis},
    wait::soon,
};

use crate::durability::{
    is_broken,
    ledger::{IdentityState, Ledger},
    view::{BUSY_SERVICES, NAMESPACES},
    write::{Request, Write, content},
};

/// The number of ids of each service.
const IDS: usize = 3;
/// Long enough that no lease runs out in a test.
const TTL_MS: u64 = 300_000;
const STATUSES: [proto::Status; 4] =
    [proto::Status::Starting, proto::Status::Up, proto::Status::Draining, proto::Status::Down];
const ZONES: [&str; 3] = ["", "eu-1", "eu-2"];

/// A writer and the responses that it got.
pub(crate) struct Writer {
    number: usize,
    random: Rng,
    identities: Vec<Identity>,
    pub(crate) ledger: Ledger,
    /// The number of writes; makes each content unique.
    begun: u32,
    pub(crate) taken: u64,
    pub(crate) refused: u64,
}

impl Writer {
    pub(crate) fn new(number: usize, random: Rng) -> Self {
        let services = NAMESPACES.into_iter().flat_map(|namespace| {
            BUSY_SERVICES.into_iter().map(move |service| (namespace, service))
        });
        let identities = services.flat_map(|(namespace, service)| {
            (0..IDS)
                .map(move |id| (namespace.to_owned(), service.to_owned(), format!("{number}-{id}")))
        });
        let identities = identities.collect();
        let ledger = Ledger::default();
        Self { number, random, identities, ledger, begun: 0, taken: 0, refused: 0 }
    }

    /// Writes until the connection breaks, which nothing but the kill may do.
    pub(crate) async fn work(&mut self, channel: Channel, killed: &AtomicBool) {
        let mut registry = RegistryClient::new(channel);
        loop {
            self.begun += 1;
            let write = self.any_write();
            match write.send(&mut registry).await {
                Ok(answer) => {
                    self.ledger.answered(&write, answer);
                    self.taken += 1;
                }
                Err(status) if is_broken(&status) => {
                    assert!(killed.load(Ordering::Relaxed), "it broke by itself: {status}");
                    return self.ledger.doubt(write);
                }
                Err(status) => {
                    assert_eq!(Some(status.code()), write.refusal, "{write:?}: {status}");
                    self.refused += 1;
                }
            }
        }
    }

    /// Renews every lease that it had. Returns those that the registry does not know.
    pub(crate) async fn renew(&self, channel: Channel) -> Vec<u64> {
        let request = HeartbeatRequest { lease_ids: self.ledger.leases() };
        let answer = soon("a heartbeat", RegistryClient::new(channel).heartbeat(request)).await;
        answer.expect("answered").into_inner().unknown_lease_ids
    }

    fn any_write(&mut self) -> Write {
        let identity = self.identities[self.random.usize(..self.identities.len())].clone();
        let random = &mut self.random;
        let state = self.ledger.states.get(&identity);
        let gone = random.choice(&self.ledger.gone).copied();
        let new = any_content(self.number, self.begun, random, &identity);
        let (request, refusal) = match (random.u8(..20), state, gone) {
            (0, ..) => (register(Instance { port: 0, ..new }), Some(Code::InvalidArgument)),
            (1, _, Some(gone)) => (leave_or_change(gone, random, new), Some(Code::NotFound)),
            (2, None, _) => {
                let request = if random.bool() {
                    deregister(0, &identity)
                } else {
                    update(0, &identity, &["status"], new)
                };
                (request, Some(Code::NotFound))
            }
            (2, Some(IdentityState { fenced, .. }), _) if !fenced.is_empty() => {
                let fenced = fenced[random.usize(..fenced.len())];
                (leave_or_change(fenced, random, new), Some(Code::FailedPrecondition))
            }
            (_, None, _) => (register(new), None),
            (kind, Some(state), _) => (any_change(kind, random, &identity, state, new), None),
        };
        Write { identity, request, refusal }
    }
}

/// A change of an existing instance.
fn any_change(
    kind: u8,
    random: &mut Rng,
    identity: &Identity,
    state: &IdentityState,
    new: Instance,
) -> Request {
    // By its lease, or as an operator does.
    let lease = state.lease.filter(|_| random.bool()).unwrap_or(0);
    match kind {
        ..=5 => register(new),
        6..=7 => register(content(&state.instance)),
        8..=10 => update(lease, identity, &["status"], new),
        11..=13 => update(lease, identity, &["metadata"], new),
        14..=15 => update(lease, identity, &["weight", "version", "zone"], new),
        16 => update(lease, identity, &["weight", "metadata"], content(&state.instance)),
        _ => deregister(lease, identity),
    }
}

/// A request with an ended lease, which must be refused.
fn leave_or_change(lease: u64, random: &mut Rng, new: Instance) -> Request {
    let nobody = Identity::default();
    if random.bool() {
        deregister(lease, &nobody)
    } else {
        update(lease, &nobody, &["metadata"], new)
    }
}

/// A content that no other write has.
fn any_content(writer: usize, number: u32, random: &mut Rng, identity: &Identity) -> Instance {
    let (namespace, service, id) = identity.clone();
    let metadata = BTreeMap::from([
        ("write".to_owned(), format!("{writer}-{number}")),
        ("filling".to_owned(), "x".repeat(random.usize(..600))),
    ]);
    Instance {
        namespace,
        service,
        id,
        host: format!("10.0.{writer}.{}", random.u8(..)),
        port: random.u32(1..=65_535),
        ports: BTreeMap::from([("metrics".to_owned(), random.u32(1..=65_535))]),
        status: STATUSES[random.usize(..STATUSES.len())].into(),
        zone: ZONES[random.usize(..ZONES.len())].to_owned(),
        version: format!("1.{number}"),
        weight: Some(random.u32(..1_000)),
        metadata,
        ..Instance::default()
    }
}

fn register(instance: Instance) -> Request {
    let (instance, ttl) = (Some(instance), Some(millis(TTL_MS)));
    Request::Register(Box::new(RegisterRequest { instance, ttl, disconnect_grace: None }))
}

/// By the lease, or where that is 0, by the identity.
fn update(lease_id: u64, identity: &Identity, paths: &[&str], new: Instance) -> Request {
    let (namespace, service, id) = identity.clone();
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    Request::Update(Box::new(UpdateRequest {
        lease_id,
        namespace,
        service,
        id,
        instance: Some(new),
        update_mask: Some(FieldMask { paths }),
    }))
}

/// By the lease, or where that is 0, by the identity.
fn deregister(lease_id: u64, identity: &Identity) -> Request {
    let (namespace, service, id) = identity.clone();
    Request::Deregister(DeregisterRequest { lease_id, namespace, service, id })
}
