//! Decisions equal those of a naive reference, on a million random cases.
//!
//! `model` makes random policies, `naive` decides on them by the words of the documentation, on
//! texts, character by character.

mod model;
mod naive;

use std::{collections::BTreeMap, net::IpAddr};

use fastrand::Rng;
use waypost_core::{
    model::{Host, Name, ServiceKey},
    testing::{name, with_seeds},
};

use self::{
    model::{NAMESPACES, PolicyModel, SERVICES, random_principal},
    naive::Held,
};
use super::directory;
use crate::policy::{Action, Grants, HostRefusal, Policy, Principal, RegisterDenied, Scope, Sight};

const POLICIES: usize = 500;
const PRINCIPALS: usize = 50;
const CASES: usize = 40;

const HOSTS: [&str; 32] = [
    "10.0.0.7",
    "10.1.2.3",
    "11.0.0.1",
    "192.168.1.1",
    "0.0.0.0",
    "127.0.0.1",
    "127.3.2.1",
    "169.254.169.254",
    "169.253.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "223.255.255.255",
    "::ffff:10.0.0.7",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::ffff:224.0.0.1",
    "::",
    "::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "fd00::7",
    "2001:db8::1",
    "localhost",
    "Orders.LocalHost.",
    "notlocalhost",
    "shop.svc",
    "web-0.SHOP.svc",
    "a.web.shop.svc.",
    "db.example",
];
const PEERS: [Option<&str>; 9] = [
    None,
    Some("10.0.0.7"),
    Some("::ffff:10.0.0.7"),
    Some("10.1.2.3"),
    Some("127.0.0.1"),
    Some("::ffff:127.0.0.1"),
    Some("::1"),
    Some("fd00::7"),
    Some("169.254.169.254"),
];

/// The parsed forms of all texts.
struct Texts {
    namespaces: Vec<Name>,
    keys: Vec<ServiceKey>,
    hosts: Vec<Host>,
}

/// How often each outcome occurred.
type Outcomes = BTreeMap<&'static str, usize>;

#[test]
fn decisions_equal_those_of_a_naive_reference() {
    let directory = directory();
    let namespaces: Vec<Name> = NAMESPACES.iter().map(|text| name(text)).collect();
    let services = SERVICES.iter().map(|text| name(text));
    let key = |service: Name| {
        let of = move |namespace: &Name| (namespace.clone(), service.clone());
        namespaces.iter().map(of).collect::<Vec<_>>()
    };
    let keys = services.flat_map(key);
    let keys = keys.map(|(namespace, service)| ServiceKey { namespace, service }).collect();
    // As they were stored: the parser refuses some of them.
    let hosts = HOSTS.iter().map(|text| Host::stored(text).expect("a host")).collect();
    let texts = Texts { namespaces, keys, hosts };
    with_seeds(1, |seed| {
        let mut random = Rng::with_seed(seed);
        let mut outcomes = Outcomes::new();
        for _ in 0..POLICIES {
            let model = PolicyModel::random(&mut random);
            let text = model.to_string();
            let policy = Policy::parse(&text, directory.path())
                .unwrap_or_else(|errors| panic!("{errors}\n{text}"));
            for _ in 0..PRINCIPALS {
                let principal = random_principal(&mut random);
                compare(&model, &policy, &principal, &texts, &mut random, &mut outcomes);
            }
        }
        println!("{outcomes:?}");
        let cases = outcomes["allowed"] + outcomes["denied"];
        assert_eq!(cases, POLICIES * PRINCIPALS * CASES);
        for (outcome, at_least) in [
            ("allowed", cases / 5),
            ("denied", cases / 5),
            ("register: allowed", 2_000),
            ("register: denied", 5_000),
            ("register: not this host", 2_000),
            ("register: not listed", 1_000),
            ("sight: none", 5_000),
            ("sight: part", 2_000),
            ("sight: whole", 5_000),
        ] {
            let count = outcomes.get(outcome).copied().unwrap_or_default();
            assert!(count >= at_least, "{outcome}: {count}, at least {at_least}");
        }
    });
}

/// Compares the decisions for one principal.
fn compare(
    model: &PolicyModel,
    policy: &Policy,
    principal: &str,
    texts: &Texts,
    random: &mut Rng,
    outcomes: &mut Outcomes,
) {
    let held = Held::new(model, principal);
    let grants = policy.grants(&Principal::parse(principal).expect("a principal"));
    let sights: Vec<_> = texts.namespaces.iter().map(|name| grants.sight(name)).collect();
    for (index, sight) in sights.iter().enumerate() {
        let outcome = match sight {
            None => "sight: none",
            Some(sight) if sight.is_whole() => "sight: whole",
            Some(_) => "sight: part",
        };
        let namespace = NAMESPACES[index];
        assert_eq!(outcome, held.sight(namespace), "{principal} in {namespace}\n{model}");
        let is_seen = grants.decide_any(Action::Discover, &texts.namespaces[index]).is_ok();
        assert_eq!(is_seen, sight.is_some());
        *outcomes.entry(outcome).or_default() += 1;
    }
    for _ in 0..CASES {
        let action = *random.choice(Action::ALL.iter()).expect("an action");
        let index = random.usize(..texts.keys.len());
        let key = &texts.keys[index];
        let scope = match random.u32(..10) {
            0 => Scope::Server,
            1 | 2 => Scope::Namespace(&key.namespace),
            _ => Scope::Service(key),
        };
        let decided = grants.decide(action, scope).ok().map(|line| line.0);
        let expected = held.decide(action, scope);
        let case = || format!("{principal}: {action} {scope:?}\n{model}");
        assert_eq!(decided, expected, "{}", case());
        *outcomes.entry(if decided.is_some() { "allowed" } else { "denied" }).or_default() += 1;
        let Scope::Service(key) = scope else { continue };
        match action {
            Action::Discover => {
                let sight: &Option<Sight> = &sights[index % NAMESPACES.len()];
                let is_seen = sight.as_ref().is_some_and(|sight| sight.includes(&key.service));
                assert_eq!(is_seen, expected.is_some(), "{}", case());
            }
            Action::Register => compare_hosts(&held, &grants, key, texts, random, outcomes),
            _ => {}
        }
    }
}

/// Compares the registration of a service at a random host.
fn compare_hosts(
    held: &Held,
    grants: &Grants,
    key: &ServiceKey,
    texts: &Texts,
    random: &mut Rng,
    outcomes: &mut Outcomes,
) {
    let host = random.choice(&texts.hosts).expect("a host");
    let peer = random.choice(PEERS).expect("a peer");
    let address = peer.map(|peer| peer.parse::<IpAddr>().expect("an address"));
    let decided = grants.decide_register(key, host, address);
    let expected = held.decide_register(key, host.as_str(), peer);
    let outcome = match decided {
        Ok(_) => "register: allowed",
        Err(RegisterDenied::NotAllowed) => "register: denied",
        Err(RegisterDenied::Host(HostRefusal::NotListed)) => "register: not listed",
        Err(RegisterDenied::Host(_)) => "register: not this host",
    };
    let found = (outcome, decided.ok().map(|line| line.0));
    assert_eq!(found, expected, "{key} at {host:?} from {peer:?}: {decided:?}");
    *outcomes.entry(outcome).or_default() += 1;
}
