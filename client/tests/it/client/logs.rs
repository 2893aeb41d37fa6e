//! Log lines of outages.

use super::{an_order, client, registry, soon};
use crate::support::{Fake, Logs, Network};

const HERE: &str = "peer=\"registry:7510\"";

#[tokio::test]
async fn unreachable_registry_is_logged_once() {
    let (logs, _guard) = Logs::here();
    let (network, fake) = (Network::default(), Fake::new());
    let client = client(&network, &["registry"]);
    let (log, there) = (logs.clone(), network.clone());
    let starting = async {
        log.until(&["WARN", "can't register yet"]).await;
        soon(there.until_asked(5)).await;
        fake.serve(&there, "registry")
    };
    let (registered, _process) = tokio::join!(client.register(an_order()), starting);
    let warning = ["WARN", HERE, "service=\"orders\"", "instance=\"a\"", "connection refused"];
    assert_eq!(logs.with(&warning), 1);
    assert_eq!(logs.with(&["WARN"]), 1);
    assert_eq!(logs.with(&["INFO", "registry reached"]), 1);
    drop(registered);
}

#[tokio::test]
async fn each_outage_is_logged_once() {
    let (logs, _guard) = Logs::here();
    let (network, fake, process, client) = registry();
    let service = client.service("orders");
    soon(service.ready()).await.unwrap();
    let registered = soon(client.register(an_order())).await.unwrap();
    fake.until(|state| state.heartbeats > 1).await;
    drop(process);
    let watch = ["WARN", HERE, "service=\"orders\"", "can't watch"];
    let heartbeats =
        ["WARN", HERE, "service=\"orders\"", "instance=\"a\"", "heartbeat stream lost"];
    logs.until(&watch).await;
    logs.until(&heartbeats).await;
    soon(network.until_asked(10)).await;
    let _process = fake.serve(&network, "registry");
    logs.until(&["INFO", "watching again"]).await;
    logs.until(&["INFO", "instance=\"a\"", "registry reached again"]).await;
    assert_eq!((logs.with(&watch), logs.with(&heartbeats)), (1, 1));
    assert_eq!(logs.with(&["WARN"]), 2);
    drop(registered);
}
