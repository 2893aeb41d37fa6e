//! A caller of a server, with a connection of its own.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use waypost_client::proto::{
    GetStatusRequest, HeartbeatRequest, Instance, KeepAliveRequest, KeepAliveResponse,
    RegisterRequest, ResolveRequest, WatchRequest, WatchResponse, WhoAmIRequest,
    admin_client::AdminClient, discovery_client::DiscoveryClient, registry_client::RegistryClient,
};
use waypost_testing::{
    registry::{connect, instance, millis, register_request},
    wait::{SOON, soon},
};

use super::{TokenChannel, static_token, with_token};
use crate::support::TestServer;

const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The caller.
#[derive(Clone)]
pub(crate) struct Tenant {
    channel: TokenChannel,
}

impl Tenant {
    /// Connects with the static token of a name, in clear text.
    pub(crate) async fn connect(server: &TestServer, name: &str) -> Self {
        Self::with_token(server, &static_token(name)).await
    }

    /// Connects with a token, in clear text.
    pub(crate) async fn with_token(server: &TestServer, token: &str) -> Self {
        Self { channel: with_token(connect(server.address()).await, token) }
    }

    /// Uses a connection.
    pub(crate) fn over(channel: Channel, name: &str) -> Self {
        Self { channel: with_token(channel, &static_token(name)) }
    }

    pub(crate) fn channel(&self) -> TokenChannel {
        self.channel.clone()
    }

    pub(crate) fn registry(&self) -> RegistryClient<TokenChannel> {
        RegistryClient::new(self.channel.clone())
    }

    pub(crate) fn discovery(&self) -> DiscoveryClient<TokenChannel> {
        DiscoveryClient::new(self.channel.clone())
    }

    pub(crate) fn admin(&self) -> AdminClient<TokenChannel> {
        AdminClient::new(self.channel.clone())
    }

    /// Registers an instance of `shop`; returns its lease.
    pub(crate) async fn register(&self, service: &str, id: &str, ttl: u64, grace: u64) -> u64 {
        let instance = Instance { namespace: "shop".to_owned(), ..instance(service, id) };
        let request = RegisterRequest {
            ttl: Some(millis(ttl)),
            disconnect_grace: Some(millis(grace)),
            ..register_request(instance)
        };
        let registered = self.registry().register(request).await;
        registered.expect("a registration").into_inner().lease_id
    }

    /// Renews leases; returns the unknown ones.
    pub(crate) async fn heartbeat(&self, lease_ids: &[u64]) -> Vec<u64> {
        let request = HeartbeatRequest { lease_ids: lease_ids.to_vec() };
        let renewed = self.registry().heartbeat(request).await;
        renewed.expect("a response").into_inner().unknown_lease_ids
    }

    /// Returns all instances of a service of `shop`.
    pub(crate) async fn instances(&self, service: &str) -> Vec<Instance> {
        let request = ResolveRequest {
            namespace: "shop".to_owned(),
            service: service.to_owned(),
            all_statuses: true,
            ..ResolveRequest::default()
        };
        let resolved = self.discovery().resolve(request).await;
        resolved.expect("a response").into_inner().instances
    }

    /// Opens a watch of services of `shop`, of all without one, and reads its first message.
    pub(crate) async fn watch(
        &self,
        services: &[&str],
    ) -> Result<Streaming<WatchResponse>, Status> {
        let request = WatchRequest {
            namespace: "shop".to_owned(),
            services: services.iter().map(|&service| service.to_owned()).collect(),
            ..WatchRequest::default()
        };
        let mut watch = self.discovery().watch(request).await?.into_inner();
        soon("a message", watch.message()).await?.expect("a snapshot");
        Ok(watch)
    }

    /// Returns the epoch in force.
    pub(crate) async fn epoch(&self) -> u64 {
        let answer = self.admin().who_am_i(WhoAmIRequest {}).await;
        answer.expect("an identity").into_inner().epoch
    }

    /// Waits until a later epoch is in force; returns it.
    pub(crate) async fn epoch_after(&self, epoch: u64) -> u64 {
        let deadline = Instant::now() + SOON;
        loop {
            let now = self.epoch().await;
            if now > epoch {
                return now;
            }
            assert!(Instant::now() < deadline, "epoch {epoch} stays in force");
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until a service of `shop` has as many instances.
    pub(crate) async fn sees(&self, service: &str, count: usize) {
        let reached = async {
            while self.instances(service).await.len() != count {
                sleep(POLL_INTERVAL).await;
            }
        };
        soon(&format!("{count} instances of {service}"), reached).await;
    }

    /// Waits until the server has as many watches.
    pub(crate) async fn has_watches(&self, count: u64) {
        let reached = async {
            loop {
                let status = self.admin().get_status(GetStatusRequest {}).await;
                if status.expect("a status").into_inner().watchers == count {
                    return;
                }
                sleep(POLL_INTERVAL).await;
            }
        };
        soon("watches", reached).await;
    }

    /// Opens a stream of renewals.
    pub(crate) async fn keep_alive(&self) -> Renewals {
        let (requests, outgoing) = mpsc::channel(1);
        let answers = self.registry().keep_alive(ReceiverStream::new(outgoing)).await;
        Renewals { requests, answers: answers.expect("open").into_inner() }
    }
}

/// A stream of renewals. Dropping it breaks it.
pub(crate) struct Renewals {
    requests: mpsc::Sender<KeepAliveRequest>,
    answers: Streaming<KeepAliveResponse>,
}

impl Renewals {
    /// Renews leases; returns the unknown ones.
    pub(crate) async fn renew(&mut self, lease_ids: &[u64]) -> Vec<u64> {
        self.requests.send(KeepAliveRequest { lease_ids: lease_ids.to_vec() }).await.expect("sent");
        let answer = soon("an answer", self.answers.message()).await;
        answer.expect("the stream is open").expect("an answer").unknown_lease_ids
    }

    /// Waits for the error that ends the stream.
    pub(crate) async fn end(&mut self) -> Status {
        soon("the end of a stream", self.answers.message()).await.expect_err("an error")
    }
}

/// Waits for the error that ends a watch.
pub(crate) async fn end_of(watch: &mut Streaming<WatchResponse>) -> Status {
    let end = async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the watch ended without an error"),
                Err(status) => return status,
            }
        }
    };
    soon("the end of a watch", end).await
}
