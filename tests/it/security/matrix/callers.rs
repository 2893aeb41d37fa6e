//! The callers of the table, by each way in, and the policy that they are judged by.

use std::time::SystemTime;

use waypost_auth::testing::SigningKey;

use super::{
    super::support::{Place, Protocol, RawCaller, after, jwt, jwt_by, static_token, token_table},
    table::CALLERS,
};
use crate::support::TestServer;

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Certificate,
    Token,
    Jwt,
}

/// Each way, over each protocol at least once; tokens over TLS and in clear text.
pub(super) const WAYS: [(Way, Protocol, Transport); 7] = [
    (Way::Certificate, Protocol::Http2, Transport::Tls),
    (Way::Certificate, Protocol::Http1, Transport::Tls),
    (Way::Token, Protocol::Http2, Transport::Tls),
    (Way::Token, Protocol::Http2, Transport::ClearText),
    (Way::Token, Protocol::Http1, Transport::ClearText),
    (Way::Jwt, Protocol::Http1, Transport::Tls),
    (Way::Jwt, Protocol::Http2, Transport::ClearText),
];

/// The transport of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tls,
    ClearText,
}

/// The rights of the callers.
const RULES: &str = "
revoked = ['spiffe://test/role/revoked', 'token/revoked', 'k8s/revoked']
[[allow]]
who = ['spiffe://test/ns/{namespace}/sa/{service}', 'k8s/ns:{namespace}:{service}']
may = 'register'
on = '{namespace}/{service}'
hosts = 'peer'
[[allow]]
who = ['spiffe://test/ns/{namespace}/sa/*', 'k8s/ns:{namespace}:*']
may = 'discover'
on = '{namespace}/*'
[[allow]]
who = 'anonymous'
may = 'probe'
";

/// Makes the policy.
pub(super) fn policy() -> String {
    let mut text = RULES.to_owned();
    let mut allow = |who: &str, may: &str, on: &str, more: &str| {
        text += &format!("[[allow]]\nwho = [{who}]\nmay = [{may}]\non = '{on}'\n{more}\n");
    };
    for (who, on, space) in [
        ("'token/own'", "shop/orders", "shop/*"),
        ("'token/other'", "shop/payments", "shop/*"),
        ("'token/away'", "bank/ledger", "bank/*"),
    ] {
        allow(who, "'register'", on, "hosts = 'peer'");
        allow(who, "'discover'", space, "");
    }
    let everything = "'discover', 'register', 'operate', 'status', 'backup'";
    for (role, may, on) in [
        ("one", "'discover'", "shop/orders"),
        ("space", "'discover'", "shop/*"),
        ("operator", "'operate'", "shop/*"),
        ("status", "'status'", "*/*"),
        ("backup", "'backup'", "*/*"),
        ("all", everything, "*/*"),
        // They prove their identities in vain.
        ("revoked", everything, "*/*"),
        ("expired", everything, "*/*"),
    ] {
        let who = format!("'spiffe://test/role/{role}', 'token/{role}', 'k8s/{role}'");
        allow(&who, may, on, "");
    }
    for name in CALLERS.iter().filter(|name| !["stranger", "anonymous"].contains(name)) {
        let expires = if *name == "expired" { "expires = 2020-01-01T00:00:00Z" } else { "" };
        text += &token_table(name, expires);
    }
    text
}

/// Makes a caller; `None` for one that gets no further than the handshake.
pub(super) fn caller(
    name: &str,
    (way, protocol, transport): (Way, Protocol, Transport),
    place: &Place,
    server: &TestServer,
) -> Option<RawCaller> {
    let identity = match (way, name) {
        (Way::Certificate, "expired") => return None,
        (Way::Certificate, "stranger") => Some(place.authority.issue_nameless()),
        (Way::Certificate, "anonymous") | (Way::Token | Way::Jwt, _) => None,
        (Way::Certificate, "own") => Some(place.authority.issue("spiffe://test/ns/shop/sa/orders")),
        (Way::Certificate, "other") => {
            Some(place.authority.issue("spiffe://test/ns/shop/sa/payments"))
        }
        (Way::Certificate, "away") => {
            Some(place.authority.issue("spiffe://test/ns/bank/sa/ledger"))
        }
        (Way::Certificate, name) => {
            Some(place.authority.issue(&format!("spiffe://test/role/{name}")))
        }
    };
    let tls = (transport == Transport::Tls).then(|| place.authority.connector(identity.as_ref()));
    let caller = RawCaller::new(server.address(), protocol, tls);
    Some(match (way, name) {
        (Way::Certificate, _) | (_, "anonymous") => caller,
        (Way::Token, name) => caller.token(&static_token(name)),
        (Way::Jwt, name) => caller.token(&signed(name)),
    })
}

fn signed(name: &str) -> String {
    let hour = after(3_600);
    match name {
        "stranger" => jwt_by(&SigningKey::p384(), "all", hour),
        "own" => jwt("ns:shop:orders", hour),
        "other" => jwt("ns:shop:payments", hour),
        "away" => jwt("ns:bank:ledger", hour),
        "expired" => jwt("expired", SystemTime::UNIX_EPOCH),
        name => jwt(name, hour),
    }
}

/// Returns the reason to refuse the stranger.
pub(super) fn invalid(way: Way) -> &'static str {
    match way {
        Way::Certificate => "CERTIFICATE_NAMES_NOBODY",
        Way::Token | Way::Jwt => "TOKEN_INVALID",
    }
}
