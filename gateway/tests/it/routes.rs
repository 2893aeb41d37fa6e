//! Which instance a request goes to, and what it is asked there.

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use waypost_client::Registration;

use crate::support::{Answer, Gateway, Instance, act, full, until};

/// An instance that answers with its id and the path that it is asked.
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
