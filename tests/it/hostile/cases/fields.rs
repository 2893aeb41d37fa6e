//! Bad fields of an instance and of its lease: names, hosts, ports, metadata, TTL, grace.

use std::collections::BTreeMap;

use super::{SECRET, Table, entries, metadata_of, seconds};

pub(crate) fn names(table: &mut Table) {
    let long = "x".repeat(129);
    for (what, text) in [
        ("that is too long", long.as_str()),
        ("that climbs", "../../etc/passwd"),
        ("with a NUL", "a\0b"),
        ("with a line break", "a\r\nb"),
        ("with a space", "a b"),
        ("with a slash", "a/b"),
        ("that begins with a dash", "-a"),
        ("that ends with a dot", "a."),
        ("of dots", ".."),
        ("beyond ASCII", "größe"),
        ("of an emoji", "😀"),
        ("like half of a surrogate pair", "\\ud83d"),
        ("of the replacement character", "\u{fffd}"),
        ("with a bidirectional override", "a\u{202e}b"),
        ("that is percent-encoded", "%2e%2e"),
    ] {
        table.instances(what, "service", |instance| instance.service = text.into());
        table.instances(what, "namespace", |instance| instance.namespace = text.into());
        table.instances(what, "zone", |instance| instance.zone = text.into());
    }
    table.instances("that is empty", "service", |instance| instance.service.clear());
    for (what, text) in [
        ("that is too long", "x".repeat(257)),
        ("that is too long in bytes", "ä".repeat(129)),
        ("with a line break", "a\nb".into()),
        ("with a NUL", "\0".into()),
        ("with a delete", "a\u{7f}".into()),
        ("with a C1 control", "a\u{85}".into()),
        ("with an escape", "\u{1b}[31mred".into()),
    ] {
        table.instances(what, "id", |instance| instance.id = text);
    }
    for (what, text) in [("that is too long", long.as_str()), ("with a bell", "1.0\u{7}")] {
        table.instances(what, "version", |instance| instance.version = text.into());
    }
}

pub(crate) fn hosts(table: &mut Table) {
    let long = format!("{}.example", "a.".repeat(124));
    let label = format!("{}.example", "a".repeat(64));
    for (what, text) in [
        ("that is empty", ""),
        ("that is too long", long.as_str()),
        ("with too long a label", label.as_str()),
        ("that is a URL", "http://example.com"),
        ("with a port", "example.com:80"),
        ("in brackets", "[::1]"),
        ("with a space", "a b"),
        ("with an empty label", "a..b"),
        ("that begins with a dash", "-a.example"),
        ("out of an address's range", "256.1.1.1"),
        ("with three numbers", "10.0.1"),
        ("that is a network", "10.0.0.0/8"),
        ("that is half IPv6", "2001:db8::g"),
        ("with an IPv6 zone", "fe80::1%eth0"),
        ("with a NUL", "a\0.example"),
        ("beyond ASCII", "bücher.example"),
        ("that climbs", "../socket"),
        ("that is unspecified", "0.0.0.0"),
        ("that is unspecified in IPv6", "::"),
        ("that is unspecified and mapped", "::ffff:0:0"),
        ("that is unspecified in short", "0"),
        ("of a group", "239.1.2.3"),
        ("of a group in IPv6", "ff05::2"),
        ("of a group, mapped", "::ffff:239.1.2.3"),
        ("of everything", "255.255.255.255"),
        ("of everything in hexadecimal", "0xffffffff"),
        ("in hexadecimal", "0xa.0.0.7"),
        ("in one hexadecimal number", "0x0A000007"),
        ("in octal", "012.0.0.7"),
        ("in one octal number", "01200000007"),
        ("in one decimal number", "167772167"),
        ("of two parts", "10.7"),
        ("of three parts", "10.0.7"),
    ] {
        table.instances(what, "host", |instance| instance.host = text.into());
    }
}

pub(crate) fn ports_and_statuses(table: &mut Table) {
    for port in [0, 65_536, u32::MAX] {
        let what = port.to_string();
        table.instances(&what, "port", |instance| instance.port = port);
        table.instances(&what, "ports[\"metrics\"]", |instance| {
            instance.ports = BTreeMap::from([("metrics".to_owned(), port)]);
        });
    }
    for (what, name, path) in [
        ("without a name", "", "ports[\"\"]"),
        ("with a bad name", "a b", "ports[\"a b\"]"),
        ("with a name that climbs", "../x", "ports[\"../x\"]"),
    ] {
        table.instances(what, path, |instance| {
            instance.ports = BTreeMap::from([(name.to_owned(), 1)]);
        });
    }
    table.too_much("of 65 names", "instance.ports", |instance| {
        instance.ports = (1..=65).map(|port| (format!("port-{port}"), port)).collect();
    });
    for status in [5, 6, -1, i32::MAX, i32::MIN] {
        table.instances(&status.to_string(), "status", |instance| instance.status = status);
    }
}

pub(crate) fn metadata(table: &mut Table) {
    table.too_much("of 65 entries", "instance.metadata", |instance| {
        instance.metadata = entries(65, SECRET);
    });
    table.too_much("of 16 KiB and 1 byte", "instance.metadata", |instance| {
        instance.metadata = metadata_of(16 * 1024 + 1);
    });
    let secret = SECRET.repeat(586)[..4097].to_owned();
    table.too_much("value of 4097 bytes", "instance.metadata[\"token\"]", |instance| {
        instance.metadata = BTreeMap::from([("token".to_owned(), secret)]);
    });
    // 64 bytes of a key are enough to find it.
    let path =
        "instance.metadata[\"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\"…]";
    table.too_much("key of 129 bytes", path, |instance| {
        instance.metadata = BTreeMap::from([("k".repeat(129), SECRET.to_owned())]);
    });
    table.instances("without a key", "metadata[\"\"]", |instance| {
        instance.metadata = BTreeMap::from([(String::new(), SECRET.to_owned())]);
    });
}

pub(crate) fn terms(table: &mut Table) {
    for (what, ttl) in [
        ("of nothing", seconds(0, 0)),
        ("of 0.999999999 s", seconds(0, 999_999_999)),
        ("of 301 s", seconds(301, 0)),
        ("of 300 s and 1 ns", seconds(300, 1)),
        ("below zero", seconds(-15, 0)),
        ("with nanos below zero", seconds(15, -1)),
        ("with nanos of a second", seconds(15, 1_000_000_000)),
        ("with the largest nanos", seconds(15, i32::MAX)),
        ("with the smallest nanos", seconds(15, i32::MIN)),
        ("of all that fits", seconds(i64::MAX, i32::MAX)),
        ("of the least that fits", seconds(i64::MIN, i32::MIN)),
    ] {
        table.terms(what, "ttl", ttl, None);
    }
    for (what, ttl, grace) in [
        ("beyond the TTL", seconds(2, 0), seconds(2, 1)),
        ("beyond the default TTL", None, seconds(16, 0)),
        ("below zero", None, seconds(-1, 0)),
        ("just below zero", None, seconds(0, -1)),
        ("with nanos of a second", None, seconds(1, 1_000_000_000)),
        ("of all that fits", None, seconds(i64::MAX, 0)),
        ("of the least that fits", None, seconds(i64::MIN, i32::MIN)),
    ] {
        table.terms(what, "disconnect_grace", ttl, grace);
    }
}
