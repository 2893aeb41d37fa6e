//! Lookups in a route table: case by case, and compared with a scan of all routes.

use std::{sync::Arc, time::Duration};

use http::Method;
use waypost_core::model::Name;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A route by its service, host, path and methods; `*` is any host, and no methods are all.
fn route(service: &str, host: &str, path: &str, methods: &[&str]) -> Route {
    let method = |name: &&str| name.parse().expect("a method");
    let methods = match methods {
        [] => Methods::All,
        methods => Methods::These(methods.iter().map(method).collect()),
    };
    let host = if host == "*" { HostPattern::Any } else { host.parse().expect("a host") };
    let path = path.parse().expect("a path");
    Route { host, path, methods, ..Route::to(service.parse().expect("a name"), TIMEOUT) }
}

/// Returns the result of a lookup as text: the service and the path, the methods allowed, or
/// `none`.
fn found(table: &RouteTable, host: &str, path: &str, method: &str) -> String {
    let host = (!host.is_empty()).then_some(host);
    match table.find(host, path, &method.parse().expect("a method")) {
        RouteMatch::Route { route, path } => format!("{} {path}", route.service),
        RouteMatch::Implicit { service, path, .. } => format!("{service} {path}"),
        RouteMatch::MethodNotAllowed { allow } => {
            format!("allow {}", allow.to_str().expect("text"))
        }
        RouteMatch::None => "none".into(),
    }
}

#[test]
fn an_exact_host_comes_before_longer_wildcards_before_any() {
    let table = RouteTable::new(
        [
            route("any", "*", "/", &[]),
            route("wide", "*.example.com", "/", &[]),
            route("narrow", "*.eu.example.com", "/", &[]),
            route("exact", "api.eu.example.com", "/", &[]),
            route("six", "[::1]", "/", &[]),
        ],
        Implicit::Off,
    );
    for (host, service) in [
        ("api.eu.example.com", "exact"),
        ("API.EU.Example.COM:8443", "exact"),
        ("api.eu.example.com.", "exact"),
        ("web.eu.example.com", "narrow"),
        ("a.b.eu.example.com", "narrow"),
        ("eu.example.com", "wide"),
        ("web.us.example.com", "wide"),
        ("example.com", "any"),
        (".example.com", "any"),
        ("badexample.com", "any"),
        ("[::1]:80", "six"),
        ("[::2]:80", "any"),
        ("ü.example.com", "wide"),
        ("", "any"),
    ] {
        assert_eq!(found(&table, host, "/x", "GET"), format!("{service} /x"), "{host}");
    }
}

#[test]
fn the_longest_path_of_whole_segments_counts() {
    let table = RouteTable::new(
        [
            route("root", "*", "/", &[]),
            route("orders", "*", "/v1/orders", &[]),
            route("items", "*", "/v1/orders/items/of", &[]),
        ],
        Implicit::Off,
    );
    for (path, service) in [
        ("/", "root"),
        ("/v1", "root"),
        ("/v1/", "root"),
        ("/v1/orders", "orders"),
        ("/v1/orders/", "orders"),
        ("/v1/orders/7", "orders"),
        ("/v1/orders//7", "orders"),
        ("/v1/orders/items", "orders"),
        ("/v1/orders/items/of/7", "items"),
        ("/v1/orders-old", "root"),
        ("/v1//orders", "root"),
        ("//v1/orders", "root"),
        ("/V1/orders", "root"),
        ("/v1/%6frders", "orders"),
        ("/%761/%6Frder%73/7", "orders"),
        ("/v1/orders;v=1/7", "orders"),
        ("/v1/orders%3bv=1/7", "orders"),
        ("/v1/%256frders", "root"),
        ("/v1/%ffrders", "root"),
    ] {
        assert_eq!(found(&table, "", path, "GET"), format!("{service} {path}"));
    }
}

#[test]
fn a_host_without_the_path_falls_back_to_less_specific_ones() {
    let table = RouteTable::new(
        [
            route("exact", "api.example.com", "/v1", &[]),
            route("wide", "*.example.com", "/v2", &[]),
            route("any", "*", "/v3", &[]),
        ],
        Implicit::Routed { timeout: TIMEOUT },
    );
    assert_eq!(found(&table, "api.example.com", "/v1", "GET"), "exact /v1");
    assert_eq!(found(&table, "api.example.com", "/v2", "GET"), "wide /v2");
    assert_eq!(found(&table, "api.example.com", "/v3", "GET"), "any /v3");
    assert_eq!(found(&table, "api.example.com", "/v4", "GET"), "v4 /");
}

#[test]
fn a_method_that_the_most_specific_routes_lack_is_not_allowed() {
    let table = RouteTable::new(
        [
            route("all", "*", "/", &[]),
            route("reads", "*", "/orders", &["HEAD", "GET"]),
            route("writes", "*", "/orders", &["POST"]),
        ],
        Implicit::Routed { timeout: TIMEOUT },
    );
    assert_eq!(found(&table, "", "/orders/7", "GET"), "reads /orders/7");
    assert_eq!(found(&table, "", "/orders/7", "POST"), "writes /orders/7");
    assert_eq!(found(&table, "", "/orders/7", "PUT"), "allow GET, HEAD, POST");
    assert_eq!(found(&table, "", "/order", "PUT"), "all /order");
}

#[test]
fn implicit_routing_needs_the_name_of_a_service() {
    let table = RouteTable::new([], Implicit::Routed { timeout: TIMEOUT });
    for (path, expected) in [
        ("/orders", "orders /"),
        ("/orders/", "orders /"),
        ("/orders/v1/7", "orders /v1/7"),
        ("/orders//7", "orders //7"),
        ("/", "none"),
        ("//orders", "none"),
        ("/..", "none"),
        ("/-orders/7", "none"),
        ("/or%64ers/%37", "orders /%37"),
        ("/orders;v=1", "none"),
        ("", "none"),
        ("*", "none"),
        ("orders", "none"),
    ] {
        assert_eq!(found(&table, "", path, "GET"), expected, "{path}");
    }
    let way = table.find(None, "/orders", &Method::GET);
    assert!(matches!(way, RouteMatch::Implicit { timeout: TIMEOUT, .. }), "{way:?}");
    assert_eq!(found(&RouteTable::default(), "", "/orders", "GET"), "none");
}

#[test]
fn every_name_that_a_server_can_accept_has_a_route() {
    let longest = "x".repeat(Name::BYTES_MAX);
    let table = RouteTable::new([], Implicit::Routed { timeout: TIMEOUT });
    assert_eq!(found(&table, "", &format!("/{longest}/7"), "GET"), format!("{longest} /7"));
    let table = RouteTable::new([route(&longest, "*", "/v1", &[])], Implicit::Off);
    assert_eq!(found(&table, "", "/v1/7", "GET"), format!("{longest} /v1/7"));
}

#[test]
fn other_targets_have_no_route() {
    let table = RouteTable::new([route("root", "*", "/", &[])], Implicit::Off);
    for path in ["", "*", "orders", "example.com:443"] {
        assert_eq!(found(&table, "", path, "OPTIONS"), "none", "{path}");
    }
}

#[test]
fn the_instance_gets_the_path_that_the_route_makes() {
    let stripped = Route { prefix: Prefix::Stripped, ..route("a", "*", "/a", &[]) };
    let replaced = Prefix::Replaced("/in".parse().expect("a path"));
    let replaced = Route { prefix: replaced, ..route("b", "*", "/b", &[]) };
    let table = RouteTable::new([stripped, replaced], Implicit::Off);
    assert_eq!(found(&table, "", "/a", "GET"), "a /");
    assert_eq!(found(&table, "", "/a/7", "GET"), "a /7");
    assert_eq!(found(&table, "", "/b", "GET"), "b /in");
    assert_eq!(found(&table, "", "/b/7", "GET"), "b /in/7");
}

#[test]
fn of_two_routes_for_the_same_requests_the_first_gets_them() {
    let both = [route("first", "*", "/a", &["GET"]), route("second", "*", "/a", &[])];
    let table = RouteTable::new(both, Implicit::Off);
    assert_eq!(found(&table, "", "/a", "GET"), "first /a");
    assert_eq!(found(&table, "", "/a", "PUT"), "second /a");
    let services: Vec<_> = table.routes().iter().map(|route| route.service.as_str()).collect();
    assert_eq!(services, ["first", "second"]);
}

#[test]
fn a_lookup_of_a_configured_route_allocates_nothing() {
    let stripped =
        Route { prefix: Prefix::Stripped, ..route("a", "*.example.com", "/v1/a", &["GET"]) };
    let table = RouteTable::new([stripped], Implicit::Routed { timeout: TIMEOUT });
    for (method, path) in [(Method::GET, "/v1/a/7"), (Method::GET, "/v1/a"), (Method::PUT, "/v1/a")]
    {
        let allocated = allocation_counter::measure(|| {
            let found = table.find(Some("API.Example.com:80"), path, &method);
            assert!(!matches!(found, RouteMatch::None));
        });
        assert_eq!(allocated.count_total, 0, "{method} {path}");
    }
}

/// Returns the specificity of a pattern that matches a host.
fn specificity(pattern: &HostPattern, host: &str) -> Option<usize> {
    let host = host.to_ascii_lowercase();
    match pattern {
        HostPattern::Exact(name) => (*name == host).then_some(usize::MAX),
        HostPattern::Below(name) => {
            let label = host.strip_suffix(name.as_str())?.strip_suffix('.')?;
            (!label.is_empty()).then_some(name.len())
        }
        HostPattern::Any => Some(0),
    }
}

/// Returns the result that a lookup should have, by a scan of all routes.
fn by_scan(routes: &[Route], host: &str, path: &str, method: &Method) -> String {
    let mut best = Vec::new();
    let mut highest = None;
    for route in routes {
        let prefix = route.path.to_string();
        let prefix = if prefix == "/" { "" } else { &*prefix };
        let begins = path == prefix || path.starts_with(&format!("{prefix}/"));
        let Some(host) = specificity(&route.host, host).filter(|_| begins) else { continue };
        let specificity = Some((host, prefix.len()));
        if specificity > highest {
            best.clear();
            highest = specificity;
        }
        if specificity == highest {
            best.push(route);
        }
    }
    if best.is_empty() {
        return "none".into();
    }
    if let Some(route) = best.iter().find(|route| route.methods.contain(method)) {
        return format!("{} {path}", route.service);
    }
    let mut allow: Vec<&str> = Vec::new();
    for route in best {
        let Methods::These(methods) = &route.methods else { unreachable!("it takes all methods") };
        allow.extend(methods.iter().map(Method::as_str));
    }
    allow.sort_unstable();
    allow.dedup();
    format!("allow {}", allow.join(", "))
}

/// Returns a random path of few different segments, so that many paths match.
fn some_path(random: &mut fastrand::Rng, segments: &[&str]) -> String {
    let count = random.usize(0..5);
    let path: String =
        (0..count).map(|_| format!("/{}", segments[random.usize(..segments.len())])).collect();
    if path.is_empty() { "/".into() } else { path }
}

fn some_host(random: &mut fastrand::Rng) -> String {
    let count = random.usize(1..4);
    let labels: Vec<&str> = (0..count).map(|_| ["a", "b", "com"][random.usize(..3)]).collect();
    labels.join(".")
}

fn some_route(random: &mut fastrand::Rng, service: usize) -> Route {
    let host = match random.u8(..3) {
        0 => "*".to_owned(),
        1 => format!("*.{}", some_host(random)),
        _ => some_host(random),
    };
    let methods: &[&str] = match random.u8(..4) {
        0 => &[],
        1 => &["GET"],
        2 => &["POST", "PUT"],
        _ => &["GET", "PUT"],
    };
    route(&format!("s{service}"), &host, &some_path(random, &["x", "y", "xy"]), methods)
}

#[test]
fn a_lookup_agrees_with_a_scan_of_all_routes() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        let count = random.usize(0..40);
        let routes: Vec<Route> = (0..count).map(|at| some_route(&mut random, at)).collect();
        let table = RouteTable::new(routes.iter().cloned(), Implicit::Off);
        for _ in 0..200 {
            let mut host = some_host(&mut random);
            if random.bool() {
                host = host.to_uppercase();
            }
            let path = some_path(&mut random, &["x", "y", "xy", "", "X"]);
            let method = ["GET", "POST", "PUT", "DELETE"][random.usize(..4)];
            let expected = by_scan(&routes, &host, &path, &method.parse().expect("a method"));
            let authority = if random.bool() { format!("{host}:80") } else { host };
            assert_eq!(found(&table, &authority, &path, method), expected, "{authority}{path}");
        }
    }
}

#[test]
fn a_path_that_could_be_read_as_one_of_another_route_is_ambiguous() {
    let table = RouteTable::new(
        [
            route("all", "*", "/", &[]),
            route("git", "*", "/git", &[]),
            route("admin", "*", "/git/admin", &[]),
            route("reads", "*", "/git/reads", &["GET"]),
            route("shop", "shop.example", "/git/shop", &[]),
        ],
        Implicit::Routed { timeout: TIMEOUT },
    );
    for (host, path, expected) in [
        ("", "/git/a%2Fb", false),
        ("", "/git/a//b", false),
        ("", "/x%2Fgit/admin", false),
        ("", "/git/%2F/admin2", false),
        ("", "/git/a%2Fadmin", false),
        ("", "/git/admin/a%2Fb//c", false),
        ("", "/git%2Fadmin", true),
        ("", "/git%2fa", true),
        ("", "/%2Fgit", true),
        ("", "//git/a", true),
        ("", "/git//admin/a", true),
        ("", "/git/%2Fadmin", true),
        ("", "/git/%2F%2Fadmin/a", true),
        ("", "/git/admin%2Fa", true),
        ("", "/git/%61dmin%2Fa", true),
        ("", "/git//reads", true),
        ("", "/git/x%2Fshop", false),
        ("shop.example", "/git//shop", true),
        ("shop.example", "/git/shop//a", false),
    ] {
        let host = (!host.is_empty()).then_some(host);
        let RouteMatch::Route { route, .. } = table.find(host, path, &Method::POST) else {
            panic!()
        };
        assert_eq!(table.is_ambiguous(host, path, &Method::POST, route), expected, "{path}");
    }
}

/// Returns all readings of a path: each encoded slash is decoded or not, and each run of slashes is
/// merged or not.
fn readings(path: &str) -> Vec<String> {
    let mut readings = vec![String::new()];
    let mut rest = path;
    while !rest.is_empty() {
        let (piece, others): (&str, &[&str]) = match rest {
            rest if rest.starts_with("%2F") => ("%2F", &["%2F", "/", ""]),
            rest if rest.starts_with('/') => ("/", &["/", ""]),
            rest => (&rest[..1], &[]),
        };
        rest = &rest[piece.len()..];
        let with = |reading: &String| {
            // A slash is left out behind a slash alone.
            let ends = reading.ends_with('/');
            let others = if others.is_empty() { vec![piece] } else { others.to_vec() };
            others
                .into_iter()
                .filter(move |other| ends || !other.is_empty())
                .map(|other| format!("{reading}{other}"))
                .collect::<Vec<_>>()
        };
        readings = readings.iter().flat_map(with).collect();
    }
    readings
}

#[test]
fn a_path_that_is_not_ambiguous_leads_to_one_route_however_it_is_read() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let table = RouteTable::new(
        ["/", "/a", "/a/b", "/b/a", "/a/b/a", "/b"]
            .map(|path| route(&format!("r{}", path.replace('/', "-0")), "*", path, &[])),
        Implicit::Off,
    );
    let pieces = ["a", "b", "%61", "/", "/", "%2F", ";", "%3B", "%2Fa", "/b"];
    let mut compared = 0;
    for _ in 0..20_000 {
        let soup: String =
            (0..random.usize(1..9)).map(|_| pieces[random.usize(..pieces.len())]).collect();
        let path = format!("/{soup}");
        let request = http::Request::get(&*path).header("host", "a").body(()).expect("a request");
        if crate::guard::check(&request.into_parts().0).is_err() {
            continue;
        }
        let RouteMatch::Route { route, .. } = table.find(None, &path, &Method::GET) else {
            panic!()
        };
        if table.is_ambiguous(None, &path, &Method::GET, route) {
            continue;
        }
        for reading in readings(&path) {
            let found = table.find(None, &reading, &Method::GET);
            let RouteMatch::Route { route: other, .. } = found else { panic!("{reading}") };
            assert!(Arc::ptr_eq(route, other), "{path} read as {reading}");
            compared += 1;
        }
    }
    assert!(compared > 1_000, "{compared}");
}
