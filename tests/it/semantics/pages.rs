//! Lookups in pages, and the sizes of responses.

use std::collections::BTreeMap;

use prost::Message;
use tonic::{Code, Status as Refused};
use tonic_types::StatusExt;
use waypost::model::Limits;
use waypost_client::proto::{
    DeregisterRequest, Filter, Instance, ListServicesRequest, ResolveRequest, ResolveResponse,
    Status,
};
use waypost_testing::{
    registry::{bad_fields, ids, instance, instance_in, register, resolve_all, watch_of},
    wait::soon,
    watch::Follower,
};

use crate::support::TestServer;

const MIB: usize = 1024 * 1024;
/// Room in a page beside its instances: the cursor and the token.
const BESIDES: usize = 1024;

fn page_of(service: &str, page_size: u32, page_token: &str) -> ResolveRequest {
    ResolveRequest {
        service: service.to_owned(),
        all_statuses: true,
        page_size,
        page_token: page_token.to_owned(),
        ..ResolveRequest::default()
    }
}

async fn resolve(
    server: &TestServer,
    request: ResolveRequest,
) -> Result<ResolveResponse, Box<Refused>> {
    let answer = soon("an answer", async { server.discovery().resolve(request).await }).await;
    answer.map(tonic::Response::into_inner).map_err(Box::new)
}

/// Reads all pages of a request; each token names the size of the next page. Checks that each page
/// is as large as allowed.
async fn pages(server: &TestServer, request: &ResolveRequest) -> Vec<ResolveResponse> {
    let (mut request, mut pages) = (request.clone(), Vec::new());
    loop {
        let page = resolve(server, request.clone()).await.expect("a page");
        assert!(page.encoded_len() <= MIB + BESIDES, "{} bytes", page.encoded_len());
        assert!(page.instances.len() <= request.page_size.min(1_000) as usize);
        request.page_token.clone_from(&page.next_page_token);
        pages.push(page);
        if request.page_token.is_empty() {
            return pages;
        }
        assert!(!pages.last().expect("a page").instances.is_empty(), "a page that leads on");
        assert!(pages.len() < 1_000, "the pages have an end");
    }
}

fn all_of(pages: Vec<ResolveResponse>) -> Vec<Instance> {
    pages.into_iter().flat_map(|page| page.instances).collect()
}

fn metadata(entries: usize, bytes: usize) -> BTreeMap<String, String> {
    (0..entries).map(|number| (format!("key-{number:03}"), "v".repeat(bytes))).collect()
}

/// Registers instances with about `bytes` of metadata each.
async fn register_large(server: &TestServer, count: usize, entries: usize, bytes: usize) {
    let mut registry = server.registry();
    for number in 0..count {
        let metadata = metadata(entries, bytes);
        register(&mut registry, Instance { metadata, ..instance("big", &format!("{number:04}")) })
            .await;
    }
}

#[tokio::test]
async fn response_over_4_mib_is_refused_with_alternatives() {
    let server = TestServer::start().await;
    register_large(&server, 290, 4, 3_500).await;
    let whole = resolve(&server, page_of("big", 0, "")).await.expect("less than 4 MiB");
    assert_eq!(whole.instances.len(), 290);
    register_large(&server, 320, 4, 3_500).await;

    let refused = resolve(&server, page_of("big", 0, "")).await.expect_err("over 4 MiB");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    for word in ["4 MiB", "page_size", "page_token", "Watch"] {
        assert!(refused.message().contains(word), "{}", refused.message());
    }
    let quota = refused.get_details_quota_failure().expect("a QuotaFailure");
    assert_eq!(quota.violations[0].subject, "message");
    let filter = Some(Filter { zones: vec!["".to_owned()], ..Filter::default() });
    let filtered = ResolveRequest { filter, ..page_of("big", 0, "") };
    let refused = resolve(&server, filtered).await.expect_err("over 4 MiB");
    assert_eq!(refused.code(), Code::ResourceExhausted);

    let found = pages(&server, &page_of("big", 1_000, "")).await;
    assert_eq!(found.len(), 5, "each ends by 1 MiB");
    let found = all_of(found);
    let expected: Vec<_> = (0..320).map(|number| format!("{number:04}")).collect();
    assert_eq!(ids(&found), expected);
    assert_eq!(found[319].metadata, metadata(4, 3_500));
    let mut discovery = server.discovery();
    let follower = Follower::ready(&mut discovery, watch_of(&["big"])).await;
    assert_eq!(follower.state.len(), 320, "a watch brings all of it");
}

#[tokio::test]
async fn pages_of_any_size_contain_every_instance_once() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let statuses = [Status::Up, Status::Down, Status::Up, Status::Starting, Status::Up];
    for number in 0..150_usize {
        let (zone, status) = (["a", "b", ""][number % 3], statuses[number % 5]);
        // In an order of their own: chunks are split at several places.
        let id = format!("{:03}", number * 67 % 150);
        let one = Instance { status: status.into(), ..instance_in("orders", &id, zone, "") };
        register(&mut registry, one).await;
    }
    let in_zone = |zone: &str| Some(Filter { zones: vec![zone.to_owned()], ..Filter::default() });
    for filter in [None, in_zone("b"), in_zone(""), in_zone("nowhere")] {
        for all_statuses in [true, false] {
            let whole =
                ResolveRequest { filter: filter.clone(), all_statuses, ..page_of("orders", 0, "") };
            let expected = resolve(&server, whole.clone()).await.expect("the whole").instances;
            for page_size in [1, 2, 31, 63, 64, 65, 89, 90, 91, 149, 150, 151, 1_000, u32::MAX] {
                let found = pages(&server, &ResolveRequest { page_size, ..whole.clone() }).await;
                let least = expected.len().div_ceil(page_size.min(1_000) as usize).max(1);
                assert_eq!(found.len(), least, "no page more than it takes");
                assert_eq!(all_of(found), expected, "{filter:?} in pages of {page_size}");
            }
        }
    }
    let first = resolve(&server, page_of("orders", 10, "")).await.expect("a page");
    let rest = page_of("orders", 0, &first.next_page_token);
    assert_eq!(resolve(&server, rest).await.expect("a page").instances.len(), 140);
}

#[tokio::test]
async fn page_token_stays_valid_while_instances_change() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    for number in (0..300).step_by(2) {
        register(&mut registry, instance("orders", &format!("{number:03}"))).await;
    }
    let mut random = fastrand::Rng::with_seed(7);
    let (mut token, mut found) = (String::new(), Vec::new());
    loop {
        let page = resolve(&server, page_of("orders", 13, &token)).await.expect("a page");
        found.extend(page.instances.into_iter().map(|one| one.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        // Those of even numbers that 4 divides stay; of the others some go and some come, and the
        // one that the token names goes.
        let last = found.last().expect("not empty").parse::<usize>().expect("a number");
        let going = [last, random.usize(..75) * 4 + 2];
        for number in going.into_iter().filter(|number| number % 4 != 0) {
            let request = DeregisterRequest {
                service: "orders".into(),
                id: format!("{number:03}"),
                ..DeregisterRequest::default()
            };
            let _gone_before = registry.deregister(request).await;
        }
        let coming = random.usize(..150) * 2 + 1;
        register(&mut registry, instance("orders", &format!("{coming:03}"))).await;
    }
    assert!(found.is_sorted_by(|one, next| one < next), "each once, in order: {found:?}");
    for number in (0..300).step_by(4) {
        assert!(found.contains(&format!("{number:03}")), "{number} was there throughout");
    }
}

#[tokio::test]
async fn foreign_page_token_is_refused_by_field() {
    let server = TestServer::start().await;
    for service in ["orders", "billing"] {
        for id in ["a", "b", "c"] {
            register(&mut server.registry(), instance(service, id)).await;
        }
    }
    let page = resolve(&server, page_of("orders", 1, "")).await.expect("a page");
    let token = page.next_page_token;
    for (service, bad) in [
        ("billing", token.as_str()),
        ("nothing", token.as_str()),
        ("orders", "a"),
        ("orders", "0"),
        ("orders", &token[1..]),
        ("orders", &format!("{token}a")),
        ("orders", &"x".repeat(100_000)),
        ("orders", "😀😀😀😀😀😀"),
    ] {
        for page_size in [0, 1] {
            let refused = resolve(&server, page_of(service, page_size, bad)).await;
            let refused = refused.expect_err("no token of this service");
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
            assert_eq!(bad_fields(&refused), ["page_token"]);
            assert!(refused.message().contains("next_page_token"), "{}", refused.message());
        }
    }
    let none = resolve(&server, page_of("nothing", 5, "")).await.expect("an empty page");
    assert_eq!((none.instances.len(), none.next_page_token.as_str()), (0, ""));
}

#[tokio::test]
async fn page_size_above_the_maximum_is_the_maximum() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    for number in 0..1_002 {
        register(&mut registry, instance(&format!("s-{number:04}"), "a")).await;
    }
    for page_size in [1_000, 1_001, 4_000_000, u32::MAX] {
        let request = ListServicesRequest { page_size, ..ListServicesRequest::default() };
        let page = server.discovery().list_services(request).await.expect("a page").into_inner();
        assert_eq!((page.services.len(), page.next_page_token.as_str()), (1_000, "s-0999"));
    }
}

/// The largest instance within the limits that are the default.
fn largest(id: usize) -> Instance {
    let ports = (1..=64).map(|port| (format!("{port:0>128}"), 65_535)).collect();
    Instance {
        id: format!("{id:0>256}"),
        host: format!("{}{}", "a.".repeat(120), "example.com."),
        ports,
        zone: "z".repeat(128),
        version: "v".repeat(128),
        metadata: (0..64).map(|key| (format!("{key:0>128}"), "m".repeat(128))).collect(),
        weight: Some(u32::MAX),
        ..instance(&"s".repeat(128), "")
    }
}

#[tokio::test]
async fn messages_with_the_largest_instances_stay_under_4_mib() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    for id in 0..200 {
        register(&mut registry, largest(id)).await;
    }
    let service = "s".repeat(128);
    let mut discovery = server.discovery();
    let mut follower = Follower::ready(&mut discovery, watch_of(&[&service])).await;
    assert_eq!(follower.state.len(), 200);
    assert_eq!(all_of(pages(&server, &page_of(&service, 1_000, "")).await).len(), 200);
    for id in 0..200 {
        register(&mut registry, Instance { weight: Some(1), ..largest(id) }).await;
    }
    follower.next_changes(200).await;
}

#[tokio::test]
async fn messages_stay_under_4_mib_with_raised_limits() {
    let limits = Limits {
        metadata_value_bytes_max: 256 * 1024,
        metadata_bytes_max: 512 * 1024,
        ..Limits::default()
    };
    let server = TestServer::start_with(limits).await;
    register_large(&server, 40, 2, 120 * 1024).await;
    let mut discovery = server.discovery();
    let follower = Follower::ready(&mut discovery, watch_of(&["big"])).await;
    assert_eq!(follower.state.len(), 40);
    assert_eq!(all_of(pages(&server, &page_of("big", 1_000, "")).await).len(), 40);
    register_large(&server, 40, 1, 10).await;
    assert_eq!(resolve_all(&mut discovery, "big").await.instances.len(), 40);
}
