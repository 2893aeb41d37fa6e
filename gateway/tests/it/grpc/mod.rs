//! Calls of gRPC, by a client that tonic makes, to an instance that serves with tonic.

mod greetings;

use futures_util::{StreamExt, stream};
use http::{Request as HttpRequest, uri::PathAndQuery};
use tokio::sync::mpsc;
use tonic::{
    Code, Request, Status, Streaming,
    body::Body,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use waypost_testing::greeter::{GreetRequest, GreetResponse};

use crate::{
    grpc::greetings::{GREET, GREET_EACH, GREET_MANY, greet},
    support::{Gateway, Instance, act, full, soon, until, whole},
};

/// A client of the gateway with this host as its authority.
async fn client(gateway: &Gateway, host: &str) -> Grpc<Channel> {
    let address = format!("http://{}", gateway.running.address());
    let endpoint = Endpoint::try_from(address).unwrap();
    let channel = endpoint.origin(format!("http://{host}").parse().unwrap()).connect_lazy();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    client
}

fn named(name: &str) -> GreetRequest {
    GreetRequest { name: name.into() }
}

fn codec() -> ProstCodec<GreetRequest, GreetResponse> {
    ProstCodec::default()
}

async fn call(
    client: &mut Grpc<Channel>,
    request: Request<GreetRequest>,
) -> Result<String, Status> {
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(GREET);
    let answer = soon(client.unary(request, path, codec())).await?;
    Ok(answer.into_inner().greeting)
}

async fn call_many(client: &mut Grpc<Channel>, name: &str) -> Streaming<GreetResponse> {
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(GREET_MANY);
    let calling = client.server_streaming(Request::new(named(name)), path, codec());
    soon(calling).await.unwrap().into_inner()
}

/// A gateway before an instance of `service` that greets.
async fn greeting(config: &str, service: &str) -> (Gateway, Instance) {
    let gateway = Gateway::new(config).await;
    let instance = gateway.instance(service, "a", greet).await;
    (gateway, instance)
}

#[tokio::test]
async fn call_is_routed_by_its_authority() {
    let (gateway, instance) = greeting("", "greeter").await;
    for host in ["greeter", "greeter:8080"] {
        let mut client = client(&gateway, host).await;
        let greeted = call(&mut client, Request::new(named("ann"))).await.unwrap();
        assert_eq!(greeted, "hello ann");
        assert_eq!(instance.last().path, GREET);
    }
    let line = &gateway.told(2).await[0];
    assert_eq!((&line["service"], &line["instance"]), (&"greeter".into(), &"a".into()));
    assert_eq!((&line["protocol"], &line["path"]), (&"HTTP/2".into(), &GREET.into()));
}

#[tokio::test]
async fn call_is_routed_by_its_path() {
    let (gateway, instance) = greeting("", "greeter.Greeter").await;
    let mut client = client(&gateway, "gateway.example").await;
    assert_eq!(call(&mut client, Request::new(named("ann"))).await.unwrap(), "hello ann");
    assert_eq!(instance.last().path, GREET);
}

#[tokio::test]
async fn call_is_routed_by_a_configured_route() {
    let config = "implicit = false\n[[routes]]\npath = '/greeter.Greeter'\nservice = 'greeter'";
    let (gateway, _instance) = greeting(config, "greeter").await;
    let mut client = client(&gateway, "gateway.example").await;
    assert_eq!(call(&mut client, Request::new(named("ann"))).await.unwrap(), "hello ann");
}

#[tokio::test]
async fn server_stream_passes_through() {
    let (gateway, _instance) = greeting("", "greeter").await;
    let mut client = client(&gateway, "greeter").await;
    let greetings = call_many(&mut client, "ann").await;
    let greetings: Vec<_> =
        soon(greetings.map(|greeted| greeted.unwrap().greeting).collect()).await;
    assert_eq!(greetings, ["hello ann"; 3]);
}

#[tokio::test]
async fn bidirectional_stream_passes_through() {
    let (gateway, _instance) = greeting("", "greeter").await;
    let mut client = client(&gateway, "greeter").await;
    let (feed, fed) = mpsc::channel(1);
    let fed = stream::unfold(fed, |mut fed| async move { Some((fed.recv().await?, fed)) });
    let path = PathAndQuery::from_static(GREET_EACH);
    feed.send(named("first")).await.unwrap();
    let calling = client.streaming(Request::new(fed), path, codec());
    let mut greetings = soon(calling).await.unwrap().into_inner();
    assert_eq!(soon(greetings.message()).await.unwrap().unwrap().greeting, "hello first");
    for name in ["ann", "bob"] {
        feed.send(named(name)).await.unwrap();
        let greeted = soon(greetings.message()).await.unwrap().unwrap();
        assert_eq!(greeted.greeting, format!("hello {name}"));
    }
    drop(feed);
    assert_eq!(soon(greetings.message()).await.unwrap(), None);
}

#[tokio::test]
async fn error_keeps_its_details() {
    let (gateway, instance) = greeting("", "greeter").await;
    let mut client = client(&gateway, "greeter").await;
    let at_once = call(&mut client, Request::new(named("nobody"))).await.unwrap_err();
    let mut greetings = call_many(&mut client, "last").await;
    for _ in 0..2 {
        assert!(soon(greetings.message()).await.unwrap().is_some());
    }
    let at_the_end = soon(greetings.message()).await.unwrap_err();
    for status in [at_once, at_the_end] {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "nobody is there");
        assert_eq!(status.metadata().get("x-reason").unwrap(), "gone");
    }
    assert_eq!(instance.seen().len(), 2, "what was served is not sent again");
}

#[tokio::test]
async fn metadata_passes_both_ways() {
    let (gateway, instance) = greeting("", "greeter").await;
    let mut client = client(&gateway, "greeter").await;
    let mut request = Request::new(named("ann"));
    request.metadata_mut().insert("x-own", "7".parse().unwrap());
    request.metadata_mut().insert("x-request-id", "r-7".parse().unwrap());
    request
        .metadata_mut()
        .insert_bin("x-own-bin", tonic::metadata::MetadataValue::from_bytes(b"\0\xff"));
    let path = PathAndQuery::from_static(GREET);
    let answer = soon(client.unary(request, path, codec())).await.unwrap();
    let seen = instance.last();
    assert_eq!((seen.header("x-own"), seen.header("x-request-id")), (Some("7"), Some("r-7")));
    assert!(seen.header("x-own-bin").is_some());
    assert_eq!(seen.header("te"), Some("trailers"));
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "r-7");
}

#[tokio::test]
async fn call_without_a_route_gets_a_status() {
    let gateway = Gateway::new("").await;
    let mut client = client(&gateway, "nobody.example").await;
    let status = call(&mut client, Request::new(named("ann"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let id = status.metadata().get("x-request-id").unwrap().to_str().unwrap();
    assert!(status.message().contains(id), "{status:?}");
    // And no more than that.
    let request = HttpRequest::post(GREET).header("content-type", "application/grpc");
    let answer = gateway.http2().send(request.body(Body::empty()).unwrap()).await;
    let answer = whole(answer).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, ""));
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    assert_eq!(answer.header("grpc-status"), Some("12"));
}

#[tokio::test]
async fn call_without_instances_is_unavailable() {
    let config = "[[routes]]\npath = '/greeter.Greeter'\nservice = 'greeter'";
    let gateway = Gateway::new(config).await;
    let mut client = client(&gateway, "gateway.example").await;
    let status = call(&mut client, Request::new(named("ann"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn deadline_is_enforced_and_propagated() {
    let gateway = Gateway::new("").await;
    let instance = gateway.instance("greeter", "a", act::hang).await;
    until(async || {
        // By hand, since a client of tonic does not wait for the response.
        let request = HttpRequest::post(GREET).header("content-type", "application/grpc");
        let request = request.header("host", "greeter").header("grpc-timeout", "50m");
        let answer = gateway.http2().send(request.body(full(vec![0; 5])).unwrap()).await;
        assert_eq!(whole(answer).await.header("grpc-status"), Some("4"));
        !instance.seen().is_empty()
    })
    .await;
    assert!(instance.last().header("grpc-timeout").is_some());
}
