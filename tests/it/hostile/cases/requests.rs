//! Bad requests of each method: several bad fields, masks, targets, filters, pages.

use waypost_client::proto::{
    DeregisterRequest, Filter, HeartbeatRequest, Instance, ListServicesRequest, RegisterRequest,
    ReleaseProtectionRequest, ResolveRequest, UpdateRequest, WatchRequest,
};
use waypost_testing::{
    http2::framed,
    registry::{register_request, watch_of},
};

use super::{
    DEREGISTER, HEARTBEAT, KEEP_ALIVE, LIST_SERVICES, RELEASE_PROTECTION, RESOLVE, Refusal, SECRET,
    Table, UPDATE, WATCH, entries, malformed, registering, seconds, update,
};

pub(crate) fn several_at_once(table: &mut Table) {
    let required = ["instance.service", "instance.host", "instance.port"];
    table.register(
        "an empty instance",
        &register_request(Instance::default()),
        malformed(&required),
    );
    table.register("nothing", &RegisterRequest::default(), malformed(&["instance"]));
    let request = RegisterRequest { ttl: seconds(0, 0), ..RegisterRequest::default() };
    table.register("no instance and no TTL", &request, malformed(&["instance", "ttl"]));
    let request = RegisterRequest {
        ttl: seconds(0, 0),
        disconnect_grace: seconds(-1, 0),
        ..registering(|instance| {
            instance.zone = "?".into();
            instance.metadata = entries(65, SECRET);
        })
    };
    let fields = ["instance.zone", "instance.metadata", "ttl", "disconnect_grace"];
    table.register("malformed and too much", &request, malformed(&fields));
    table.add("nothing", UPDATE, &UpdateRequest::default(), {
        malformed(&["service", "id", "update_mask"])
    });
}

pub(crate) fn updates(table: &mut Table, lease: u64) {
    let with = |change: fn(&mut Instance)| registering(change).instance;
    for (what, request, fields) in [
        ("an empty mask", update(lease, &[], with(|_| {})), vec!["update_mask"]),
        ("a path of the identity", update(lease, &["host"], None), vec!["update_mask.paths[0]"]),
        ("an empty path", update(lease, &[""], None), vec!["update_mask.paths[0]"]),
        ("a star", update(lease, &["*"], None), vec!["update_mask.paths[0]"]),
        ("a part", update(lease, &["metadata.token"], None), vec!["update_mask.paths[0]"]),
        ("another case", update(lease, &["zone", "Weight"], None), vec!["update_mask.paths[1]"]),
        ("no status", update(lease, &["status"], None), vec!["instance.status"]),
        ("a suspect", update(lease, &["status"], with(|one| one.status = 5)), {
            vec!["instance.status"]
        }),
        ("a status", update(lease, &["status"], with(|one| one.status = 77)), {
            vec!["instance.status"]
        }),
        ("a zone", update(lease, &["zone"], with(|one| one.zone = "?".into())), {
            vec!["instance.zone"]
        }),
        ("a version", update(lease, &["version"], with(|one| one.version = "\n".into())), {
            vec!["instance.version"]
        }),
        ("no name", update(0, &["weight"], None), vec!["service", "id"]),
    ] {
        table.add(what, UPDATE, &request, malformed(&fields));
    }
    let request = update(lease, &["metadata"], with(|one| one.metadata = entries(65, SECRET)));
    table.add("65 entries", UPDATE, &request, Refusal::TooMuch("instance.metadata"));
    let request = UpdateRequest {
        namespace: "../".into(),
        service: "a b".into(),
        id: "\0".into(),
        ..update(0, &["weight"], None)
    };
    table.add("bad names", UPDATE, &request, malformed(&["namespace", "service", "id"]));
}

pub(crate) fn removals(table: &mut Table) {
    for (what, namespace, service, id, fields) in [
        ("nothing", "", "", "", vec!["service", "id"]),
        ("no id", "", "refused", "", vec!["id"]),
        ("a service that climbs", "", "../refused", "a", vec!["service"]),
        ("a namespace that climbs", "..", "refused", "a", vec!["namespace"]),
        ("an id with a NUL", "", "refused", "\0", vec!["id"]),
    ] {
        let request = DeregisterRequest {
            lease_id: 0,
            namespace: namespace.into(),
            service: service.into(),
            id: id.into(),
        };
        table.add(what, DEREGISTER, &request, malformed(&fields));
    }
}

pub(crate) fn reads(table: &mut Table) {
    let resolve = |service: &str, filter| ResolveRequest {
        service: service.into(),
        filter: Some(filter),
        ..ResolveRequest::default()
    };
    let none = Filter::default;
    let texts = |count: usize| vec!["x".to_owned(); count];
    table.add("no service", RESOLVE, &resolve("", none()), malformed(&["service"]));
    table.add("a wild service", RESOLVE, &resolve("😀/\0", none()), malformed(&["service"]));
    for (field, filter) in [
        ("filter.zones", Filter { zones: texts(65), ..none() }),
        ("filter.versions", Filter { versions: texts(65), ..none() }),
        ("filter.metadata", Filter { metadata: entries(65, SECRET), ..none() }),
    ] {
        let too_much = || Refusal::TooMuch(field);
        table.add(field, RESOLVE, &resolve("a", filter.clone()), too_much());
        let request = WatchRequest { filter: Some(filter), ..WatchRequest::default() };
        table.add(field, WATCH, &request, too_much());
    }
    let filter = Filter { zones: texts(65), ..none() };
    table.add("bad and too much", RESOLVE, &resolve("?", filter), {
        malformed(&["service", "filter.zones"])
    });
    for (what, request, field) in [
        ("a token", ListServicesRequest { page_token: "../".into(), ..Default::default() }, {
            "page_token"
        }),
        (
            "a long token",
            ListServicesRequest { page_token: "x".repeat(129), ..Default::default() },
            { "page_token" },
        ),
        ("a namespace", ListServicesRequest { namespace: "a b".into(), ..Default::default() }, {
            "namespace"
        }),
    ] {
        table.add(what, LIST_SERVICES, &request, malformed(&[field]));
    }
    let release = ReleaseProtectionRequest { namespace: "a b".into() };
    table.add("a namespace", RELEASE_PROTECTION, &release, malformed(&["namespace"]));
    let watch = |services: &[&str]| watch_of(services);
    table.add("an empty service", WATCH, &watch(&["a", ""]), malformed(&["services[1]"]));
    table.add("bad services", WATCH, &watch(&["?", "a", "!"]), {
        malformed(&["services[0]", "services[2]"])
    });
    let many: Vec<_> = (0..1025).map(|number| format!("service-{number}")).collect();
    let many = WatchRequest { services: many, ..WatchRequest::default() };
    table.add("1025 services", WATCH, &many, Refusal::TooMuch("services"));
    let request = WatchRequest { namespace: "-".into(), ..WatchRequest::default() };
    table.add("a namespace", WATCH, &request, malformed(&["namespace"]));
}

pub(crate) fn heartbeats(table: &mut Table) {
    let leases = HeartbeatRequest { lease_ids: vec![7; 65_537] };
    table.add("65,537 leases", HEARTBEAT, &leases, Refusal::TooMuch("lease_ids"));
    table.add("65,537 leases", KEEP_ALIVE, &leases, Refusal::TooMuch("lease_ids"));
    // Once more in the other encoding of a repeated field.
    let unpacked = [0x09, 7, 0, 0, 0, 0, 0, 0, 0].repeat(65_537);
    table.raw("65,537 leases", HEARTBEAT, framed(&unpacked), Refusal::TooMuch("lease_ids"));
}
