//! Malformed policies, principals and headers: no panic, and errors that are bounded.

use fastrand::Rng;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use waypost_core::{
    model::Host,
    testing::{key, with_seeds},
};

use super::{EXAMPLE, directory};
use crate::policy::{Action, Policy, Principal, Scope};

const ROUNDS: usize = 2_000;

/// Texts that change the meaning of a policy where they stand.
const PARTS: [&str; 24] = [
    "*",
    "**",
    "{",
    "}",
    "{namespace}",
    "{service}",
    "/",
    "//",
    ":",
    "\"",
    "'",
    "[",
    "]",
    "[[",
    "=",
    "\n",
    "\0",
    "\u{202e}",
    "\\",
    "#",
    "-",
    ".",
    "99999999999999999999",
    "true",
];

/// Changes a text at random places.
fn mutated(random: &mut Rng, text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..random.usize(1..3) {
        let start = random.usize(..=characters.len());
        let end = (start + random.usize(..12)).min(characters.len());
        match random.u32(..4) {
            0 => drop(characters.drain(start..end)),
            1 => {
                let copy = characters[start..end].to_vec();
                let to = random.usize(..=characters.len());
                characters.splice(to..to, copy);
            }
            2 => {
                let part = random.choice(PARTS).expect("a part");
                characters.splice(start..start, part.chars());
            }
            _ => {
                let part = random.choice(PARTS).expect("a part");
                characters.splice(start..end, part.chars());
            }
        }
    }
    characters.into_iter().collect()
}

#[test]
fn malformed_policy_is_an_error_and_never_a_panic() {
    let directory = directory();
    let (host, service) = (Host::parse("10.0.0.7", 253).expect("a host"), key("shop/orders"));
    with_seeds(1, |seed| {
        let mut random = Rng::with_seed(seed);
        let mut valid = 0;
        for _ in 0..ROUNDS {
            let text = mutated(&mut random, EXAMPLE);
            let policy = match Policy::parse(&text, directory.path()) {
                Ok(policy) => policy,
                Err(errors) => {
                    assert!((1..100).contains(&errors.0.len()), "{errors}");
                    let lines = text.lines().count().max(1);
                    let mut all = errors.0.iter().filter_map(|error| error.line);
                    assert!(all.all(|line| (1..=lines + 1).contains(&line)), "{errors}\n{text}");
                    continue;
                }
            };
            valid += 1;
            let workload = "spiffe://prod.example/ns/shop/sa/orders";
            let Ok(principal) = Principal::parse(&mutated(&mut random, workload)) else { continue };
            let grants = policy.grants(&principal);
            let _ = grants.decide_register(&service, &host, None);
            let _ = grants.sight(&service.namespace);
            let explained = policy.explain(&principal, Action::Register, Scope::Service(&service));
            let _ = (grants.describe(), policy.principal_limits(&principal), explained);
        }
        assert!(valid * 50 > ROUNDS && valid < ROUNDS, "{valid} of {ROUNDS} are valid");
    });
}

#[test]
fn malformed_authorization_is_refused() {
    let directory = directory();
    let policy = Policy::parse(EXAMPLE, directory.path()).expect("a policy");
    let valid = "Bearer eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
    with_seeds(1, |seed| {
        let mut random = Rng::with_seed(seed);
        for _ in 0..ROUNDS {
            let text = mutated(&mut random, valid);
            let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) else { continue };
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            assert!(policy.authenticate(&headers, std::time::UNIX_EPOCH).is_err(), "{text}");
        }
    });
}
