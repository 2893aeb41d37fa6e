//! Fixtures for tests: short constructors, seeds of random tests, and a reader that applies
//! changes.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "fixtures of tests")]

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use crate::{
    model::{
        Change, ChangeKind, Content, Host, Instance, InstanceId, LeaseTerms, Metadata, Name, Parts,
        ServiceKey, Status, Version,
    },
    registry::Patch,
};

/// The service and the id of an instance.
pub type Identity = (ServiceKey, InstanceId);

/// Returns new seeds for a random test, or the one in the environment variable `WAYPOST_SEED`.
pub fn seeds(count: usize) -> Vec<u64> {
    let given = std::env::var("WAYPOST_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("WAYPOST_SEED is a number"));
    given.map_or_else(|| (0..count).map(|_| fastrand::u64(..)).collect(), |seed| vec![seed])
}

/// Runs a random test once for each seed.
pub fn with_seeds(count: usize, test: impl Fn(u64)) {
    for seed in seeds(count) {
        println!("WAYPOST_SEED={seed}");
        test(seed);
    }
}

/// A name.
pub fn name(text: &str) -> Name {
    Name::parse(text, 128).unwrap()
}

/// The key of `namespace/service`, or of `service` in the namespace `default`.
pub fn key(service: &str) -> ServiceKey {
    let (namespace, service) = service.split_once('/').unwrap_or(("default", service));
    ServiceKey { namespace: name(namespace), service: name(service) }
}

/// An instance id.
pub fn id(text: &str) -> InstanceId {
    InstanceId::parse(text, 256).unwrap()
}

/// Content that differs only by its port.
pub fn content(port: u16) -> Content {
    Content::from(&parts(port))
}

/// The parts of [`content`].
pub fn parts(port: u16) -> Parts {
    Parts {
        host: Host::parse("10.0.0.1", 253).unwrap(),
        port: NonZeroU16::new(port).unwrap(),
        ports: Box::default(),
        status: Status::Up,
        zone: None,
        version: Version::parse("", 128).unwrap(),
        weight: 100,
        metadata: Metadata::default(),
    }
}

/// A patch that sets the zone.
pub fn zone(text: &str) -> Patch {
    Patch { zone: Some(Some(name(text))), ..Patch::default() }
}

/// A patch that sets the weight.
pub fn weight(weight: u32) -> Patch {
    Patch { weight: Some(weight), ..Patch::default() }
}

/// A TTL, with 3 s of grace.
pub fn terms(ttl_ms: u64) -> LeaseTerms {
    LeaseTerms { ttl: Duration::from_millis(ttl_ms), disconnect_grace: Duration::from_secs(3) }
}

/// The identity of an instance.
pub fn identity(instance: &Instance) -> Identity {
    (ServiceKey::clone(&instance.service), instance.id.clone())
}

/// Applies a change to a state as a reader does.
///
/// # Panics
///
/// The change does not follow from the state.
pub fn fold(state: &mut BTreeMap<Identity, Instance>, change: &Change) {
    let after = Instance::clone(&change.instance);
    let key = identity(&after);
    match &change.kind {
        ChangeKind::Added => {
            assert_eq!(after.created, after.modified, "{key:?}");
            assert_eq!(state.insert(key, after), None, "the instance existed");
        }
        ChangeKind::Updated { before, .. } => {
            assert_ne!(
                (&before.content, before.presence),
                (&after.content, after.presence),
                "{key:?}"
            );
            assert_eq!(state.insert(key, after).as_ref(), Some(&**before));
        }
        ChangeKind::Removed(_) => {
            let known = state.remove(&key).expect("a known instance is removed");
            assert_eq!(known, Instance { modified: known.modified, ..after });
        }
    }
}
