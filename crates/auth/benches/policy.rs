//! The policy: the rights of a session, and decisions by them. `cargo bench -p waypost-auth`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::{fmt::Write, net::IpAddr, path::Path, time::SystemTime};

use divan::{Bencher, black_box, counter::ItemsCount};
use waypost_auth::policy::{Action, Grants, NewToken, Policy, Principal, Scope};
use waypost_core::model::{Host, ServiceKey};

const WORKLOAD: &str = "spiffe://prod.example/ns/shop/sa/orders";

fn main() {
    divan::main();
}

/// The text of a policy with rules for workloads, for a reader of each of many teams, and for
/// operators.
fn text(rules: usize) -> String {
    let mut text = "[[allow]]\nwho = 'spiffe://prod.example/operators/*'\n\
                    may = ['discover', 'register', 'operate', 'status', 'backup']\non = '*/*'\n"
        .to_owned();
    for team in 0..rules.saturating_sub(3) {
        writeln!(
            text,
            "[[allow]]\nwho = 'spiffe://prod.example/ns/team-{team}/sa/{{service}}'\n\
             may = ['discover']\non = ['team-{team}/*', 'shared/{{service}}']"
        )
        .unwrap();
    }
    text += "[[allow]]\nwho = 'spiffe://prod.example/ns/{namespace}/sa/{service}'\n\
             may = 'register'\non = '{namespace}/{service}'\nhosts = 'peer'\n\
             [[allow]]\nwho = 'spiffe://prod.example/ns/{namespace}/sa/*'\n\
             may = 'discover'\non = ['{namespace}/*', 'shared/*']\n";
    text
}

fn policy(rules: usize) -> Policy {
    Policy::parse(&text(rules), Path::new(".")).unwrap()
}

fn principal() -> Principal {
    Principal::parse(WORKLOAD).unwrap()
}

fn grants() -> Grants {
    policy(100).grants(&principal())
}

fn key(namespace: &str, service: &str) -> ServiceKey {
    ServiceKey { namespace: namespace.parse().unwrap(), service: service.parse().unwrap() }
}

#[divan::bench(args = [10, 100, 4_096])]
fn parse(bencher: Bencher<'_, '_>, rules: usize) {
    let text = text(rules);
    bencher.bench(|| Policy::parse(black_box(&text), Path::new(".")).unwrap());
}

#[divan::bench(args = [10, 100, 4_096])]
fn grants_of_a_session(bencher: Bencher<'_, '_>, rules: usize) {
    let (policy, principal) = (policy(rules), principal());
    bencher.counter(ItemsCount::new(1_usize)).bench(|| policy.grants(black_box(&principal)));
}

#[divan::bench]
fn decide_register_of_own_service(bencher: Bencher<'_, '_>) {
    let (grants, key) = (grants(), key("shop", "orders"));
    bencher.bench(|| black_box(&grants).decide(Action::Register, Scope::Service(black_box(&key))));
}

#[divan::bench]
fn decide_discover_by_the_last_target(bencher: Bencher<'_, '_>) {
    let (grants, key) = (grants(), key("shared", "identity"));
    bencher.bench(|| black_box(&grants).decide(Action::Discover, Scope::Service(black_box(&key))));
}

#[divan::bench]
fn decide_denied(bencher: Bencher<'_, '_>) {
    let (grants, key) = (grants(), key("other", "orders"));
    bencher.bench(|| black_box(&grants).decide(Action::Discover, Scope::Service(black_box(&key))));
}

#[divan::bench]
fn decide_for_an_operator(bencher: Bencher<'_, '_>) {
    let operator = Principal::parse("spiffe://prod.example/operators/ann").unwrap();
    let (grants, key) = (policy(100).grants(&operator), key("shop", "orders"));
    bencher.bench(|| black_box(&grants).decide(Action::Operate, Scope::Service(black_box(&key))));
}

#[divan::bench]
fn decide_with_the_host(bencher: Bencher<'_, '_>) {
    let (grants, key) = (grants(), key("shop", "orders"));
    let host = Host::parse("10.0.0.7", 253).unwrap();
    let peer: Option<IpAddr> = Some("10.0.0.7".parse().unwrap());
    bencher.bench(|| black_box(&grants).decide_register(black_box(&key), black_box(&host), peer));
}

#[divan::bench(args = [1, 100, 10_000])]
fn sight_includes(bencher: Bencher<'_, '_>, services: usize) {
    let on: Vec<String> =
        (0..services).map(|service| format!("'shop/service-{service}'")).collect();
    let rules: Vec<String> = on
        .chunks(1_000)
        .map(|on| format!("[[allow]]\nwho = 'dns/a'\nmay = 'discover'\non = [{}]", on.join(",")))
        .collect();
    let policy = Policy::parse(&rules.join("\n"), Path::new(".")).unwrap();
    let grants = policy.grants(&Principal::parse("dns/a").unwrap());
    let sight = grants.sight(&"shop".parse().unwrap()).unwrap();
    let service = format!("service-{}", services / 2).parse().unwrap();
    bencher.bench(|| black_box(&sight).includes(black_box(&service)));
}

#[divan::bench]
fn authenticate_a_static_token(bencher: Bencher<'_, '_>) {
    let token = NewToken::generate().unwrap();
    let text = format!("[[token]]\nname = 'ci'\nsha256 = '{}'", token.sha256());
    let policy = Policy::parse(&text, Path::new(".")).unwrap();
    let now = SystemTime::UNIX_EPOCH;
    bencher.bench(|| policy.authenticate_token(black_box(token.text()), now).unwrap());
}
