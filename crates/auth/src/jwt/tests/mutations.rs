//! Random changes of tokens, claims and sets of keys: none panics, none is accepted.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fastrand::Rng;
use serde_json::{Value, json};
use waypost_core::testing::with_seeds;

use super::{AUDIENCE, ISSUER, NOW, SUBJECT, at, claims, of_set, rounds, set, token, verifier};
use crate::{jwt::Verifier, testing::SigningKey};

/// Bytes that mean something in a token or in JSON.
const BYTES: &[u8] = b".=-_+/AZaz09{}[]\",:\\u \0\x7f\x80\xff";

/// Changes bytes, a few at a time: replaces, inserts, removes, repeats, swaps.
fn changed(bytes: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..random.usize(1..4) {
        let place = random.usize(0..=out.len());
        let byte = match random.bool() {
            true => BYTES[random.usize(0..BYTES.len())],
            false => random.u8(..),
        };
        match random.u8(0..6) {
            0 | 1 if place < out.len() => out[place] = byte,
            2 => out.insert(place, byte),
            3 if place < out.len() => drop(out.remove(place)),
            4 => {
                let end = random.usize(place..=out.len());
                let part = out[place..end].to_vec();
                out.splice(place..place, part);
            }
            5 if place < out.len() => {
                let other = random.usize(0..out.len());
                out.swap(place, other);
            }
            _ => out.truncate(place),
        }
    }
    out
}

#[test]
fn changed_token_is_never_accepted() {
    let verifier = verifier();
    let tokens = [
        token(json!({}), json!({ "jti": "a" })),
        SigningKey::ed25519().token(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims()),
        SigningKey::p256().token(&json!({ "alg": "ES256" }), &claims()),
    ];
    with_seeds(1, |seed| {
        let mut random = Rng::with_seed(seed);
        for round in 0..rounds(1_500) {
            let token = &tokens[round % tokens.len()];
            let changed = changed(token.as_bytes(), &mut random);
            let Ok(changed) = str::from_utf8(&changed) else { continue };
            if changed != token {
                assert!(verifier.verify(changed, at(NOW)).is_err(), "{changed}");
            }
        }
    });
}

/// Changes before the signature: the bytes are signed, whatever they are.
#[test]
fn signed_token_is_accepted_only_with_valid_texts() {
    let verifier = verifier();
    let header = json!({ "alg": "EdDSA", "kid": "ed" }).to_string();
    let key = SigningKey::ed25519();
    with_seeds(1, |seed| {
        let mut random = Rng::with_seed(seed);
        for round in 0..rounds(1_500) {
            let (mut header, mut claims) = (header.clone().into_bytes(), claims().to_string());
            match round % 2 {
                0 => header = changed(&header, &mut random),
                _ => {
                    let changed = changed(claims.as_bytes(), &mut random);
                    claims = String::from_utf8_lossy(&changed).into_owned();
                }
            }
            let parts = [header.as_slice(), claims.as_bytes()];
            let message = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
            let signature = URL_SAFE_NO_PAD.encode(key.sign("EdDSA", message.as_bytes()));
            let token = format!("{message}.{signature}");
            if let Ok(verified) = verifier.verify(&token, at(NOW)) {
                let read = (serde_json::from_slice(&header), serde_json::from_str(&claims));
                // Text of a member that nothing reads may be invalid.
                let (Ok::<Value, _>(header), Ok(claims)) = read else { continue };
                assert_eq!(header["alg"], "EdDSA", "{claims}");
                assert!(is_valid(&claims), "{claims}");
                assert_eq!(claims["sub"], verified.subject);
            }
        }
    });
}

/// The conditions on claims, written again from SECURITY.md.
fn is_valid(claims: &Value) -> bool {
    let number = |name: &str| match &claims[name] {
        Value::Null => Ok(None),
        Value::Number(number) => {
            number.as_f64().filter(|n| (0.0..1.8e19).contains(n)).map(Some).ok_or(())
        }
        _ => Err(()),
    };
    let (Ok(expiry), Ok(start)) = (number("exp"), number("nbf")) else { return false };
    let now = NOW as f64;
    let in_time = expiry.is_some_and(|expiry| now < expiry + 30.0 && expiry < 253_402_300_800.0)
        && start.is_none_or(|start| start <= now + 30.0);
    let audience = match &claims["aud"] {
        Value::String(one) => one == AUDIENCE,
        Value::Array(all) => {
            all.iter().all(Value::is_string) && all.iter().any(|one| one == AUDIENCE)
        }
        _ => false,
    };
    let subject = claims["sub"].as_str().unwrap_or_default();
    let is_named = !subject.is_empty() && subject.bytes().all(|byte| (32..127).contains(&byte));
    in_time && audience && is_named && claims["iss"] == ISSUER
}

#[test]
fn claims_are_judged_as_a_second_reading_judges_them() {
    let verifier = verifier();
    let key = SigningKey::ed25519();
    let pools = [
        ("sub", vec![json!(SUBJECT), json!("a b"), json!(""), json!("\u{e9}"), json!(1)]),
        ("iss", vec![json!(ISSUER), json!(""), json!([ISSUER]), json!("https://evil.example")]),
        (
            "aud",
            vec![
                json!(AUDIENCE),
                json!([AUDIENCE]),
                json!(["a", AUDIENCE]),
                json!([]),
                json!(["a"]),
                json!([AUDIENCE, null]),
            ],
        ),
        (
            "exp",
            vec![
                json!(NOW),
                json!(NOW - 29),
                json!(NOW - 30),
                json!(NOW as f64 + 0.25),
                json!("1"),
                json!(-1),
                json!(1e12),
                json!(253_402_300_799_u64),
                json!(u64::MAX),
                json!(1e300),
            ],
        ),
        (
            "nbf",
            vec![json!(0), json!(NOW + 30), json!(NOW + 31), json!(-1), json!("a"), json!(1e300)],
        ),
    ];
    with_seeds(1, |seed| {
        let mut random = Rng::with_seed(seed);
        for _ in 0..rounds(1_500) {
            let mut claims = claims();
            for _ in 0..random.usize(1..4) {
                let (name, pool) = &pools[random.usize(0..pools.len())];
                let value = pool.get(random.usize(0..=pool.len())).cloned();
                claims[*name] = value.unwrap_or(Value::Null);
            }
            let token = key.token(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims);
            let verified = verifier.verify(&token, at(NOW)).is_ok();
            assert_eq!(verified, is_valid(&claims), "{claims}");
        }
    });
    assert!(is_valid(&claims()));
}

#[test]
fn changed_set_never_accepts_the_token_of_another_key() {
    let text = set().to_string();
    let foreign = [
        SigningKey::other_rsa().token(&json!({ "alg": "RS256" }), &claims()),
        SigningKey::secret(b"").token(&json!({ "alg": "HS256" }), &claims()),
        SigningKey::secret(&[0; 64]).token(&json!({ "alg": "HS512" }), &claims()),
    ];
    with_seeds(1, |seed| {
        let mut random = Rng::with_seed(seed);
        for _ in 0..rounds(400) {
            let changed = changed(text.as_bytes(), &mut random);
            let read = Verifier::asymmetric_jwks(&changed, ISSUER.to_owned(), AUDIENCE.to_owned());
            let Ok(verifier) = read else { continue };
            for token in &foreign {
                assert!(verifier.verify(token, at(NOW)).is_err());
            }
        }
    });
}

/// Changes of whole members, which stay JSON and get further.
#[test]
fn set_with_exchanged_members_never_accepts_the_token_of_another_key() {
    let foreign = SigningKey::other_rsa().token(&json!({ "alg": "RS256" }), &claims());
    let names = ["kty", "kid", "alg", "use", "key_ops", "crv", "n", "e", "x", "y", "k", "d"];
    with_seeds(1, |seed| {
        let mut random = Rng::with_seed(seed);
        for _ in 0..rounds(400) {
            let mut set = set();
            for _ in 0..random.usize(1..4) {
                let (from, to) = (random.usize(0..4), random.usize(0..4));
                let (name, other) = (random.choice(names), random.choice(names));
                let (Some(name), Some(other)) = (name, other) else { continue };
                let value = match random.u8(0..4) {
                    0 => set["keys"][from][other].clone(),
                    1 => json!([1, "verify", null]),
                    2 => json!(random.i32(..)),
                    _ => json!("AQAB"),
                };
                set["keys"][to][name] = value;
            }
            if let Ok(verifier) = of_set(&set) {
                assert!(verifier.verify(&foreign, at(NOW)).is_err(), "{set}");
            }
        }
    });
}
