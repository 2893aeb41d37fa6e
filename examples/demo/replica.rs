//! A replica's process: serves HTTP, keeps itself registered, and drains on SIGTERM without failing
//! a request.

use std::{env, path::Path, process::ExitCode, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use waypost_client::{InFlight, Registration, correlation::CorrelationLayer};

use crate::{Outcome, access, orders, prices};

/// Short, as the demonstration is: how long the registry waits for a silent replica, and for one
/// whose connection broke.
const TTL: Duration = Duration::from_secs(5);
const DISCONNECT_GRACE: Duration = Duration::from_secs(1);
/// The longest time of a drain.
const LEAVING_MAX: Duration = Duration::from_secs(10);

/// Serves with the arguments: service, replica id, registry, and an identity folder if it needs
/// one.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let served = match &words[..] {
        [service, id, registry] => Box::pin(serve(service, id, registry, None)).await,
        [service, id, registry, folder] => {
            Box::pin(serve(service, id, registry, Some(folder.as_ref()))).await
        }
        _ => Err("SERVICE ID REGISTRY [FOLDER]".into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("a replica: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(service: &str, id: &str, registry: &str, folder: Option<&Path>) -> Outcome<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let client = access::client(registry, folder)?;
    let router = match service {
        orders::SERVICE => {
            let prices = client.service(prices::SERVICE);
            prices.ready().await?;
            orders::router(id.to_owned(), &prices)
        }
        _ => prices::router(id.to_owned()),
    };
    let in_flight = InFlight::new();
    let router = router.layer(in_flight.clone()).layer(CorrelationLayer);
    // Bound before it is registered, so that callers that find it reach it.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let registration = Registration::new(service, address.ip().to_string(), address.port())
        .id(id)
        .ttl(TTL)
        .disconnect_grace(DISCONNECT_GRACE);
    let registered = client.register(registration).await?;
    let leave = async move {
        terminate.recv().await;
        registered.drain_calls(&in_flight, LEAVING_MAX).await;
    };
    axum::serve(listener, router).with_graceful_shutdown(leave).await?;
    Ok(())
}
