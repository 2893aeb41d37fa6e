//! Instances of services: small servers on loopback that record requests.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, Request, Response, Version};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::body::Body;
use waypost_client::Registration;

use super::until;

/// A response; an error closes the connection without one.
pub type Acted = Result<Response<Body>, &'static str>;

/// A request as an instance saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// With the query.
    pub path: String,
    pub version: Version,
    pub headers: HeaderMap,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// An instance, which is killed when this is dropped.
pub struct Instance {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    _running: JoinSet<()>,
}

impl Instance {
    /// Serves all requests so, in HTTP/1.1 and HTTP/2.
    pub async fn serve<F>(act: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Acted> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::default();
        let mut running = JoinSet::new();
        running.spawn(accept(listener, Arc::clone(&seen), act));
        Self { port, seen, _running: running }
    }

    /// The registration of the instance.
    pub fn registration(&self, service: &str, id: &str) -> Registration {
        Registration::new(service, "127.0.0.1", self.port).id(id)
    }

    /// The requests that reached it, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    /// Waits until it has received `times` requests.
    pub async fn until_asked(&self, times: usize) {
        until(async || self.seen().len() >= times).await;
    }
}

async fn accept<F>(
    listener: TcpListener,
    seen: Arc<Mutex<Vec<Seen>>>,
    act: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Acted> + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let (seen, act) = (Arc::clone(&seen), act.clone());
        connections.spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                seen.lock().unwrap().push(Seen {
                    method: request.method().clone(),
                    path: request.uri().path_and_query().unwrap().to_string(),
                    version: request.version(),
                    headers: request.headers().clone(),
                });
                act(request)
            });
            let server = auto::Builder::new(TokioExecutor::new());
            // Connections end as they like.
            let _ended = server.serve_connection_with_upgrades(TokioIo::new(stream), answer).await;
        });
    }
}

/// The only instance of `orders` behind a gateway, which echoes requests.
pub async fn orders(gateway: &super::Gateway) -> Instance {
    gateway.instance("orders", "a", act::echo).await
}

/// The act of instances on a request.
pub mod act {
    use std::future::{Ready, pending, ready};

    use super::{Acted, Body, Incoming, Request, Response};

    /// Responds with the request's body and trailers, as they come.
    pub async fn echo(request: Request<Incoming>) -> Acted {
        Ok(Response::new(Body::new(request.into_body())))
    }

    /// Reads the head, and closes the connection.
    pub fn die(_: Request<Incoming>) -> Ready<Acted> {
        ready(Err("closes the connection"))
    }

    /// Never responds.
    pub async fn hang(_: Request<Incoming>) -> Acted {
        pending().await
    }
}
