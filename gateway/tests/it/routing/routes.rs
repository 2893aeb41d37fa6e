//! Routing: the instance of a request, and the target that it receives.

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use waypost_client::Registration;

use crate::support::{Answer, Caller, Gateway, Instance, Setup, act, full, until, whole};

/// An instance that responds with its id and the requested path.
async fn named(
    gateway: &Gateway,
    id: &'static str,
    say: impl Fn(Registration) -> Registration,
) -> Instance {
    let instance = Instance::serve(move |request: Request<Incoming>| async move {
        Ok(Response::new(full(format!("{id} {}", request.uri()))))
    })
    .await;
    gateway.registry.join(say(instance.registration("orders", id)));
    instance
}

async fn get_at(gateway: &Gateway, host: &str, path: &str) -> Answer {
    let request = Request::get(path).header("host", host).body(Body::empty()).unwrap();
    gateway.send(request).await
}

#[tokio::test]
async fn a_route_is_chosen_by_host_prefix_and_method() {
    let gateway = Gateway::new(
        "implicit = false
        [[routes]]
        path = '/v1'
        service = 'rest'
        [[routes]]
        path = '/v1/orders'
        service = 'orders'
        methods = ['GET', 'HEAD']
        [[routes]]
        path = '/v1/orders'
        service = 'writer'
        methods = ['POST']
        [[routes]]
        host = 'shop.example'
        service = 'shop'
        [[routes]]
        host = '*.example'
        service = 'other'",
    )
    .await;
    let mut instances = Vec::new();
    for service in ["rest", "orders", "writer", "shop", "other"] {
        let say = move |_| async move { Ok(Response::new(full(service))) };
        instances.push(gateway.instance(service, service, say).await);
    }
    for (host, path, expected) in [
        ("gateway", "/v1/orders/7", "orders"),
        ("gateway", "/v1/orders", "orders"),
        ("gateway", "/v1/orders-old", "rest"),
        ("gateway", "/v1", "rest"),
        ("shop.example", "/v1/orders", "shop"),
        ("SHOP.example:8080", "/", "shop"),
        ("www.example", "/", "other"),
    ] {
        let answer = get_at(&gateway, host, path).await;
        assert_eq!(answer.text(), expected, "{host} {path}");
    }
    assert_eq!(gateway.post("/v1/orders", "").await.text(), "writer");
    assert_eq!(gateway.get("/orders").await.status, 404, "the implicit way is off");
}

#[tokio::test]
async fn the_prefix_is_kept_stripped_or_replaced() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/kept'
        service = 'orders'
        [[routes]]
        path = '/stripped'
        service = 'orders'
        strip = true
        [[routes]]
        path = '/replaced'
        service = 'orders'
        rewrite = '/in/side'",
    )
    .await;
    let _instance = named(&gateway, "a", |registration| registration).await;
    for (asked, seen) in [
        ("/kept/7?a=b", "a /kept/7?a=b"),
        ("/stripped/7?a=b", "a /7?a=b"),
        ("/stripped?a=b", "a /?a=b"),
        ("/replaced/7?a=b", "a /in/side/7?a=b"),
        ("/replaced", "a /in/side"),
    ] {
        assert_eq!(gateway.get(asked).await.text(), seen, "{asked}");
    }
}

#[tokio::test]
async fn a_route_selects_instances_by_version_zone_and_metadata() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/new'
        service = 'orders'
        version = '2'
        [[routes]]
        path = '/near'
        service = 'orders'
        zones = ['north']
        [[routes]]
        path = '/big'
        service = 'orders'
        metadata = { size = 'big' }
        [[routes]]
        path = '/none'
        service = 'orders'
        version = '3'",
    )
    .await;
    let _old = named(&gateway, "old", |old| old.version("1").zone("north")).await;
    let _new = named(&gateway, "new", |new| new.version("2").zone("south")).await;
    let _big = named(&gateway, "big", |big| big.version("1").metadata("size", "big")).await;
    // Until the gateway knows of all three.
    let mut seen = std::collections::BTreeSet::new();
    until(async || {
        seen.insert(gateway.get("/orders/").await.text().to_owned());
        seen.len() == 3
    })
    .await;
    for (path, expected) in [("/new", "new /new"), ("/near", "old /near"), ("/big", "big /big")] {
        for _ in 0..20 {
            assert_eq!(gateway.get(path).await.text(), expected);
        }
    }
    assert_eq!(gateway.get("/none").await.status, 503);
}

#[tokio::test]
async fn requests_with_the_same_key_go_to_the_same_instance() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/carts'
        service = 'orders'
        policy = 'rendezvous'
        key = 'header:x-customer'",
    )
    .await;
    let instances = [
        gateway.instance("orders", "a", act::echo).await,
        gateway.instance("orders", "b", act::echo).await,
        gateway.instance("orders", "c", act::echo).await,
    ];
    let ask = async |customer: String| {
        let request = Request::get("/carts").header("x-customer", customer);
        assert_eq!(gateway.send(request.body(Body::empty()).unwrap()).await.status, 200);
    };
    let counts = || instances.each_ref().map(|instance| instance.seen().len());
    let mut customer = 0..;
    until(async || {
        ask(customer.next().unwrap().to_string()).await;
        counts().into_iter().all(|count| count > 0)
    })
    .await;
    let before = counts();
    for _ in 0..30 {
        ask("always".into()).await;
    }
    let mut more: Vec<usize> = counts().iter().zip(before).map(|(now, then)| now - then).collect();
    more.sort_unstable();
    assert_eq!(more, [0, 0, 30]);
}

/// A gateway with a route that allows unusual paths, one below it that requires a key, and one that
/// allows nothing.
async fn unusual_paths() -> Gateway {
    let config = "implicit = true
        [auth.api_keys]
        file = 'keys.toml'
        [[routes]]
        path = '/repo'
        service = 'orders'
        strip = true
        encoded_slashes = true
        empty_segments = true
        [[routes]]
        path = '/repo/admin'
        service = 'orders'
        auth = 'required'
        encoded_slashes = true
        [[routes]]
        path = '/slashes'
        service = 'orders'
        rewrite = '/in'
        encoded_slashes = true
        [[routes]]
        path = '/segments'
        service = 'orders'
        empty_segments = true
        [[routes]]
        path = '/plain'
        service = 'orders'";
    let keys = format!("[[keys]]\nid = 'ann'\nsha256 = '{}'", "0".repeat(64));
    let files = &[("keys.toml", &*keys)][..];
    Gateway::set_up(Setup { config, files, ..Setup::default() }).await
}

#[tokio::test]
async fn encoded_slashes_and_empty_segments_pass_if_a_route_allows_them() {
    let gateway = unusual_paths().await;
    let instance = gateway.instance("orders", "a", act::echo).await;
    for (asked, expected) in [
        ("/repo/v2/team%2Fimage/tags", "/v2/team%2Fimage/tags"),
        ("/repo/%2F/jobs?q=%2F//", "/%2F/jobs?q=%2F//"),
        ("/repo/a%2f%2Fb/", "/a%2f%2Fb/"),
        ("/repo/cut/https://img.example/b.png", "/cut/https://img.example/b.png"),
        ("/repo/a//", "/a//"),
        ("/slashes/urn%3Aa%2Fb", "/in/urn%3Aa%2Fb"),
        ("/slashes/a%2Fadmin", "/in/a%2Fadmin"),
        ("/segments//a///b", "/segments//a///b"),
    ] {
        for caller in [gateway.http1(), gateway.http2()] {
            let request = Request::get(asked).body(Body::empty()).unwrap();
            assert_eq!(caller.send(request).await.status(), 200, "{asked}");
            assert_eq!(instance.last().path, expected);
        }
    }
}

#[tokio::test]
async fn encoded_slashes_and_empty_segments_bypass_no_route() {
    let gateway = unusual_paths().await;
    let instance = gateway.instance("orders", "a", act::echo).await;
    for (asked, status, detail) in [
        // Not allowed there.
        ("/plain/a%2Fb", 400, "encoded slash"),
        ("/plain//a", 400, "empty segment"),
        ("/slashes/a//b", 400, "empty segment"),
        ("/segments/a%2Fb", 400, "encoded slash"),
        ("/orders/a%2Fb", 400, "encoded slash"),
        ("/orders//b", 400, "empty segment"),
        ("/repo%2Fx", 400, "encoded slash"),
        ("//repo/x", 400, "empty segment"),
        ("/repo/admin//x", 400, "empty segment"),
        // Another route, for a server that decodes first.
        ("/repo/admin%2Fx", 400, "another route"),
        ("/repo/%61dmin%2fx", 400, "another route"),
        ("/repo/%2Fadmin/x", 400, "another route"),
        ("/repo/a//../admin", 400, "dot segment"),
        ("/repo//admin", 400, "another route"),
        ("/repo//admin/x", 400, "another route"),
        // Anything else that stays refused.
        ("/repo/a%2F..%2Fadmin", 400, "dot segment"),
        ("/repo/a%2F%2e%2E/admin", 400, "dot segment"),
        ("/repo/a%252F..%252Fadmin", 400, "encoded slash"),
        ("/repo/a%5Cb", 400, "backslash"),
        ("/repo/a;x=%2Fb", 400, "parameters"),
        ("/repo//evil.example/x", 400, "two slashes"),
        ("/repo/admin/a%2Fb", 401, ""),
    ] {
        let answer = gateway.get(asked).await;
        assert_eq!(answer.status, status, "{asked}");
        assert!(answer.text().contains(detail), "{asked}: {}", answer.text());
    }
    assert!(instance.seen().is_empty());
}

#[tokio::test]
async fn unusual_methods_pass_if_a_route_names_them() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/dav'
        service = 'orders'
        methods = ['PROPFIND', 'QUERY', 'GET']
        [[routes]]
        path = '/all'
        service = 'orders'",
    )
    .await;
    let instance = gateway.instance("orders", "a", act::echo).await;
    let ask = async |caller: Caller, method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(full("body"));
        whole(caller.send(request.unwrap()).await).await
    };
    for caller in [gateway.http1(), gateway.http2()] {
        for method in ["PROPFIND", "QUERY"] {
            let answer = ask(caller, method, "/dav/a").await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, "body"), "{method}");
            assert_eq!(instance.last().method.as_str(), method);
        }
        let seen = instance.seen().len();
        for (method, path, status) in [
            ("MKCOL", "/dav/a", 405),
            ("POST", "/dav/a", 405),
            ("PROPFIND", "/all", 501),
            ("PROPFIND", "/orders/7", 501),
            ("PROPFIND", "/", 501),
            ("propfind", "/dav/a", 501),
            ("TRACE", "/dav/a", 501),
            ("TRACK", "/dav/a", 501),
        ] {
            let answer = ask(caller, method, path).await;
            assert_eq!(answer.status, status, "{method} {path}");
            let allow = (status == 405).then_some("GET, PROPFIND, QUERY");
            assert_eq!(answer.header("allow"), allow);
        }
        assert_eq!(instance.seen().len(), seen);
    }
}

#[tokio::test]
async fn instances_receive_the_stripped_prefix() {
    let config = "implicit = true
        [[routes]]
        path = '/v1/orders'
        service = 'orders'
        strip = true
        [[routes]]
        path = '/v2'
        service = 'orders'
        rewrite = '/'
        [[routes]]
        path = '/v3'
        service = 'orders'
        rewrite = '/in'
        [[routes]]
        path = '/kept'
        service = 'orders'";
    let cases = [
        ("/v1/orders/7", "/v1/orders"),
        ("/v1/%6frders;v=1/7", "/v1/orders"),
        ("/v2/a", "/v2"),
        ("/orders/a", "/orders"),
        ("/or%64ers", "/orders"),
        ("/v3/a", ""),
        ("/kept/a", ""),
    ];
    for (trusted, claimed) in [(&[][..], ""), (&["127.0.0.0/8"], "/edge")] {
        let gateway = Gateway::set_up(Setup { config, trusted, ..Setup::default() }).await;
        let instance = gateway.instance("orders", "a", act::echo).await;
        for (asked, expected) in cases {
            let request = Request::get(asked).header("x-forwarded-prefix", "/edge");
            let answer = gateway.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, 200, "{asked}");
            let expected = format!("{claimed}{expected}");
            let expected = (!expected.is_empty()).then_some(&*expected);
            assert_eq!(instance.last().header("x-forwarded-prefix"), expected, "{asked}");
        }
    }
}
