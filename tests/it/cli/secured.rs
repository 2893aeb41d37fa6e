//! The files of `waypost ca init`, as the registry and its clients use them: two commands, and only
//! those are let in who belong there.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;
use waypost_client::{Client, Credentials, RegisterError, Registered, Registration};
use waypost_testing::wait::soon;

use super::support::{Server, finish, program};
use crate::support::serve;

/// The arguments that `ca init` prints for the registry.
async fn init(place: &TempDir) -> Vec<String> {
    let init = finish(program(["ca", "init"]).current_dir(place.path())).await;
    let next = init.stdout.lines().last().expect("the next command").to_owned();
    let words = next.split(' ').skip(2);
    // The registry runs in a directory of its own.
    let path = |word: &str| match word.strip_prefix("waypost-pki") {
        Some(file) => format!("{}/waypost-pki{file}", place.path().display()),
        None => word.to_owned(),
    };
    words.map(path).collect()
}

fn client(server: &Server, place: &TempDir, folder: &str, id: Option<&str>) -> Client {
    let folder = place.path().join("waypost-pki").join(folder);
    let credentials = Credentials::folder(folder).unwrap();
    let credentials = match id {
        Some(id) => credentials.server_id(id),
        None => credentials,
    };
    let url = server.url().replace("http://", "https://");
    let builder = Client::builder().namespace("shop").registry(&url);
    builder.credentials(credentials).build().unwrap()
}

async fn register(client: &Client, service: &str) -> Result<Registered, RegisterError> {
    let registration = Registration::new(service, "10.0.0.7", 80).id("a");
    soon("a response", client.register(registration)).await
}

#[tokio::test]
async fn two_commands_make_a_registry_that_lets_only_its_own_in() {
    let place = TempDir::new().unwrap();
    let server = Server::start_with(serve().arguments(init(&place).await)).await;
    let issue = ["ca", "issue", "orders", "--namespace", "shop"];
    assert_eq!(finish(program(issue).current_dir(place.path())).await.code, 0);

    let orders = client(&server, &place, "workloads/shop/orders", None);
    let registered = register(&orders, "orders").await.unwrap();
    let denied = register(&orders, "payments").await;
    assert!(matches!(denied, Err(RegisterError::Denied(_))), "{denied:?}");
    let admin = client(&server, &place, "admin", Some("spiffe://waypost.internal/server"));
    let payments = register(&admin, "payments").await.unwrap();

    // A client of another authority is not let in.
    let other = TempDir::new().unwrap();
    init(&other).await;
    let ca = "waypost-pki/admin/ca.crt";
    std::fs::copy(place.path().join(ca), other.path().join(ca)).unwrap();
    let stranger = client(&server, &other, "admin", None);
    let registration = Registration::new("orders", "10.0.0.8", 80).id("b");
    let refused = timeout(Duration::from_millis(500), stranger.register(registration)).await;
    assert!(!matches!(refused, Ok(Ok(_))), "{refused:?}");
    let view = admin.service("orders");
    soon("the view", view.ready()).await.unwrap();
    assert_eq!(view.snapshot().expect("a view").instances().len(), 1);
    registered.deregister().await.unwrap();
    payments.deregister().await.unwrap();
    server.stop().await;
}
