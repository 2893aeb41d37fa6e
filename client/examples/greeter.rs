//! A greeter that registers itself, serves, and stops without failing a call: on SIGTERM or ctrl-c
//! it drains first, so that callers stop picking it and open calls finish.
//!
//! ```sh
//! greeter --registry http://127.0.0.1:7510 --name greeter --listen 127.0.0.1:0 [--id ID] \
//!     [--secure FOLDER]
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{env, error::Error, time::Duration};

use tokio::{net::TcpListener, signal::unix};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, service::LayerExt, transport::Server};
use waypost_client::{Client, Credentials, InFlight, Registration};
use waypost_testing::greeter::{
    GreetRequest, GreetResponse,
    greeter_server::{Greeter, GreeterServer},
};

/// The longest time of a drain: less than a supervisor waits before it kills the process.
const GRACE: Duration = Duration::from_secs(10);

struct English {
    instance: String,
}

#[tonic::async_trait]
impl Greeter for English {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        let greeting = format!("hello {}", request.into_inner().name);
        Ok(Response::new(GreetResponse { greeting, instance: self.instance.clone() }))
    }
}

struct Flags {
    registry: String,
    /// The identity folder for a registry with TLS.
    secure: Option<String>,
    name: String,
    listen: String,
    id: Option<String>,
}

fn flags() -> Result<Flags, String> {
    let mut flags = Flags {
        registry: env::var("WAYPOST_REGISTRY").unwrap_or("http://127.0.0.1:7510".into()),
        secure: None,
        name: "greeter".into(),
        listen: "127.0.0.1:0".into(),
        id: None,
    };
    let mut words = env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--registry" => flags.registry = value,
            "--secure" => flags.secure = Some(value),
            "--name" => flags.name = value,
            "--listen" => flags.listen = value,
            "--id" => flags.id = Some(value),
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    Ok(flags)
}

/// A client in clear text, or over TLS with the certificate in a folder.
fn client(registry: String, secure: Option<String>) -> Result<Client, Box<dyn Error>> {
    let builder = Client::builder().registry(registry);
    Ok(match secure {
        Some(folder) => builder.credentials(Credentials::folder(folder)?).build()?,
        None => builder.build()?,
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let flags = flags()?;
    // Bound before it is registered, so that callers that find it reach it.
    let listener = TcpListener::bind(&flags.listen).await?;
    let address = listener.local_addr()?;
    let mut registration = Registration::new(flags.name, address.ip().to_string(), address.port());
    if let Some(id) = flags.id {
        registration = registration.id(id);
    }
    let registered = client(flags.registry, flags.secure)?.register(registration).await?;
    let instance = registered.instance();
    println!("registered {} {} at {address}", instance.service, instance.id);

    let in_flight = InFlight::new();
    let greeter = GreeterServer::new(English { instance: instance.id.clone() });
    let service = in_flight.named_layer(greeter);
    // The server stops after the drain, when no caller picks it any more.
    let left = async {
        if let Err(error) = asked_to_end().await {
            eprintln!("signals can't be heard: {error}");
        }
        let drained = registered.drain_calls(&in_flight, GRACE).await;
        if let Err(error) = drained.deregistered {
            eprintln!("still registered until the TTL has passed: {error}");
        }
    };
    Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), left)
        .await?;
    println!("done");
    Ok(())
}

async fn asked_to_end() -> Result<(), std::io::Error> {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}
