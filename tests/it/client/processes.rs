//! Replicas as real processes, which die as processes do.

use std::process::{Child, Command, Stdio};

use futures_util::future::join_all;
use waypost_client::{NoInstance, PickContext, proto::ChangeReason};

use crate::client::{
    PATIENCE, TTL,
    registry::{Registry, next_removal},
    until,
};

/// A process that keeps itself registered, ended with SIGKILL.
struct Replica(Child);

impl Replica {
    fn start(registry: &Registry, id: &str, port: u16) -> Self {
        let ttl = format!("{}s", TTL.as_secs());
        let child = Command::new(env!("CARGO_BIN_EXE_waypost"))
            .args(["register", "--service", "orders", "--id", id, "--ttl", &ttl])
            .args(["--address", &format!("127.0.0.1:{port}"), "--registry", &registry.url()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_replica_leaves_every_view() {
    let registry = Registry::start();
    let mut watch = registry.watch("orders").await;
    let mut replicas: Vec<_> =
        (0..3).map(|id| Replica::start(&registry, &format!("i{id}"), 8080 + id)).collect();
    let clients: Vec<_> = (0..5).map(|_| registry.client()).collect();
    let callers: Vec<_> = clients.iter().map(|client| client.service("orders")).collect();
    join_all(callers.iter().map(|caller| until(caller, |snapshot| snapshot.len() == 3))).await;

    drop(replicas.remove(1));
    let gone = callers.iter().map(|caller| {
        until(caller, |snapshot| snapshot.len() == 2 && snapshot.instance("i1").is_none())
    });
    join_all(gone).await;
    let removal =
        tokio::time::timeout(PATIENCE, next_removal(&mut watch)).await.expect("a removal");
    assert_eq!(removal, ("i1".to_owned(), ChangeReason::Expired));
    for caller in &callers {
        assert!((0..100).all(|_| caller.pick(&PickContext::new()).unwrap().instance().id != "i1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_replica_expires_and_registers_again() {
    let registry = Registry::start();
    let client = registry.client();
    let caller = client.service("orders");
    let replica = Replica::start(&registry, "a", 8080);
    until(&caller, |snapshot| snapshot.len() == 1).await;
    replica.signal("-STOP");
    until(&caller, |snapshot| snapshot.is_empty()).await;
    assert!(matches!(caller.pick(&PickContext::new()), Err(NoInstance::Empty)));
    replica.signal("-CONT");
    until(&caller, |snapshot| snapshot.instance("a").is_some()).await;
}
