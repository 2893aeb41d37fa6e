//! What clients and the registry prove to each other: certificates in handshakes, tokens of
//! requests, and their renewal while the client works.

mod handshakes;
mod rotation;
mod settings;
mod tokens;

use std::{net::SocketAddr, path::Path, time::Duration};

use tokio::time::timeout;
use waypost_client::{Client, Credentials, Registered, Registration, RegistryState};

/// Waits within bounds: a test that hangs fails.
async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), wait).await.expect("it takes too long")
}

fn credentials(folder: &Path) -> Credentials {
    Credentials::folder(folder).unwrap()
}

/// A client of the registry at this port.
fn client(address: SocketAddr, credentials: Credentials) -> Client {
    let url = format!("https://{address}");
    Client::builder().registry(url).credentials(credentials).build().unwrap()
}

fn an_order() -> Registration {
    Registration::new("orders", "10.0.0.1", 80).id("a")
}

async fn register(client: &Client) -> Registered {
    soon(client.register(an_order())).await.unwrap()
}

/// The reason for which the registry is unreachable.
async fn unreachable(client: &Client) -> String {
    let _service = client.service("orders");
    let mut state = client.registry_state();
    let unreachable = |state: &RegistryState| matches!(state, RegistryState::Unreachable { .. });
    match &*soon(state.wait_for(unreachable)).await.unwrap() {
        RegistryState::Unreachable { reason, .. } => reason.to_string(),
        other => panic!("{other:?}"),
    }
}
