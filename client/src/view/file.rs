//! The file format of a view: encoding and decoding. Pure. Never takes bytes for a view that were
//! not written as the view of the same service.

use prost::{DecodeError, Message};
use sha2::{Digest, Sha256};

use super::cache::INSTANCES_MAX;
use crate::{
    endpoint::Snapshot,
    proto::{Cursor, Instance},
};

/// The first bytes of a view of any format; a byte with the format's version follows.
const MAGIC: &[u8] = b"waypost view ";
const VERSION: u8 = b'1';
const CHECKSUM_BYTES: usize = 32;
/// The longest readable part of a name in a file's name.
const LEGIBLE_MAX: usize = 80;

/// The service of a view.
#[derive(Clone, Debug)]
pub(crate) struct ViewKey {
    pub(crate) namespace: String,
    pub(crate) service: String,
}

/// A view as it was stored.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct StoredView {
    pub(crate) cursor: Cursor,
    /// The instances that the registry knew, in order of their ids.
    pub(crate) registered: Vec<Instance>,
    /// The instances that the registry lacked after it lost its history, in order of their ids.
    pub(crate) missing: Vec<Instance>,
}

/// The part before the instances, each of which is preceded by its length.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    service: String,
    #[prost(message, optional, tag = "3")]
    cursor: Option<Cursor>,
    #[prost(uint64, tag = "4")]
    instances: u64,
    /// The ids of missing instances.
    #[prost(string, repeated, tag = "5")]
    missing: Vec<String>,
}

/// An error of decoding a view.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewError {
    #[error("it is not a view")]
    Foreign,
    #[error("it is a view in another format")]
    Version,
    #[error("it is damaged: its checksum does not match")]
    Checksum,
    #[error("it can't be decoded: {0}")]
    Malformed(#[from] DecodeError),
    #[error("it is the view of another service")]
    OtherService,
    #[error("its instances are too many, out of order, or not those of its head")]
    Instances,
}

impl ViewKey {
    /// Returns the name of the view's file: readable, valid whatever the names contain, and
    /// different for each service.
    pub(crate) fn file_name(&self) -> String {
        let hash = Sha256::new()
            .chain_update(self.namespace())
            .chain_update([0])
            .chain_update(&self.service)
            .finalize();
        let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}.{}.{hash}.view", legible(self.namespace()), legible(&self.service))
    }

    /// The namespace; an empty one is the registry's default.
    fn namespace(&self) -> &str {
        if self.namespace.is_empty() { "default" } else { &self.namespace }
    }
}

/// Returns the readable part of a name. Names that differ only in case give the same one, because
/// some file systems ignore case.
fn legible(name: &str) -> String {
    let harmless = |character: char| match character.to_ascii_lowercase() {
        character if character.is_ascii_alphanumeric() || character == '-' => character,
        _ => '_',
    };
    name.chars().take(LEGIBLE_MAX).map(harmless).collect()
}

/// Encodes the view of `key`.
pub(crate) fn encode(key: &ViewKey, view: &Snapshot) -> Vec<u8> {
    let head = Head {
        namespace: key.namespace().to_owned(),
        service: key.service.clone(),
        cursor: Some(view.cursor().clone()),
        instances: view.len() as u64,
        missing: view.missing().map(|(instance, _)| instance.id.clone()).collect(),
    };
    let mut body = Vec::new();
    let room = "a vector has room";
    head.encode_length_delimited(&mut body).expect(room);
    view.instances().for_each(|instance| instance.encode_length_delimited(&mut body).expect(room));
    [MAGIC, &[VERSION], &Sha256::digest(&body), &body].concat()
}

/// Decodes the view of `key`.
pub(crate) fn decode(key: &ViewKey, bytes: &[u8]) -> Result<StoredView, ViewError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(ViewError::Foreign)?;
    let rest = rest.strip_prefix(&[VERSION]).ok_or(ViewError::Version)?;
    let (checksum, mut body) = rest.split_at_checked(CHECKSUM_BYTES).ok_or(ViewError::Checksum)?;
    if *checksum != *Sha256::digest(body) {
        return Err(ViewError::Checksum);
    }
    let head = Head::decode_length_delimited(&mut body)?;
    if head.namespace != key.namespace() || head.service != key.service {
        return Err(ViewError::OtherService);
    }
    let mut stored =
        StoredView { cursor: head.cursor.unwrap_or_default(), ..StoredView::default() };
    let mut missing = head.missing.into_iter().peekable();
    let mut last: Option<String> = None;
    while !body.is_empty() {
        let instance = Instance::decode_length_delimited(&mut body)?;
        if last.is_some_and(|last| last >= instance.id) {
            return Err(ViewError::Instances);
        }
        last = Some(instance.id.clone());
        let missing = missing.next_if_eq(&instance.id).is_some();
        if missing { &mut stored.missing } else { &mut stored.registered }.push(instance);
    }
    let found = stored.missing.len() + stored.registered.len();
    if found > INSTANCES_MAX || found as u64 != head.instances || missing.next().is_some() {
        return Err(ViewError::Instances);
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::{
        proto::{self, WatchResponse, watch_response::Event},
        runtime::clock,
        view::cache::Cache,
    };

    fn orders() -> ViewKey {
        of("", "orders")
    }

    fn of(namespace: &str, service: &str) -> ViewKey {
        ViewKey { namespace: namespace.into(), service: service.into() }
    }

    fn instance(id: &str) -> Instance {
        Instance { id: id.into(), host: "10.0.0.1".into(), port: 80, ..Instance::default() }
    }

    /// A view with `b` missing from the present history.
    fn view() -> Snapshot {
        let mut cache = Cache::new(Duration::from_secs(15), std::sync::Arc::default());
        for (history, ids) in [("h", vec!["b"]), ("new", vec!["a", "c"])] {
            let instances = ids.into_iter().map(instance).collect();
            let part = proto::Snapshot { instances, last: true };
            let cursor = Some(Cursor { history_id: history.into(), revision: 7 });
            let message = WatchResponse { cursor, event: Some(Event::Snapshot(part)) };
            cache.fold(message, clock::now()).unwrap();
        }
        cache.view()
    }

    #[test]
    fn an_encoded_view_is_decoded() {
        let stored = decode(&orders(), &encode(&orders(), &view())).unwrap();
        let expected = StoredView {
            cursor: Cursor { history_id: "new".into(), revision: 7 },
            registered: vec![instance("a"), instance("c")],
            missing: vec![instance("b")],
        };
        assert_eq!(stored, expected);
    }

    #[test]
    fn an_empty_view_is_valid() {
        let stored = decode(&orders(), &encode(&orders(), &Snapshot::new([]))).unwrap();
        assert_eq!(stored, StoredView::default());
    }

    #[test]
    fn a_truncated_view_is_invalid() {
        let bytes = encode(&orders(), &view());
        for length in 0..bytes.len() {
            assert!(decode(&orders(), &bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(decode(&orders(), &[&*bytes, &[0]].concat()).is_err(), "something follows");
    }

    #[test]
    fn a_view_with_a_flipped_bit_is_invalid() {
        let bytes = encode(&orders(), &view());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&orders(), &damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_error_names_what_is_wrong() {
        let mut bytes = encode(&orders(), &view());
        let others = of("", "others");
        assert!(matches!(decode(&others, &bytes), Err(ViewError::OtherService)));
        let elsewhere = of("shop", "orders");
        assert!(matches!(decode(&elsewhere, &bytes), Err(ViewError::OtherService)));
        bytes[MAGIC.len()] = b'2';
        assert!(matches!(decode(&orders(), &bytes), Err(ViewError::Version)));
        assert!(matches!(decode(&orders(), b"[]"), Err(ViewError::Foreign)));
    }

    /// Any body, with a valid checksum.
    fn sealed(body: &[u8]) -> Vec<u8> {
        [MAGIC, &[VERSION], &Sha256::digest(body), body].concat()
    }

    #[test]
    fn a_valid_checksum_alone_makes_no_view() {
        let body = |instances, missing: &[&str], ids: &[&str]| {
            let (namespace, service) = ("default".into(), "orders".into());
            let missing = missing.iter().map(ToString::to_string).collect();
            let head = Head { namespace, service, cursor: None, instances, missing };
            let mut body = head.encode_length_delimited_to_vec();
            ids.iter().for_each(|id| body.extend(instance(id).encode_length_delimited_to_vec()));
            body
        };
        assert!(decode(&orders(), &sealed(&body(2, &["a"], &["a", "b"]))).is_ok());
        let wrong = [
            body(3, &["a"], &["a", "b"]),
            body(2, &["c"], &["a", "b"]),
            body(2, &[], &["b", "a"]),
            body(2, &[], &["a", "a"]),
        ];
        for body in wrong {
            assert!(matches!(decode(&orders(), &sealed(&body)), Err(ViewError::Instances)));
        }
        let good = body(2, &[], &["a", "b"]);
        for length in 0..good.len() {
            assert!(decode(&orders(), &sealed(&good[..length])).is_err(), "{length} bytes");
        }
        for seed in 0..1_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut body = good.clone();
            let place = random.usize(..body.len());
            body[place] = random.u8(..);
            // Whatever the result, it does not panic.
            let _ = decode(&orders(), &sealed(&body));
        }
    }

    #[test]
    fn each_service_has_a_safe_file_name_of_its_own() {
        let long = "x".repeat(128);
        let names = ["orders", "Orders", "a.b", "a_b", "../../etc/passwd", "", ".", "ü\0", &long];
        let mut files = BTreeSet::new();
        for namespace in names.into_iter().skip(1) {
            for service in names {
                let file = of(namespace, service).file_name();
                assert!(file.len() <= 255, "{file}");
                let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                assert!(file.bytes().all(harmless) && !file.starts_with('.'), "{file}");
                assert!(files.insert(file.to_lowercase()), "{file}");
            }
        }
        let file = orders().file_name();
        assert!(file.starts_with("default.orders."), "{file}");
        assert_eq!(file, of("default", "orders").file_name());
    }
}
