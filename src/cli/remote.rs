//! The way to the registry for commands that ask once: no answer in time is a failure, and the next
//! address is tried after it, each at most once.

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

/// The longest that one request may take at one address, the connection included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// After this long in silence a connection is asked whether it lives, and given up where there is no
/// answer in time. As the client crate does it.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest answer that is taken: a service with very many instances.
const MESSAGE_MAX: usize = 256 * 1024 * 1024;

/// Where the registry listens: `http://host:port`, or several of these with commas between them.
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
    /// The first address.
    pub(crate) fn first(&self) -> &str {
        &self.addresses[0].url
    }

    /// A client that keeps up what it does across the registry's absences.
    pub(crate) fn client(&self, namespace: &str) -> Client {
        let builder = Client::builder().namespace(namespace);
        let builder =
            self.addresses.iter().fold(builder, |builder, address| builder.registry(&address.url));
        builder.build().expect("the URLs were checked when they were read")
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
        // What the client takes is what there is, for all commands alike.
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

/// The registry, at one of its addresses. Connects at the first request.
#[derive(Clone, Debug)]
pub(crate) struct RemoteRegistry {
    url: RegistryUrl,
    /// The address in use.
    index: usize,
    channel: Channel,
}

impl RemoteRegistry {
    /// The first address. Must be called in a tokio runtime.
    pub(crate) fn new(url: RegistryUrl) -> Self {
        let channel = url.addresses[0].endpoint.connect_lazy();
        Self { url, index: 0, channel }
    }

    /// Uses the next address from now on, over a connection of its own: the one before may be dead
    /// without having been closed.
    pub(crate) fn use_next_address(&mut self) {
        self.index = (self.index + 1) % self.url.addresses.len();
        self.channel = self.url.addresses[self.index].endpoint.connect_lazy();
    }

    /// The answer to a request, which may take [`REQUEST_TIMEOUT`] at each address. It is sent to the address
    /// in use, and to the next one where that may help.
    pub(crate) async fn call<T>(
        &mut self,
        request: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CommandError> {
        let mut failures = Vec::new();
        for _ in 0..self.url.addresses.len() {
            match self.attempt(&request).await {
                Err(failure) if failure.is_transient() => failures.push(failure),
                answer => return answer,
            }
            self.use_next_address();
        }
        Err(CommandError::from_attempts(failures))
    }

    async fn attempt<T>(
        &self,
        request: &impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CommandError> {
        let answer = timeout(REQUEST_TIMEOUT, request(self.channel.clone())).await;
        let answer = answer.map_err(|_| self.timed_out())?;
        answer.map(Response::into_inner).map_err(|status| self.failure(&status))
    }

    /// The next piece of an answer that comes in pieces, each of which may take [`REQUEST_TIMEOUT`].
    pub(crate) async fn next_message<T>(
        &self,
        pieces: &mut Streaming<T>,
    ) -> Result<Option<T>, CommandError> {
        let piece = timeout(REQUEST_TIMEOUT, pieces.message()).await;
        piece.map_err(|_| self.timed_out())?.map_err(|status| self.failure(&status))
    }

    fn timed_out(&self) -> CommandError {
        self.unreachable(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))
    }

    /// What a status means that came from here.
    pub(crate) fn failure(&self, status: &Status) -> CommandError {
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
