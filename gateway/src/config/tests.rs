//! Whole files: their values, and their errors.

use std::{collections::BTreeMap, fs, num::NonZeroU32, time::Duration};

use http::{HeaderName, HeaderValue, Method};
use tempfile::TempDir;
use waypost_client::{Filter, Policy};

use super::*;
use crate::guard::PathFeatures;
use crate::routes::{Access, HostPattern, KeySource, Methods, Prefix, Rate, Route};

/// A valid table `[auth]`, whose file is there.
const AUTH: &str = "[auth.api_keys]\nfile = 'keys.toml'\n";

fn read(text: &str) -> Result<GatewayConfig, ConfigErrors> {
    let directory = TempDir::new().expect("a directory");
    fs::write(directory.path().join("keys.toml"), "keys = []\n").expect("a file");
    GatewayConfig::parse(text, directory.path())
}

fn parse(text: &str) -> GatewayConfig {
    read(text).expect("a valid file")
}

/// The only route of a file, given all but its service.
fn route(text: &str) -> Route {
    let config = parse(&format!("[[routes]]\nservice = 'orders'\n{text}\n{AUTH}"));
    (*config.routes.routes()[0]).clone()
}

/// The errors of a file, one a line.
fn errors(text: &str) -> String {
    read(text).expect_err("an invalid file").to_string()
}

/// Asserts the only error of a route, without its line.
#[track_caller]
fn assert_error(text: &str, expected: &str) {
    let shown = errors(&format!("[[routes]]\nservice = 'orders'\n{text}\n"));
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let (line, message) = shown.split_once(": ").expect("a line and a message");
    assert!(line.starts_with("line "), "{shown}");
    assert!(message.starts_with(&format!("routes[0]{expected}")), "{shown}\n{expected}");
}

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("not 0")
}

#[test]
fn empty_file_is_the_default() {
    let config = parse("");
    let default = GatewayConfig::default();
    assert_eq!((&config.limits, &config.routes), (&default.limits, &default.routes));
    assert!(config.auth.is_none() && config.cors.is_none() && !config.compression);
    assert_eq!(config.limits.body, Some(16 << 20));
    assert_eq!(config.limits.timeout, Duration::from_secs(30));
    let implicit = Implicit::Routed { timeout: Duration::from_secs(30) };
    assert_eq!(config.routes.implicit(), implicit);
}

#[test]
fn route_with_a_service_alone_has_the_defaults() {
    let expected = Route::to("orders".parse().expect("a name"), Duration::from_secs(30));
    assert_eq!(route(""), expected);
    assert_eq!(expected.retries, 1);
    assert_eq!(expected.policy, Policy::PeakEwma);
    assert_eq!(expected.auth, Access::Open);
    assert_eq!(expected.prefix, Prefix::Kept);
    assert!(!expected.http2 && !expected.idempotent);
}

#[test]
fn route_with_every_key_is_read() {
    let read = route(
        "name = 'orders-read'
        host = 'API.example.com'
        path = '/v1/orders/'
        methods = ['GET', 'HEAD']
        rewrite = '/internal'
        encoded_slashes = true
        empty_segments = true
        versions = ['2', '3']
        zones = ['a']
        metadata = { tier = 'gold' }
        policy = 'rendezvous'
        key = 'header:X-Customer'
        timeout = '5s'
        retries = 2
        idempotent = true
        hedge = '50ms'
        in_flight = 100
        http2 = true
        auth = 'required'
        scopes = ['orders:read']
        rate = { per_second = 100, burst = 200 }",
    );
    let expected = Route {
        path_features: PathFeatures { encoded_slashes: true, empty_segments: true },
        given_name: "orders-read".parse().ok(),
        host: HostPattern::Exact("api.example.com".into()),
        path: "/v1/orders".parse().expect("a path"),
        methods: Methods::These(vec![Method::GET, Method::HEAD]),
        service: "orders".parse().expect("a name"),
        prefix: Prefix::Replaced("/internal".parse().expect("a path")),
        filter: Filter {
            versions: vec!["2".into(), "3".into()],
            zones: vec!["a".into()],
            metadata: BTreeMap::from([("tier".into(), "gold".into())]),
        },
        policy: Policy::Rendezvous,
        key: Some(KeySource::Header(HeaderName::from_static("x-customer"))),
        timeout: Duration::from_secs(5),
        retries: 2,
        idempotent: true,
        hedge: Some(Duration::from_millis(50)),
        in_flight: Some(count(100)),
        http2: true,
        auth: Access::Required { scopes: vec!["orders:read".into()] },
        rate: Some(Rate { per_second: count(100), burst: count(200) }),
    };
    assert_eq!(read, expected);
}

#[test]
fn missing_keys_follow_from_the_others() {
    let rate = route("rate = { per_second = 7 }").rate;
    assert_eq!(rate, Some(Rate { per_second: count(7), burst: count(7) }));
    assert_eq!(route("scopes = ['a']").auth, Access::Required { scopes: vec!["a".into()] });
    assert_eq!(route("auth = 'required'").auth, Access::Required { scopes: vec![] });
    assert_eq!(route("auth = 'optional'").auth, Access::Optional);
    assert_eq!(route("auth = 'none'").auth, Access::Open);
    assert_eq!(route("version = '2'").filter.versions, ["2"]);
    assert_eq!(route("strip = true").prefix, Prefix::Stripped);
    assert_eq!(route("strip = false").prefix, Prefix::Kept);
    let replaced = Prefix::Replaced("/in".parse().expect("a path"));
    assert_eq!(route("strip = true\nrewrite = '/in'").prefix, replaced);
    let sticky = route("policy = 'rendezvous'\nkey = 'client'");
    assert_eq!(sticky.key, Some(KeySource::Client));
}

#[test]
fn each_policy_has_its_word() {
    for (word, policy) in [
        ("peak-ewma", Policy::PeakEwma),
        ("least-request", Policy::LeastRequest),
        ("random", Policy::Random),
        ("round-robin", Policy::RoundRobin),
    ] {
        assert_eq!(route(&format!("policy = '{word}'")).policy, policy);
    }
}

#[test]
fn route_has_the_timeout_of_limits_unless_it_has_its_own() {
    let text = "implicit = true\n[limits]\ntimeout = '7s'\nbody = 0\n\
                [[routes]]\nservice = 'a'\npath = '/a'\n\
                [[routes]]\nservice = 'b'\ntimeout = '1s'\n";
    let config = parse(text);
    let timeouts = config.routes.routes().iter().map(|route| route.timeout.as_secs());
    assert_eq!(timeouts.collect::<Vec<_>>(), [7, 1]);
    assert_eq!(config.limits.body, None);
    let implicit = Implicit::Routed { timeout: Duration::from_secs(7) };
    assert_eq!(config.routes.implicit(), implicit);
    assert_eq!(parse("implicit = false").routes.implicit(), Implicit::Off);
    assert!(parse("compression = true").compression && !parse("").compression);
}

#[test]
fn routes_and_auth_disable_the_implicit_route() {
    let route = "[[routes]]\npath = '/a'\nservice = 'a'\n";
    let auth = AUTH;
    for (text, is_open) in [
        ("compression = true\n", true),
        ("implicit = true\n", true),
        ("implicit = false\n", false),
        (route, false),
        (auth, false),
        (&*format!("{auth}{route}"), false),
        (&*format!("implicit = true\n{route}"), true),
        (&*format!("implicit = true\n{auth}{route}"), true),
    ] {
        let implicit = parse(text).routes.implicit();
        assert_eq!(implicit != Implicit::Off, is_open, "{text}");
    }
}

#[test]
fn cors_is_read() {
    let text = "[cors]\norigins = ['https://App.example.com', 'http://localhost:3000']\n\
                methods = ['PUT']\nheaders = ['X-Customer']\nexposed = ['x-trace']\n\
                credentials = true\nmax_age = '1h'\n";
    let origins = ["https://app.example.com", "http://localhost:3000"];
    let expected = Cors {
        origins: Allowed::These(origins.map(HeaderValue::from_static).into()),
        methods: Allowed::These(vec![Method::PUT]),
        headers: Allowed::These(vec![HeaderName::from_static("x-customer")]),
        exposed: Allowed::These(vec![HeaderName::from_static("x-trace")]),
        credentials: true,
        max_age: Some(Duration::from_secs(60 * 60)),
    };
    assert_eq!(parse(text).cors, Some(expected));
    let all = parse("[cors]\norigins = ['*']\nheaders = ['*']\n").cors.expect("it is there");
    assert_eq!((all.origins, all.headers), (Allowed::Any, Allowed::Any));
    assert_eq!((all.methods, all.credentials), (Allowed::default(), false));
}

#[test]
fn errors_of_cors_are_reported() {
    let shown = errors(
        "[cors]\norigins = ['*', 'https://a']\nmethods = ['put']\nheaders = ['a b']\n\
         max_age = 5\n",
    );
    let expected = [
        "line 2: cors.origins: must have nothing beside '*'",
        "line 3: cors.methods[0]: 'put' must be a method in capital letters, such as GET",
        "line 4: cors.headers[0]: 'a b' must be the name of a header, such as x-customer",
        "line 5: cors.max_age: must be a string, and is of type integer",
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
    for origin in ["a", "a.b", "https://", "https://a/", "https://a/b", "https://u@a", "null", ""] {
        let shown = errors(&format!("[cors]\norigins = ['{origin}']\n"));
        assert!(shown.contains("cors.origins[0]: "), "{shown}");
    }
    assert!(errors("[cors]\n").starts_with("line 1: cors.origins: is missing"));
    let shown = errors("[cors]\norigins = ['*']\nexposed = ['*']\ncredentials = true\n");
    assert_eq!(shown.lines().count(), 2, "{shown}");
}

#[test]
fn errors_of_auth_have_their_own_lines_and_show_no_secret() {
    assert!(parse(AUTH).auth.is_some());
    let shown = errors(
        "implicit = 1\n[auth]\nsecret = 'hush'\n[auth.api_keys]\nfile = 'keys.toml'\nheder = 'x'\n\
         [auth.jwt]\nissuer = 7\nkeys = [\n{ alg = 'HS256' },\n{ alg = 'HS257' },\n]\n",
    );
    let expected = [
        "line 1: implicit: must be true or false, and is of type integer",
        "line 3: auth.secret: is no known key",
        "line 6: auth.api_keys.heder: is no known key",
        "line 8: auth.jwt.issuer: must be a string, and is of type integer",
        "line 10: auth.jwt.keys[0].secret_file: is missing, which HS256 needs",
        "line 11: auth.jwt.keys[1].alg: 'HS257' is not a known algorithm",
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
    let shown = errors("auth = 'hush'");
    assert_eq!(shown, "line 1: auth: must be a table, and is of type string");
}

#[test]
fn all_errors_are_reported_at_once_with_their_lines() {
    let text = "implicit = 1
[limits]
body = '10MB'
timeout = '0s'
more = 1
[[routes]]
name = 'a b'
host = 'a:80'
path = 'v1'
methods = ['GET', 'get', 7]
timeout = 'soon'
retries = 11
rate = { burst = 0, other = 1 }
metadata = { tier = 1 }
[[routes]]
service = 'orders'
colour = 'red'
[other]
";
    let expected = [
        "line 1: implicit: must be true or false, and is of type integer",
        "line 3: limits.body: '10MB' must be",
        "line 4: limits.timeout: '0s' must be more than 0s, and at most 24h",
        "line 5: limits.more: is no known key",
        "line 6: routes[0].service: is missing",
        "line 7: routes[0].name: 'a b' must be",
        "line 8: routes[0].host: 'a:80' must be",
        "line 9: routes[0].path: 'v1' must begin with '/'",
        "line 10: routes[0].methods[1]: 'get' must be",
        "line 10: routes[0].methods[2]: must be a string, and is of type integer",
        "line 11: routes[0].timeout: 'soon' must be",
        "line 12: routes[0].retries: '11' must be 0 to 10",
        "line 13: routes[0].rate.burst: '0' must be 1 to 4294967295",
        "line 13: routes[0].rate.per_second: is missing",
        "line 13: routes[0].rate.other: is no known key",
        "line 14: routes[0].metadata.tier: must be a string, and is of type integer",
        "line 17: routes[1].colour: is no known key",
        "line 18: other: is no known key",
    ];
    let shown = errors(text);
    for (shown, expected) in shown.lines().zip(expected) {
        assert!(shown.starts_with(expected), "{shown}\n{expected}");
    }
    assert_eq!(shown.lines().count(), expected.len(), "{shown}");
}

#[test]
fn values_that_exclude_each_other_are_an_error() {
    assert_error("methods = ['TRACE']", ".methods[0]: 'TRACE' must be another method");
    assert_error("methods = ['GET', 'CONNECT']", ".methods[1]: 'CONNECT' must be another");
    assert_error("encoded_slashes = 'yes'", ".encoded_slashes: must be true or false");
    assert_error("empty_segments = 1", ".empty_segments: must be true or false");
    assert_error("strip = false\nrewrite = '/a'", ".rewrite: replaces the prefix");
    assert_error("version = '1'\nversions = ['1']", ".version: is given beside versions");
    assert_error("key = 'client'", ".key: has an effect only");
    assert_error("policy = 'random'\nkey = 'client'", ".key: has an effect only");
    assert_error("policy = 'rendezvous'", ".key: is missing");
    assert_error("policy = 'rendezvous'\nkey = 'header:'", ".key: 'header:' must");
    assert_error("policy = 'rendezvous'\nkey = 'cookie:a'", ".key: 'cookie:a' must");
    assert_error("policy = 'least'\nkey = 'client'", ".policy: 'least' must be one of peak-ewma");
    assert_error("auth = 'none'\nscopes = ['a']", ".scopes: must come with");
    assert_error("auth = 'optional'\nscopes = ['a']", ".scopes: must come with");
    assert_error("auth = 'required'", ".auth: needs the table [auth]");
    assert_error("auth = 'optional'", ".auth: needs the table [auth]");
    assert_error("scopes = ['a']", ".scopes: needs the table [auth]");
    assert_error("scopes = ['a b']", ".scopes[0]: 'a b' must be one scope");
    assert_error("methods = []", ".methods: must not be empty");
    assert_error("in_flight = 0", ".in_flight: '0' must be 1 to");
    assert_error("hedge = '0s'", ".hedge: '0s' must be more than 0s");
    assert_error("retries = -1", ".retries: '-1' must be 0 to 10");
    assert_error("rate = 7", ".rate: must be a table");
    assert_error("path = '/a/../b'", ".path: '/a/../b' must not have a segment");
    assert_error("path = '/a%20b'", ".path: '/a%20b' must be of letters");
    assert_error("version = 2", ".version: must be a string");
}

#[test]
fn two_routes_with_one_name_are_an_error() {
    let text = "[[routes]]\nname = 'a'\nservice = 'a'\n\
                [[routes]]\nname = 'a'\nservice = 'b'\npath = '/b'\n\
                [[routes]]\nservice = 'a'\npath = '/c'\n";
    let shown = errors(text);
    assert_eq!(shown, "line 4: routes[1].name: 'a' is the name of routes[0] (line 1)");
}

#[test]
fn two_routes_for_the_same_requests_are_an_error_that_names_both() {
    let text = "[[routes]]\nname = 'reads'\nservice = 'a'\npath = '/v1'\nmethods = ['GET']\n\
                [[routes]]\nservice = 'b'\npath = '/v1'\nmethods = ['POST']\n\
                [[routes]]\nservice = 'c'\npath = '/v1/'\nmethods = ['PUT', 'GET']\ntimeout = 1\n\
                [[routes]]\nservice = 'd'\npath = '/v1'\nhost = 'A.b'\n\
                [[routes]]\nservice = 'e'\npath = '/v1'\nhost = 'a.B'\nmethods = ['GET']\n";
    let shown = errors(text);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    assert!(lines[0].starts_with("line 10: routes[2]: "), "{shown}");
    assert!(lines[0].contains("/v1 on any host that routes[0] ('reads', line 1)"), "{shown}");
    assert!(lines[1].starts_with("line 14: routes[2].timeout: "), "{shown}");
    assert!(lines[2].starts_with("line 19: routes[4]: "), "{shown}");
    assert!(lines[2].contains("routes[3] ('d', line 15)"), "{shown}");
    assert!(lines[2].contains("/v1 on a.b "), "{shown}");
}

#[test]
fn syntax_error_has_its_line() {
    for (text, line) in [("a = 1\nwhat\n", 2), ("[a]\n\n[a]\n", 3), ("a = \"\n", 1)] {
        let errors = read(text).expect_err("no TOML");
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert_eq!(errors.0[0].line, Some(line), "{errors}");
        assert!(!errors.0[0].message.contains('\n'), "{errors}");
    }
}

#[test]
fn routes_that_are_not_tables_are_errors() {
    assert!(errors("routes = 7").starts_with("line 1: routes: must be an array of tables"));
    assert!(errors("[routes]\n").starts_with("line 1: routes: must be an array of tables"));
    assert!(errors("routes = [{service = 'a'}, 7]").starts_with("line 1: routes[1]: must be a"));
    assert_eq!(parse("routes = [{service = 'a'}]").routes.routes().len(), 1);
}

#[test]
fn damaged_file_never_panics() {
    let good = "implicit = false\n[limits]\nbody = '1MiB'\n[cors]\norigins = ['*']\n\
                [auth.api_keys]\nfile = 'keys.toml'\n\
                [[routes]]\nservice = 'a'\nhost = '*.b.c'\nmethods = ['GET']\nretries = 2\n\
                rate = { per_second = 1 }\nscopes = ['a']\nmetadata = { 'ü' = 'b' }\n";
    parse(good);
    let directory = TempDir::new().expect("a directory");
    fs::write(directory.path().join("keys.toml"), "keys = []\n").expect("a file");
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..2_000 {
        let mut bytes = good.as_bytes().to_vec();
        for _ in 0..random.usize(1..4) {
            let place = random.usize(..bytes.len());
            bytes[place] = random.u8(..);
        }
        // It never panics, and each error is on a line of its own.
        let text = String::from_utf8_lossy(&bytes);
        if let Err(errors) = GatewayConfig::parse(&text, directory.path()) {
            assert!(!errors.0.is_empty(), "{text}");
            assert_eq!(errors.to_string().lines().count(), errors.0.len(), "{text}");
        }
    }
}
