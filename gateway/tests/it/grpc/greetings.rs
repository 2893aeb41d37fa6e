//! An instance that greets over gRPC: one, many, and streams.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use http::Request as HttpRequest;
use hyper::body::Incoming;
use tonic::{Request, Response, Status, Streaming, body::Body, server::Grpc};
use tonic_prost::ProstCodec;
use tower::service_fn;
use waypost_testing::greeter::{GreetRequest, GreetResponse};

use crate::support::Acted;

pub const GREET: &str = "/greeter.Greeter/Greet";
/// The same, again and again.
pub const GREET_MANY: &str = "/greeter.Greeter/GreetMany";
/// The same for each request of a stream, as it comes.
pub const GREET_EACH: &str = "/greeter.Greeter/GreetEach";

type Greetings = Pin<Box<dyn Stream<Item = Result<GreetResponse, Status>> + Send>>;

/// Greets names; refuses `nobody` at once, and `last` after a greeting.
pub async fn greet(request: HttpRequest<Incoming>) -> Acted {
    let path = request.uri().path().to_owned();
    let request = request.map(Body::new);
    let mut grpc = Grpc::new(ProstCodec::<GreetResponse, GreetRequest>::default());
    Ok(match path.as_str() {
        GREET => {
            let one = |request: Request<GreetRequest>| async move {
                greeting(request.get_ref()).map(Response::new)
            };
            grpc.unary(service_fn(one), request).await
        }
        GREET_MANY => {
            let many = |request: Request<GreetRequest>| async { many(request.into_inner()) };
            grpc.server_streaming(service_fn(many), request).await
        }
        GREET_EACH => {
            let each = |request: Request<Streaming<GreetRequest>>| async {
                let greetings = request.into_inner().map(|asked| greeting(&asked?));
                Ok::<_, Status>(Response::new(Box::pin(greetings) as Greetings))
            };
            grpc.streaming(service_fn(each), request).await
        }
        _ => Status::unimplemented("no such greeting").into_http(),
    })
}

fn many(asked: GreetRequest) -> Result<Response<Greetings>, Status> {
    let last = asked.name == "last";
    let greetings = stream::iter(0..3).map(move |turn| match turn {
        2 if last => Err(farewell()),
        _ => greeting(&asked),
    });
    Ok(Response::new(Box::pin(greetings)))
}

fn greeting(asked: &GreetRequest) -> Result<GreetResponse, Status> {
    if asked.name == "nobody" {
        return Err(farewell());
    }
    Ok(GreetResponse { greeting: format!("hello {}", asked.name), instance: "a".into() })
}

fn farewell() -> Status {
    let mut status = Status::failed_precondition("nobody is there");
    status.metadata_mut().insert("x-reason", "gone".parse().unwrap());
    status
}
