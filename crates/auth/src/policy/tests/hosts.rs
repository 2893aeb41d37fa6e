//! Hosts at which instances may be registered.

use std::net::IpAddr;

use waypost_core::{model::Host, testing::key};

use super::grants;
use crate::policy::{Grants, HostRefusal, RegisterDenied, RuleLine};

const RULE: &str = "[[allow]]\nwho = 'dns/*'\nmay = 'register'\non = 'shop/*'\n";

fn rights(hosts: &str) -> Grants {
    grants(&format!("{RULE}{hosts}"), "dns/a")
}

fn register(grants: &Grants, host: &str, peer: &str) -> Result<RuleLine, RegisterDenied> {
    let host = Host::stored(host).expect("a host");
    let peer: Option<IpAddr> = peer.parse().ok();
    grants.decide_register(&key("shop/a"), &host, peer)
}

#[test]
fn peer_is_the_address_of_the_caller() {
    let grants = rights("hosts = 'peer'");
    for (host, peer) in [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("10.0.0.7", "::ffff:10.0.0.7"),
        ("fd00::7", "fd00:0::7"),
        ("127.0.0.1", "127.0.0.1"),
    ] {
        assert_eq!(register(&grants, host, peer), Ok(RuleLine(1)), "{host} from {peer}");
    }
    for (host, peer) in [("10.0.0.8", "10.0.0.7"), ("10.0.0.7", ""), ("a.example", "10.0.0.7")] {
        let refusal = Err(RegisterDenied::Host(HostRefusal::NotListed));
        assert_eq!(register(&grants, host, peer), refusal, "{host} from {peer}");
    }
}

#[test]
fn networks_and_names_list_hosts() {
    let grants = rights("hosts = ['10.0.0.0/8', 'fd00::/8', '192.168.1.7', '*.Shop.svc', 'db.']");
    for host in [
        "10.255.0.1",
        "::ffff:10.0.0.1",
        "fdff::1",
        "192.168.1.7",
        "a.shop.svc",
        "A.B.SHOP.SVC.",
        "db",
        "DB.",
    ] {
        assert_eq!(register(&grants, host, ""), Ok(RuleLine(1)), "{host}");
    }
    for host in [
        "11.0.0.1",
        "::10.0.0.1",
        "fe00::1",
        "192.168.1.8",
        "shop.svc",
        "ashop.svc",
        "db.a",
        "a.db",
    ] {
        let refusal = Err(RegisterDenied::Host(HostRefusal::NotListed));
        assert_eq!(register(&grants, host, ""), refusal, "{host}");
    }
}

#[test]
fn some_hosts_are_never_allowed() {
    let everywhere = "hosts = ['peer', '0.0.0.0/0', '::/0', '*.localhost', 'localhost']";
    for grants in [rights(""), rights(everywhere)] {
        for (host, refusal) in [
            ("0.0.0.0", HostRefusal::Unspecified),
            ("::", HostRefusal::Unspecified),
            ("::ffff:0.0.0.0", HostRefusal::Unspecified),
            ("224.0.0.1", HostRefusal::Multicast),
            ("ff02::1", HostRefusal::Multicast),
            ("::ffff:224.0.0.1", HostRefusal::Multicast),
            ("169.254.169.254", HostRefusal::LinkLocal),
            ("::ffff:169.254.169.254", HostRefusal::LinkLocal),
            ("fe80::1", HostRefusal::LinkLocal),
            ("127.0.0.1", HostRefusal::Loopback),
            ("127.9.9.9", HostRefusal::Loopback),
            ("::ffff:127.0.0.1", HostRefusal::Loopback),
            ("::1", HostRefusal::Loopback),
            ("localhost", HostRefusal::Loopback),
            ("a.LocalHost.", HostRefusal::Loopback),
        ] {
            for peer in ["10.0.0.7", "169.254.169.254", ""] {
                let found = register(&grants, host, peer);
                assert_eq!(found, Err(RegisterDenied::Host(refusal)), "{host} from {peer}");
            }
        }
        for host in ["127.0.0.1", "::1", "localhost"] {
            for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
                assert_eq!(register(&grants, host, peer), Ok(RuleLine(1)), "{host} from {peer}");
            }
        }
        assert!(register(&Grants::unrestricted(), "127.0.0.1", "10.0.0.7").is_ok());
    }
}

#[test]
fn name_needs_a_rule_that_names_it_or_none_at_all() {
    assert!(register(&rights(""), "a.example", "10.0.0.7").is_ok());
    assert!(register(&rights("hosts = ['10.0.0.0/8']"), "a.example", "10.0.0.7").is_err());
    assert!(register(&rights("hosts = ['*.example']"), "a.example", "10.0.0.7").is_ok());
}

#[test]
fn first_rule_that_allows_service_and_host_decides() {
    let policy = format!("{RULE}hosts = 'peer'\n{RULE}hosts = '10.0.0.0/8'\n{RULE}");
    let rights = grants(&policy, "dns/a");
    assert_eq!(register(&rights, "10.0.0.7", "10.0.0.7"), Ok(RuleLine(1)));
    assert_eq!(register(&rights, "10.0.0.8", "10.0.0.7"), Ok(RuleLine(6)));
    assert_eq!(register(&rights, "11.0.0.8", "10.0.0.7"), Ok(RuleLine(11)));
    // The service is decided first: a caller learns nothing about hosts of others.
    let host = Host::stored("127.0.0.1").expect("a host");
    let other = rights.decide_register(&key("other/a"), &host, None);
    assert_eq!(other, Err(RegisterDenied::NotAllowed));
}
