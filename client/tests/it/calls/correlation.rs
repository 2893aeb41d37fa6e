//! Ids that travel through a server to the next.

use http::HeaderMap;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use waypost_client::{
    BalancedChannel,
    correlation::{self, CorrelationLayer},
};
use waypost_testing::greeter::{
    GreetRequest, GreetResponse,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

use super::{Behavior, World, call, fixed, greet, request};

/// Passes calls on to the next one.
struct Relay(BalancedChannel);

#[tonic::async_trait]
impl Greeter for Relay {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        GreeterClient::new(self.0.clone()).greet(request.into_inner()).await
    }
}

#[tokio::test]
async fn correlation_travels_through_a_server_to_the_next() {
    let world = World::new();
    let _a = world.replica("a", Behavior::Answer);
    let relay = GreeterServer::new(Relay(world.channel(1).await));
    let server = tonic::transport::Server::builder().layer(CorrelationLayer).add_service(relay);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", "00-1-2-01".parse().unwrap());
    headers.insert("x-request-id", "7".parse().unwrap());
    headers.insert("cookie", "secret".parse().unwrap());
    let relayed = fixed([port]).channel();
    let calling = correlation::scope(&headers, async {
        greet(&relayed).await.unwrap();
        // A header of the call itself stays.
        let mut own = request("you");
        own.metadata_mut().insert("x-request-id", "8".parse().unwrap());
        call(&relayed, own).await.unwrap();
    });
    calling.await;
    greet(&relayed).await.unwrap();
    let seen = world.seen();
    let of = |name| -> Vec<_> { seen.iter().map(|seen| seen.header(name)).collect() };
    assert_eq!(of("x-request-id"), [Some("7"), Some("8"), None]);
    assert_eq!(of("traceparent"), [Some("00-1-2-01"), Some("00-1-2-01"), None]);
    assert_eq!(of("cookie"), [None; 3]);
}
