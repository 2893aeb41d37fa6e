//! Renewed certificates under load: no call fails, no watch begins anew, no lease is lost, and the
//! clients do not move together. `WAYPOST_ROTATION_ROUNDS` makes it longer.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{Certificate, KeyPair};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use waypost_client::{Client, Registered, Registration, RegistrationState, RegistryState};
use waypost_testing::authority::{TestAuthority, server_tls};

use super::{client, credentials, soon};
use crate::support::{Door, Logs};

const HOST: &str = "127.0.0.1";
const CLIENTS: usize = 8;

/// What a certificate has left when it is replaced: a client moves within a third of it.
const LEFT: Duration = Duration::from_secs(6);

/// The time for a round: a look at the files each second, 100 ms to settle, and the move.
const ROUND_MAX: Duration = Duration::from_secs(12);

fn rounds() -> usize {
    std::env::var("WAYPOST_ROTATION_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap())
}

/// A certificate that is replaced soon.
fn brief(authority: &TestAuthority) -> (Certificate, KeyPair) {
    authority.issue_until("orders", SystemTime::now() + LEFT)
}

/// Replaces the files as cert-manager does: all of them at once, by a link.
fn swap(folder: &Path, round: usize, authority: &TestAuthority) {
    let data = folder.join(format!("data-{round}"));
    fs::create_dir(&data).unwrap();
    authority.write_folder(&data, &brief(authority));
    let link = folder.join("next");
    std::os::unix::fs::symlink(&data, &link).unwrap();
    fs::rename(&link, folder.join("tls")).unwrap();
}

/// A client under load: it registers, watches, and updates its instance without a pause.
struct Loaded {
    registered: Registered,
    service: waypost_client::Service,
    client: Client,
}

impl Loaded {
    async fn start(client: Client, number: usize) -> Self {
        let service = client.service("orders");
        let id = format!("order-{number}");
        let order = Registration::new("orders", "10.0.0.1", 80).id(id);
        let registered = soon(client.register(order)).await.unwrap();
        soon(service.ready()).await.unwrap();
        Self { registered, service, client }
    }

    /// Updates until `end`. Returns the number of updates, none of which failed.
    async fn update_until(&mut self, end: Instant) -> u32 {
        let lease = self.registered.lease_id();
        let mut updates = 0;
        while Instant::now() < end {
            let weight = 1 + updates % 100;
            timeout(Duration::from_secs(5), self.registered.set_weight(weight))
                .await
                .expect("an update takes too long")
                .unwrap();
            updates += 1;
            sleep(Duration::from_millis(5)).await;
        }
        let state = self.registered.state().borrow().clone();
        assert!(matches!(state, RegistrationState::Registered { .. }), "{state:?}");
        assert_eq!(self.registered.lease_id(), lease, "the lease was lost");
        let state = self.client.registry_state().borrow().clone();
        assert!(matches!(state, RegistryState::Connected { .. }), "{state:?}");
        updates
    }
}

#[tokio::test]
async fn renewed_certificates_cost_nothing() {
    let authority = TestAuthority::new("ca");
    let door = Door::new();
    let tls = || server_tls(&authority.issue(HOST), &[&authority]);
    let address = door.listen(tls()).await;
    let (mut folders, mut clients) = (Vec::new(), Vec::new());
    for number in 0..CLIENTS {
        let folder = tempfile::tempdir().unwrap();
        swap(folder.path(), 0, &authority);
        let client = client(address, credentials(&folder.path().join("tls")));
        clients.push(Loaded::start(client, number).await);
        folders.push(folder);
    }
    for round in 1..=rounds() {
        let opened = door.counts().opened;
        // The server's certificate changes, too: new connections prove the new one.
        door.renew(tls());
        for folder in &folders {
            swap(folder.path(), round, &authority);
        }
        let end = Instant::now() + Duration::from_secs(5);
        let mut loads = JoinSet::new();
        for mut loaded in clients.drain(..) {
            loads.spawn(async move { (loaded.update_until(end).await, loaded) });
        }
        while let Some(done) = loads.join_next().await {
            let (updates, loaded) = done.unwrap();
            assert!(updates > 0);
            clients.push(loaded);
        }
        let moved = async {
            while door.counts().opened < opened + CLIENTS || door.counts().open > CLIENTS {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let moved = timeout(ROUND_MAX, moved).await;
        assert!(moved.is_ok(), "round {round}: {:?}", door.counts());
    }
    let counts = door.counts();
    assert_eq!(counts.fresh_watches, CLIENTS, "a watch began anew: {counts:?}");
    assert!(counts.resumed_watches >= CLIENTS * rounds(), "{counts:?}");
    assert_eq!(counts.registrations, CLIENTS, "a lease was lost: {counts:?}");
    assert_eq!((counts.refused, counts.handshakes_failed), (0, 0));
    for loaded in &clients {
        assert_eq!(loaded.service.snapshot().unwrap().len(), CLIENTS);
    }
}

#[tokio::test]
async fn a_folder_with_a_foreign_key_changes_nothing_and_is_logged_once() {
    let (logs, _guard) = Logs::here();
    let authority = TestAuthority::new("ca");
    let door = Door::new();
    let address = door.listen(server_tls(&authority.issue(HOST), &[&authority])).await;
    let folder = tempfile::tempdir().unwrap();
    authority.write_folder(folder.path(), &brief(&authority));
    let client = client(address, credentials(folder.path()));
    let loaded = Loaded::start(client, 0).await;
    let foreign = authority.issue("orders").1.serialize_pem();
    fs::write(folder.path().join("tls.key"), foreign).unwrap();
    logs.until(&["ERROR", "invalid identity folder", "does not fit"]).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!((logs.with(&["ERROR"]), door.counts().opened), (1, 1));
    // The next whole folder is taken.
    authority.write_folder(folder.path(), &authority.issue("orders"));
    soon(async {
        while door.counts().opened < 2 || door.counts().open > 1 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(door.counts().registrations, 1);
    assert_eq!(logs.with(&["WARN"]), 0, "{}", logs.text());
    drop(loaded);
}
