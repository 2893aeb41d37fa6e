//! The connection to the registry for commands that send one request. A timeout or transient error
//! fails over to the next address; each address is tried at most once.

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

use super::error::CommandError;

/// The timeout of a request at one address, connecting included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends an HTTP/2 ping after this long without a frame, and closes the connection if no response
/// arrives in time. Same values as in the client crate.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest accepted response: a service with very many instances.
const MESSAGE_MAX: usize = 256 * 1024 * 1024;

/// The registry's addresses: `http://host:port`, or several of these separated by commas.
#[derive(Clone, Debug)]
pub(crate) struct RegistryUrl {
    text: String,
    /// At least one.
    addresses: Vec<RegistryAddress>,
}

#[derive(Clone, Debug)]
struct RegistryAddress {
    url: String,
    endpoint: Endpoint,
}

impl RegistryUrl {
    /// Returns the first address.
    pub(crate) fn first(&self) -> &str {
        &self.addresses[0].url
    }

    /// Builds a client, which survives outages of the registry.
    pub(crate) fn client(&self, namespace: &str) -> Client {
        let builder = Client::builder().namespace(namespace);
        let builder =
            self.addresses.iter().fold(builder, |builder, address| builder.registry(&address.url));
        builder.build().expect("the URLs were checked when they were parsed")
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
        let addresses: Result<_, _> = text.split(',').map(|url| url.trim().parse()).collect();
        Ok(Self { text: text.to_owned(), addresses: addresses? })
    }
}

impl FromStr for RegistryAddress {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        // All commands accept the URLs that the client accepts.
        Client::new(url).map_err(|error| match error {
            BuildError::BadUrl { reason, .. } => reason,
            other => other.to_string(),
        })?;
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
        let endpoint = endpoint
            .connect_timeout(REQUEST_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(Self { url: url.to_owned(), endpoint })
    }
}

/// The registry at one of its addresses. Connects at the first request.
#[derive(Clone, Debug)]
pub(crate) struct RemoteRegistry {
    url: RegistryUrl,
    /// The address in use.
    index: usize,
    channel: Channel,
}

impl RemoteRegistry {
    /// Starts with the first address. Must be called in a tokio runtime.
    pub(crate) fn new(url: RegistryUrl) -> Self {
        let channel = url.addresses[0].endpoint.connect_lazy();
        Self { url, index: 0, channel }
    }

    /// Switches to the next address over a new connection: the previous one may be dead without
    /// having been closed.
    pub(crate) fn use_next_address(&mut self) {
        self.index = (self.index + 1) % self.url.addresses.len();
        self.channel = self.url.addresses[self.index].endpoint.connect_lazy();
    }

    /// Sends a request to the current address, and after a transient error to the next one. Each
    /// attempt may take [`REQUEST_TIMEOUT`].
    pub(crate) async fn call<T>(
        &mut self,
        request: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CommandError> {
        let mut errors = Vec::new();
        for _ in 0..self.url.addresses.len() {
            match self.attempt(&request).await {
                Err(error) if error.is_transient() => errors.push(error),
                result => return result,
            }
            self.use_next_address();
        }
        Err(CommandError::from_attempts(errors))
    }

    async fn attempt<T>(
        &self,
        request: &impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CommandError> {
        let response = timeout(REQUEST_TIMEOUT, request(self.channel.clone())).await;
        let response = response.map_err(|_| self.timed_out())?;
        response.map(Response::into_inner).map_err(|status| self.error(&status))
    }

    /// Receives the next message of a streamed response; each may take [`REQUEST_TIMEOUT`].
    pub(crate) async fn next_message<T>(
        &self,
        stream: &mut Streaming<T>,
    ) -> Result<Option<T>, CommandError> {
        let message = timeout(REQUEST_TIMEOUT, stream.message()).await;
        message.map_err(|_| self.timed_out())?.map_err(|status| self.error(&status))
    }

    fn timed_out(&self) -> CommandError {
        self.unreachable(format!("no response within {} s", REQUEST_TIMEOUT.as_secs()))
    }

    /// Converts a status that the current address returned.
    pub(crate) fn error(&self, status: &Status) -> CommandError {
        CommandError::from_status(status, self.address())
    }

    pub(crate) fn unreachable(&self, reason: impl Into<String>) -> CommandError {
        CommandError::Unreachable { url: self.address().to_owned(), reason: reason.into() }
    }

    fn address(&self) -> &str {
        &self.url.addresses[self.index].url
    }
}

pub(crate) fn registry(channel: Channel) -> RegistryClient<Channel> {
    RegistryClient::new(channel)
}

pub(crate) fn discovery(channel: Channel) -> DiscoveryClient<Channel> {
    DiscoveryClient::new(channel).max_decoding_message_size(MESSAGE_MAX)
}

pub(crate) fn admin(channel: Channel) -> AdminClient<Channel> {
    AdminClient::new(channel)
}
