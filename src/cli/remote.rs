//! The way to the registry for commands that ask once: no answer in time is a failure, and nothing
//! is asked twice.

use std::{fmt, str::FromStr, time::Duration};

use tokio::time::timeout;
use tonic::{
    Response, Status, Streaming,
    transport::{Channel, Endpoint},
};
use waypost_client::{
    BuildError, Client,
    proto::{
        admin_client::AdminClient, discovery_client::DiscoveryClient,
        registry_client::RegistryClient,
    },
};

use super::failure::Failure;

/// The longest that one request may take, the connection included.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);

/// The largest answer that is taken: a service with very many instances.
const MESSAGE_MAX: usize = 256 * 1024 * 1024;

/// Where a registry listens: `http://host:port`.
#[derive(Clone, Debug)]
pub(super) struct RegistryUrl {
    text: String,
    endpoint: Endpoint,
}

impl RegistryUrl {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// A client that keeps up what it does across the registry's absences.
    pub(super) fn client(&self, namespace: &str) -> Client {
        let builder = Client::builder().registry(&self.text).namespace(namespace);
        builder.build().expect("the URL was checked when it was read")
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for RegistryUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // What the client takes is what there is, for all commands alike.
        Client::new(text).map_err(|error| match error {
            BuildError::BadUrl { reason, .. } => reason,
            other => other.to_string(),
        })?;
        let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), endpoint: endpoint.connect_timeout(WAIT_MAX) })
    }
}

/// The registry. Connects at the first request, and again after a failure.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    url: RegistryUrl,
    channel: Channel,
}

impl Remote {
    /// Must be called in a tokio runtime.
    pub(super) fn new(url: RegistryUrl) -> Self {
        let channel = url.endpoint.connect_lazy();
        Self { url, channel }
    }

    pub(super) fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::new(self.channel.clone())
    }

    pub(super) fn discovery(&self) -> DiscoveryClient<Channel> {
        DiscoveryClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    pub(super) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    /// The answer to a request, which may take [`WAIT_MAX`].
    pub(super) async fn answer<T>(
        &self,
        request: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let answer = timeout(WAIT_MAX, request).await;
        let answer = answer.map_err(|_| self.silent())?;
        answer.map(Response::into_inner).map_err(|status| self.failure(&status))
    }

    /// The next piece of an answer that comes in pieces, each of which may take [`WAIT_MAX`].
    pub(super) async fn piece<T>(&self, pieces: &mut Streaming<T>) -> Result<Option<T>, Failure> {
        let piece = timeout(WAIT_MAX, pieces.message()).await;
        piece.map_err(|_| self.silent())?.map_err(|status| self.failure(&status))
    }

    fn silent(&self) -> Failure {
        self.unreachable(format!("no answer within {} s", WAIT_MAX.as_secs()))
    }

    /// What a status means that came from here.
    pub(super) fn failure(&self, status: &Status) -> Failure {
        Failure::of(status, self.url.as_str())
    }

    pub(super) fn unreachable(&self, reason: impl Into<String>) -> Failure {
        Failure::Unreachable { url: self.url.to_string(), reason: reason.into() }
    }
}
