//! Certificates of hostile callers: odd alternative names, and bytes that are no certificate.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair};
use rustls_pki_types::CertificateDer;

use super::{CertificateFields, PeerCertificate};
use crate::policy::{Principal, Unauthenticated};

/// The tags of alternative names.
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

/// A value of DER.
fn der(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[tag, 0x82][..], &length, value].concat()
}

/// Shortest lengths, as DER demands.
fn short(tag: u8, value: &[u8]) -> Vec<u8> {
    match u8::try_from(value.len()) {
        Ok(length @ ..128) => [&[tag, length][..], value].concat(),
        Ok(length) => [&[tag, 0x81, length][..], value].concat(),
        Err(_) => der(tag, value),
    }
}

fn extension(names: &[(u8, &[u8])]) -> CustomExtension {
    let names: Vec<_> = names.iter().flat_map(|(tag, value)| short(*tag, value)).collect();
    CustomExtension::from_oid_content(&[2, 5, 29, 17], short(0x30, &names))
}

/// A certificate with these extensions and the common name `admin`.
fn certificate(extensions: Vec<CustomExtension>) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.custom_extensions = extensions;
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn principal(extensions: Vec<CustomExtension>) -> Result<Principal, Unauthenticated> {
    PeerCertificate::read(&[certificate(extensions)]).principal()
}

#[test]
fn one_spiffe_id_or_one_dns_name_is_a_principal() {
    let longest = format!("spiffe://d/{}", "x".repeat(2048 - 11));
    for (names, expected) in [
        (
            vec![(URI, "spiffe://prod.example/ns/a/sa/B_c-1.d")],
            "spiffe://prod.example/ns/a/sa/B_c-1.d",
        ),
        (vec![(URI, "spiffe://d/...")], "spiffe://d/..."),
        (vec![(URI, &longest)], &longest),
        (vec![(DNS, "ignored.example"), (URI, "spiffe://d/a"), (DNS, "b")], "spiffe://d/a"),
        (vec![(EMAIL, "a@b.c"), (URI, "spiffe://d/a"), (IP, "1234")], "spiffe://d/a"),
        (vec![(DNS, "orders")], "dns/orders"),
        (vec![(DNS, "Orders.SHOP.svc")], "dns/orders.shop.svc"),
        (vec![(IP, "1234"), (DNS, "a_b.c"), (EMAIL, "a@b.c")], "dns/a_b.c"),
    ] {
        let bytes: Vec<_> = names.iter().map(|(tag, name)| (*tag, name.as_bytes())).collect();
        let found = principal(vec![extension(&bytes)]);
        assert_eq!(found.as_ref().map(Principal::as_str), Ok(expected), "{names:?}");
    }
}

#[test]
fn other_uris_are_no_principal() {
    let long = format!("spiffe://d/{}", "x".repeat(2049 - 11));
    let long_domain = format!("spiffe://{}/a", "d".repeat(256));
    for uri in [
        "spiffe://d",
        "spiffe://d/",
        "spiffe:///a",
        "spiffe://",
        "spiffe:/d/a",
        "spiffe:d/a",
        "",
        "SPIFFE://d/a",
        "Spiffe://d/a",
        "spiffe://D/a",
        "spiffe://d//a",
        "spiffe://d/a/",
        "spiffe://d/a//b",
        "spiffe://d/.",
        "spiffe://d/a/./b",
        "spiffe://d/..",
        "spiffe://d/a/../b",
        "spiffe://d/%61",
        "spiffe://d/a%2Fb",
        "spiffe://d/a?b",
        "spiffe://d/a#b",
        "spiffe://d?b/a",
        "spiffe://d#b/a",
        "spiffe://d:80/a",
        "spiffe://u@d/a",
        "spiffe://u:p@d/a",
        "spiffe://d/a:b",
        "spiffe://d/a b",
        " spiffe://d/a",
        "spiffe://d/a\n",
        "spiffe://d/a\0",
        "spiffe://d\0/a",
        "spiffe://d/ä",
        "spiffe://ä/a",
        "spiffe://d/a\\b",
        "spiffe://d/*",
        "spiffe://*/a",
        "spiffe://[::1]/a",
        "spiffe://d/a;b",
        "spiffe://d/a\u{202e}",
        "https://d/a",
        "urn:uuid:1",
        &long,
        &long_domain,
    ] {
        // Nor does a DNS name beside it count.
        for names in [vec![(URI, uri.as_bytes())], vec![(URI, uri.as_bytes()), (DNS, b"orders")]] {
            let found = principal(vec![extension(&names)]);
            assert_eq!(found, Err(Unauthenticated::CertificateNamesNobody), "{uri:?}");
        }
    }
}

#[test]
fn ambiguous_and_missing_names_are_no_principal() {
    let (id, other, host): (&[u8], &[u8], &[u8]) = (b"spiffe://d/a", b"spiffe://d/b", b"orders");
    let long = format!("{}.b", "a".repeat(64));
    for names in [
        vec![],
        vec![(URI, id), (URI, other)],
        vec![(URI, id), (URI, id)],
        vec![(URI, id), (URI, b"\xff")],
        vec![(URI, b"\xff")],
        vec![(URI, b"\xff"), (DNS, host)],
        vec![(URI, b"https://d/a"), (DNS, host)],
        vec![(DNS, host), (DNS, b"other")],
        vec![(DNS, host), (DNS, host)],
        vec![(DNS, host), (DNS, b"\xff")],
        vec![(DNS, host), (0x8f, b"odd")],
        vec![(DNS, b"*.shop.svc")],
        vec![(DNS, b"*")],
        vec![(DNS, b"a.*.svc")],
        vec![(DNS, b"")],
        vec![(DNS, b".")],
        vec![(DNS, b"orders.")],
        vec![(DNS, b"or ders")],
        vec![(DNS, b"orders\0")],
        vec![(DNS, b"orders/../admin")],
        vec![(DNS, "örders".as_bytes())],
        vec![(DNS, b"10.0.0.1")],
        vec![(DNS, b"a..b")],
        vec![(DNS, b"-a")],
        vec![(DNS, long.as_bytes())],
        vec![(IP, &[10, 0, 0, 1])],
        vec![(EMAIL, b"admin@shop.example")],
    ] {
        let found = principal(vec![extension(&names)]);
        assert_eq!(found, Err(Unauthenticated::CertificateNamesNobody), "{names:?}");
    }
    // The common name alone; two extensions; one that is no sequence, is cut, or has more after it.
    let names = [(URI, id)];
    let raw = |bytes: &[u8]| CustomExtension::from_oid_content(&[2, 5, 29, 17], bytes.to_vec());
    let whole = short(0x30, &short(URI, id));
    for extensions in [
        vec![],
        vec![extension(&names), extension(&names)],
        vec![raw(b"")],
        vec![raw(id)],
        vec![raw(&whole[..whole.len() - 1])],
        vec![raw(&[&whole[..], b"\0"].concat())],
        vec![raw(&short(0x30, &[&short(URI, id)[..], &[URI, 9, b'x']].concat()))],
    ] {
        assert_eq!(principal(extensions), Err(Unauthenticated::CertificateNamesNobody));
    }
}

#[test]
fn mutations_of_a_certificate_never_panic() {
    let seed = std::env::var("WAYPOST_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut random = fastrand::Rng::with_seed(seed.unwrap_or(7));
    println!("WAYPOST_SEED={}", random.get_seed());
    let whole = certificate(vec![extension(&[(URI, b"spiffe://d/a"), (DNS, b"b")])]);
    for length in 0..whole.len() {
        assert!(CertificateFields::read(&whole[..length]).is_none(), "{length}");
    }
    let longer = [&whole[..], b"\0"].concat();
    assert!(CertificateFields::read(&longer).is_none());
    for _ in 0..50_000 {
        let mut mutated = whole.to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..mutated.len());
            match random.u8(..4) {
                0 => mutated[at] ^= 1 << random.u8(..8),
                1 => mutated[at] = random.u8(..),
                2 => drop(mutated.remove(at)),
                _ => mutated.insert(at, random.u8(..)),
            }
        }
        let read = PeerCertificate::read(&[mutated.into()]);
        if let Ok(principal) = read.principal() {
            assert!(principal.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{principal}");
        }
    }
}

#[test]
fn chain_without_a_certificate_names_nobody() {
    for chain in [vec![], vec![CertificateDer::from(b"nothing".to_vec())]] {
        let read = PeerCertificate::read(&chain);
        assert_eq!(read.principal(), Err(Unauthenticated::CertificateNamesNobody));
        assert_eq!(read.not_after(), SystemTime::UNIX_EPOCH);
        assert_eq!(read.chain().len(), chain.len());
    }
}

#[test]
fn chain_ends_with_the_first_certificate_that_it_needs() {
    let day = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400);
    let key = || KeyPair::generate().unwrap();
    let params = |name: &str, end: u64| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = (day(1).into(), day(end).into());
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
    };
    let root = rcgen::CertifiedIssuer::self_signed(params("root", 900), key()).unwrap();
    let middle = |end| {
        let own = key();
        rcgen::CertifiedIssuer::signed_by(params("middle", end), own, &root).unwrap()
    };
    let (early, late) = (middle(20), middle(30));
    let unrelated = params("unrelated", 5).self_signed(&key()).unwrap();
    let leaf = |end| params("leaf", end).signed_by(&key(), &late).unwrap().der().clone();
    let chain = [unrelated.der(), early.der(), late.der()].map(Clone::clone);
    for (leaf, others, end) in [
        (leaf(40), &chain[..0], 40),
        (leaf(40), &chain[..1], 40),
        (leaf(40), &chain[..2], 20),
        (leaf(40), &chain[..3], 30),
        (leaf(10), &chain[..3], 10),
    ] {
        let chain: Vec<_> = [&[leaf], others].concat();
        assert_eq!(PeerCertificate::read(&chain).not_after(), day(end), "{end}");
    }
}
