//! Lookups: statuses, filters and pages.

use waypost_client::proto::{
    Filter, Instance, ListServicesRequest, ResolveRequest, ResolveResponse, ServiceSummary, Status,
};

use super::{Subject, discovery, ids, invalid_fields, order, register};

fn lookup(namespace: &str) -> ResolveRequest {
    ResolveRequest {
        namespace: namespace.into(),
        service: "orders".into(),
        ..ResolveRequest::default()
    }
}

async fn resolve(subject: &impl Subject, request: ResolveRequest) -> ResolveResponse {
    discovery(subject).resolve(request).await.expect("valid").into_inner()
}

/// Only instances that are `UP` are returned, unless all are requested.
pub async fn lookup_returns_instances_that_are_up(subject: &impl Subject) {
    for (id, status) in
        [("a", Status::Starting), ("b", Status::Up), ("c", Status::Draining), ("d", Status::Down)]
    {
        register(subject, Instance { status: status.into(), ..order("statuses", id) }).await;
    }
    let up = resolve(subject, lookup("statuses")).await;
    assert_eq!(ids(&up.instances), ["b"]);
    let all = ResolveRequest { all_statuses: true, ..lookup("statuses") };
    assert_eq!(ids(&resolve(subject, all).await.instances), ["a", "b", "c", "d"]);
    assert!(resolve(subject, lookup("nothing")).await.instances.is_empty());
}

/// Every part of a filter must match.
pub async fn lookup_selects_by_zone_version_and_metadata(subject: &impl Subject) {
    let metadata = |tier: &str| [("tier".to_owned(), tier.to_owned())].into();
    for (id, zone, version, tier) in
        [("a", "x", "1", "gold"), ("b", "x", "2", "gold"), ("c", "y", "2", "iron")]
    {
        let (zone, version) = (zone.to_owned(), version.to_owned());
        let metadata = metadata(tier);
        register(subject, Instance { zone, version, metadata, ..order("filters", id) }).await;
    }
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    for (filter, expected) in [
        (Filter { zones: texts(&["x"]), ..Filter::default() }, &["a", "b"][..]),
        (Filter { versions: texts(&["2"]), ..Filter::default() }, &["b", "c"]),
        (
            Filter { zones: texts(&["x", "y"]), versions: texts(&["1"]), ..Filter::default() },
            &["a"],
        ),
        (
            Filter { metadata: metadata("gold"), versions: texts(&["2"]), ..Filter::default() },
            &["b"],
        ),
        (Filter { metadata: metadata("lead"), ..Filter::default() }, &[]),
        (Filter::default(), &["a", "b", "c"]),
    ] {
        let request = ResolveRequest { filter: Some(filter.clone()), ..lookup("filters") };
        let found = resolve(subject, request).await;
        assert_eq!(ids(&found.instances), expected, "{filter:?}");
    }
}

/// Pages follow each other in the order of ids, and the last one has no token.
pub async fn pages_hold_every_instance_once(subject: &impl Subject) {
    for number in 0..7 {
        register(subject, order("pages", &format!("i{number}"))).await;
    }
    let (mut request, mut found, mut sizes) =
        (ResolveRequest { page_size: 3, ..lookup("pages") }, Vec::new(), Vec::new());
    loop {
        let page = resolve(subject, request.clone()).await;
        sizes.push(page.instances.len());
        found.extend(page.instances.into_iter().map(|instance| instance.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(found, ["i0", "i1", "i2", "i3", "i4", "i5", "i6"]);
    let all = resolve(subject, ResolveRequest { page_size: u32::MAX, ..lookup("pages") }).await;
    assert_eq!(all.instances.len(), 7);
}

/// Tokens of another service, and texts that are none, are invalid.
pub async fn page_token_belongs_to_its_service(subject: &impl Subject) {
    for (namespace, id) in [("token", "a"), ("token", "b"), ("token-other", "a")] {
        register(subject, order(namespace, id)).await;
    }
    let page = resolve(subject, ResolveRequest { page_size: 1, ..lookup("token") }).await;
    for (namespace, page_token) in
        [("token-other", page.next_page_token), ("token", "nonsense".to_owned())]
    {
        let request = ResolveRequest { page_token, ..lookup(namespace) };
        let refused = discovery(subject).resolve(request).await.expect_err("invalid");
        assert_eq!(invalid_fields(&refused), ["page_token"]);
    }
}

/// Services are listed in order, with all instances and those that are `UP`, page by page.
pub async fn services_are_listed_with_their_counts(subject: &impl Subject) {
    for (service, id, status) in [
        ("b", "1", Status::Up),
        ("a", "1", Status::Up),
        ("a", "2", Status::Draining),
        ("c", "1", Status::Down),
    ] {
        let (service, status) = (service.to_owned(), status.into());
        register(subject, Instance { service, status, ..order("listed", id) }).await;
    }
    let mut request =
        ListServicesRequest { namespace: "listed".into(), page_size: 2, ..Default::default() };
    let mut pages = Vec::new();
    loop {
        let page = discovery(subject).list_services(request.clone()).await.expect("valid");
        let page = page.into_inner();
        pages.push(page.services);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let summary = |name: &str, instances, up| {
        let (namespace, name) = ("listed".to_owned(), name.to_owned());
        ServiceSummary { namespace, name, instances, up }
    };
    assert_eq!(pages, [vec![summary("a", 2, 1), summary("b", 1, 1)], vec![summary("c", 1, 0)]]);
}
