//! Log lines of outages.

use std::{sync::LazyLock, time::Duration};

use super::{an_order, client, registry, soon};
use crate::support::{Fake, Network};

/// The log lines, at `info` and above.
#[derive(Clone, Default)]
struct Logs(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logs {
    /// Logs of this thread, which the client works in, go here.
    fn here() -> (Self, tracing::subscriber::DefaultGuard) {
        // With a single subscriber, a line that is logged first on a thread without one is disabled
        // everywhere.
        static SECOND: LazyLock<tracing::Dispatch> = LazyLock::new(|| {
            let subscriber = tracing_subscriber::fmt().with_writer(std::io::sink);
            subscriber.with_max_level(tracing::Level::INFO).finish().into()
        });
        LazyLock::force(&SECOND);
        let logs = Self::default();
        let writer = logs.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        (logs, tracing::subscriber::set_default(subscriber))
    }

    /// The lines with all of these parts.
    fn with(&self, parts: &[&str]) -> usize {
        let logs = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        logs.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    async fn until(&self, parts: &[&str]) {
        soon(async {
            while self.with(parts) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

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
