//! Tokens of requests: each carries the present one, and refused ones cost no view and no lease.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tonic::Code;
use tracing::Level;
use waypost_client::{
    Client, Credentials, RegisterError, RegistrationState, RegistryState, Token, TokenError,
    TokenFile, TokenSource,
    proto::{ListServicesRequest, discovery_client::DiscoveryClient},
};

use super::an_order;
use crate::support::{Door, Logs};

/// Paused time advances only while all tasks wait: a wait of this length is endless.
const EVER: Duration = Duration::from_secs(3600);

/// A source that a test changes.
#[derive(Clone)]
struct Changing(Arc<Mutex<Token>>);

impl Changing {
    fn new(token: &str) -> Self {
        Self(Arc::new(Mutex::new(Token::new(token).unwrap())))
    }

    fn set(&self, token: &str) {
        *self.0.lock().unwrap() = Token::new(token).unwrap();
    }
}

impl TokenSource for Changing {
    fn token(&self) -> Result<Token, TokenError> {
        Ok(self.0.lock().unwrap().clone())
    }
}

fn client(door: &Door, source: impl TokenSource + 'static) -> Client {
    let builder = Client::builder().registry("http://127.0.0.1:7510").connector(door.connector());
    builder.credentials(Credentials::default().token(source)).build().unwrap()
}

async fn until(holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(EVER, held).await.unwrap();
}

async fn until_state(client: &Client, wanted: impl Fn(&RegistryState) -> bool) {
    let mut state = client.registry_state();
    let found = tokio::time::timeout(EVER, state.wait_for(wanted)).await;
    found.unwrap().unwrap();
}

fn denied(state: &RegistryState) -> bool {
    matches!(state, RegistryState::Denied { .. })
}

#[tokio::test(start_paused = true)]
async fn each_request_carries_the_token_that_the_file_has_then() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, "first\n").unwrap();
    let door = Door::new();
    door.admit(&["first", "second"]);
    let client = client(&door, TokenFile::open(&path).unwrap());
    let registered = client.register(an_order()).await.unwrap();
    fs::write(&path, "second\n").unwrap();
    sleep(Duration::from_secs(3)).await;
    let mut registered = registered;
    registered.set_weight(3).await.unwrap();
    assert_eq!(door.counts().tokens, ["Bearer first", "Bearer second"]);
    // Streams move to the new token within a minute, while the old one is still good.
    sleep(Duration::from_secs(65)).await;
    door.admit(&["second"]);
    sleep(Duration::from_secs(60)).await;
    let counts = door.counts();
    assert_eq!((counts.refused, counts.registrations), (0, 1));
    assert!(matches!(*registered.state().borrow(), RegistrationState::Registered { .. }));
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_denied_and_cost_no_view() {
    let (logs, _guard) = Logs::here();
    let door = Door::new();
    door.admit(&["first"]);
    let source = Changing::new("first");
    let client = client(&door, source.clone());
    let service = client.service("orders");
    let registered = client.register(an_order()).await.unwrap();
    let lease = registered.lease_id();
    until(|| service.snapshot().is_some_and(|view| view.len() == 1)).await;
    door.admit(&["second"]);
    until_state(&client, denied).await;
    let refused = door.counts().refused;
    sleep(Duration::from_secs(600)).await;
    // At most one attempt of the watch and one of the heartbeats in 15 s, after the first ones.
    let attempts = door.counts().refused - refused;
    assert!((2 * 600 / 30..=2 * 600 / 15 + 16).contains(&attempts), "{attempts}");
    assert_eq!(service.snapshot().unwrap().len(), 1, "the view stays");
    assert_eq!(logs.with(&["WARN", "the registry refused the credentials"]), 1);
    // Other credentials are tried as soon as they are there.
    source.set("second");
    let began = Instant::now();
    until_state(&client, |state| matches!(state, RegistryState::Connected { .. })).await;
    assert!(began.elapsed() <= Duration::from_secs(3), "{:?}", began.elapsed());
    let is_registered =
        |state: &RegistrationState| matches!(state, RegistrationState::Registered { .. });
    registered.state().wait_for(is_registered).await.unwrap();
    assert!(began.elapsed() <= Duration::from_secs(3), "{:?}", began.elapsed());
    let counts = door.counts();
    assert_eq!((registered.lease_id(), counts.registrations), (lease, 1));
    assert_eq!(counts.fresh_watches, 1, "the watch resumed");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_renewed_already_is_tried_at_once() {
    let (logs, _guard) = Logs::here();
    let door = Door::new();
    door.admit(&["first"]);
    let source = Changing::new("first");
    let client = client(&door, source.clone());
    let service = client.service("orders");
    let registered = client.register(an_order()).await.unwrap();
    until(|| service.snapshot().is_some_and(|view| view.len() == 1)).await;
    sleep(Duration::from_millis(100)).await;
    // Both before the client looks at its source again.
    let began = Instant::now();
    source.set("second");
    door.admit(&["second"]);
    until(|| door.counts().resumed_watches == 1).await;
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    sleep(Duration::from_secs(60)).await;
    let counts = door.counts();
    assert_eq!((counts.registrations, counts.fresh_watches), (1, 1));
    assert_eq!(logs.with(&["WARN"]), 0, "{}", logs.text());
    assert!(matches!(*registered.state().borrow(), RegistrationState::Registered { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_source_with_another_token_each_time_does_not_flood_the_registry() {
    struct Counter(Mutex<u32>);
    impl TokenSource for Counter {
        fn token(&self) -> Result<Token, TokenError> {
            let mut count = self.0.lock().unwrap();
            *count += 1;
            Token::new(format!("token-{count}"))
        }
    }
    let door = Door::new();
    door.admit(&["another"]);
    let client = client(&door, Counter(Mutex::new(0)));
    let _service = client.service("orders");
    sleep(Duration::from_secs(60)).await;
    assert!(door.counts().refused <= 65, "{}", door.counts().refused);
}

#[tokio::test(start_paused = true)]
async fn registering_with_refused_credentials_fails_with_the_reason() {
    let door = Door::new();
    door.admit(&["first"]);
    let client = client(&door, Changing::new("second"));
    let refused = client.register(an_order()).await;
    let Err(RegisterError::Denied(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.to_string(), "the token is not known");
    // In the background, it waits for other credentials.
    let registered = client.register_in_background(an_order());
    let mut state = registered.state();
    state.wait_for(|state| matches!(state, RegistrationState::Refused(_))).await.unwrap();
    door.admit(&["second"]);
    let is_registered =
        |state: &RegistrationState| matches!(state, RegistrationState::Registered { .. });
    let registering = state.wait_for(is_registered);
    tokio::time::timeout(Duration::from_secs(31), registering).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_channel_to_the_registry_carries_the_token() {
    let door = Door::new();
    door.admit(&["first"]);
    let source = Changing::new("first");
    let channel = client(&door, source.clone()).registry();
    let mut discovery = DiscoveryClient::new(channel.clone());
    discovery.list_services(ListServicesRequest::default()).await.unwrap();
    source.set("second");
    let refused = discovery.list_services(ListServicesRequest::default()).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unauthenticated, "the token is not known")
    );
    assert_eq!(channel.authorization().unwrap().unwrap(), "Bearer second");
    assert_eq!(door.counts().tokens, ["Bearer first", "Bearer second"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_without_a_token_sends_nothing() {
    struct Sealed;
    impl TokenSource for Sealed {
        fn token(&self) -> Result<Token, TokenError> {
            Err(TokenError::unavailable("the vault is sealed"))
        }
    }
    let door = Door::new();
    let client = client(&door, Sealed);
    let refused = client.register(an_order()).await;
    let Err(RegisterError::Denied(refusal)) = refused else { panic!("{refused:?}") };
    assert!(refusal.to_string().contains("the vault is sealed"), "{refusal}");
    until_state(&client, denied).await;
    assert_eq!(door.counts().tokens.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn secrets_are_in_no_log_and_no_debug() {
    let (logs, _guard) = Logs::at(Level::TRACE);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, "s3cret-first").unwrap();
    let door = Door::new();
    door.admit(&["s3cret-first"]);
    let file = TokenFile::open(&path).unwrap();
    let settings = Credentials::default().token(file.clone());
    let builder = Client::builder().registry("http://127.0.0.1:7510").connector(door.connector());
    let builder = builder.credentials(settings.clone());
    let mut shown = format!("{file:?} {settings:?} {builder:?}");
    let client = builder.build().unwrap();
    let service = client.service("orders");
    let registered = client.register(an_order()).await.unwrap();
    until(|| service.snapshot().is_some_and(|view| view.len() == 1)).await;
    fs::write(&path, "s3cret with spaces").unwrap();
    sleep(Duration::from_secs(3)).await;
    door.admit(&["s3cret-second"]);
    sleep(Duration::from_secs(10)).await;
    shown += &format!("{client:?} {:?} {registered:?}", client.registry_state().borrow());
    fs::write(&path, "s3cret-second").unwrap();
    sleep(Duration::from_secs(10)).await;
    registered.deregister().await.unwrap();
    let logs = logs.text();
    assert!(logs.contains("invalid token file, keeping the previous token"));
    assert!(!logs.contains("s3cret"), "{logs}");
    assert!(!shown.contains("s3cret"), "{shown}");
}
