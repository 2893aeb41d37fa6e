//! The registry's contract as tests that run over every implementation: the server over a socket
//! and the registry in memory of the client crate.
//!
//! [`registry_conformance!`](crate::registry_conformance) makes a test of each check. Every check
//! has a namespace of its own, so that a server may serve all of them.

#![expect(clippy::panic, reason = "checks of a test suite")]

mod leases;
mod lookups;
mod registrations;
mod watches;

use std::{collections::BTreeMap, future::Future, time::Duration};

use http::{Request, Response};
use tonic::{Streaming, body::Body, codegen::StdError};
use tower::util::BoxCloneSyncService;
use waypost_client::proto::{
    Cursor, Instance, RegisterRequest, RegisterResponse, WatchRequest, WatchResponse,
    discovery_client::DiscoveryClient, registry_client::RegistryClient, watch_response::Event,
};

pub use self::{leases::*, lookups::*, registrations::*, watches::*};

/// The longest wait for a message.
const PATIENCE: Duration = Duration::from_secs(20);

/// A channel to the registry under test.
pub type RegistryChannel = BoxCloneSyncService<Request<Body>, Response<Body>, StdError>;

/// A registry under test.
pub trait Subject: Sync {
    /// A channel to it.
    fn channel(&self) -> RegistryChannel;

    /// Waits until the lease of an instance with a TTL of 1 s, which nothing renews, expires; or
    /// makes it expire.
    fn expire(&self, namespace: &str, service: &str, id: &str) -> impl Future<Output = ()> + Send;
}

/// Makes a test of each check: the argument is an async function that returns a [`Subject`].
#[macro_export]
macro_rules! registry_conformance {
    ($subject:path) => {
        $crate::registry_conformance!(@ $subject:
            registration_is_completed_with_defaults,
            second_registration_takes_the_identity_over,
            takeover_without_a_difference_is_no_change,
            every_invalid_field_of_a_registration_is_named,
            update_changes_the_fields_of_its_mask,
            update_without_a_difference_takes_no_revision,
            invalid_masks_are_refused,
            identities_are_targets_as_leases_are,
            heartbeat_returns_the_leases_that_are_not_active,
            stream_of_heartbeats_returns_the_leases_that_are_not_active,
            expired_lease_is_unknown_and_its_instance_removed,
            fenced_lease_changes_nothing,
            lookup_returns_instances_that_are_up,
            lookup_selects_by_zone_version_and_metadata,
            pages_hold_every_instance_once,
            page_token_belongs_to_its_service,
            services_are_listed_with_their_counts,
            watch_sends_a_snapshot_and_then_changes,
            watch_resumes_without_a_snapshot,
            watch_starts_over_where_it_cannot_resume,
            watch_follows_its_services_alone,
            watch_with_a_filter_sees_instances_enter_and_leave,
        );
    };
    (@ $subject:path: $($check:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $check() {
                $crate::conformance::$check(&$subject().await).await;
            }
        )+
    };
}

fn registry(subject: &impl Subject) -> RegistryClient<RegistryChannel> {
    RegistryClient::new(subject.channel())
}

fn discovery(subject: &impl Subject) -> DiscoveryClient<RegistryChannel> {
    DiscoveryClient::new(subject.channel())
}

/// An instance of the service `orders` at 10.0.0.1:80.
fn order(namespace: &str, id: &str) -> Instance {
    Instance {
        namespace: namespace.into(),
        service: "orders".into(),
        id: id.into(),
        host: "10.0.0.1".into(),
        port: 80,
        ..Instance::default()
    }
}

async fn register(subject: &impl Subject, instance: Instance) -> RegisterResponse {
    let request = RegisterRequest { instance: Some(instance), ..RegisterRequest::default() };
    registry(subject).register(request).await.expect("valid").into_inner()
}

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| instance.id.as_str()).collect()
}

/// The names of the invalid fields in a status.
fn invalid_fields(status: &tonic::Status) -> Vec<String> {
    use tonic_types::StatusExt;
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    let details = status.get_details_bad_request().expect("details");
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}

/// A watch that folds what it receives, and checks that revisions never decrease.
struct FoldedWatch {
    messages: Streaming<WatchResponse>,
    /// The instances by service and id.
    instances: BTreeMap<(String, String), Instance>,
    cursor: Option<Cursor>,
}

impl FoldedWatch {
    async fn open(subject: &impl Subject, request: WatchRequest) -> Self {
        let messages = discovery(subject).watch(request).await.expect("valid").into_inner();
        Self { messages, instances: BTreeMap::new(), cursor: None }
    }

    /// The next message, folded.
    async fn next(&mut self) -> Event {
        let message = tokio::time::timeout(PATIENCE, self.messages.message()).await;
        let message = message.expect("a message in time").expect("no error").expect("no end");
        let (cursor, event) = (message.cursor.expect("a cursor"), message.event.expect("an event"));
        if let Some(before) = self.cursor.replace(cursor.clone()) {
            assert_eq!(before.history_id, cursor.history_id);
            assert!(before.revision <= cursor.revision, "{before:?}, {cursor:?}");
        }
        self.fold(&event);
        event
    }

    /// The next message that is not idle.
    async fn next_event(&mut self) -> Event {
        loop {
            match self.next().await {
                Event::Idle(_) => {}
                event => return event,
            }
        }
    }

    /// The changes of the next message that is not idle, each as kind, reason and id.
    async fn next_changes(&mut self) -> Vec<(&'static str, &'static str, String)> {
        let Event::Changes(changes) = self.next_event().await else {
            panic!("a message with changes")
        };
        let short = |change: &waypost_client::proto::Change| {
            let kind = change.kind().as_str_name().trim_start_matches("CHANGE_KIND_");
            let reason = change.reason().as_str_name().trim_start_matches("CHANGE_REASON_");
            (kind, reason, change.instance.as_ref().expect("an instance").id.clone())
        };
        changes.changes.iter().map(short).collect()
    }

    /// Reads a snapshot to its last part.
    async fn snapshot(&mut self) -> Vec<String> {
        loop {
            let Event::Snapshot(part) = self.next_event().await else { panic!("a snapshot") };
            if part.last {
                return self.instances.values().map(|instance| instance.id.clone()).collect();
            }
        }
    }

    fn fold(&mut self, event: &Event) {
        let key = |instance: &Instance| (instance.service.clone(), instance.id.clone());
        match event {
            Event::Snapshot(part) => {
                let instances = part.instances.iter();
                self.instances.extend(instances.map(|instance| (key(instance), instance.clone())));
            }
            Event::Changes(changes) => {
                for change in &changes.changes {
                    let instance = change.instance.clone().expect("an instance");
                    assert_eq!(instance.modified_revision, change.revision);
                    if change.kind() == waypost_client::proto::ChangeKind::Removed {
                        assert!(self.instances.remove(&key(&instance)).is_some(), "{change:?}");
                    } else {
                        self.instances.insert(key(&instance), instance);
                    }
                }
            }
            Event::Idle(_) => {}
        }
    }
}

fn orders_of(namespace: &str) -> WatchRequest {
    let services = vec!["orders".to_owned()];
    WatchRequest { namespace: namespace.to_owned(), services, ..WatchRequest::default() }
}
