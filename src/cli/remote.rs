//! The connection to the registry for commands that send one request. A timeout or transient error
//! fails over to the next address; each address is tried at most once.

use std::{fmt, str::FromStr, time::Duration};

use tokio::time::timeout;
use tonic::{Response, Status, Streaming};
use waypost_client::{
    BuildError, Builder, Client, Credentials, RegistryChannel,
    proto::{
        admin_client::AdminClient, discovery_client::DiscoveryClient,
        registry_client::RegistryClient,
    },
};

use super::error::CommandError;

/// The timeout of a request at one address, connecting included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest accepted response: a service with very many instances.
const MESSAGE_MAX: usize = 256 * 1024 * 1024;

/// The registry's addresses: `https://host:port` or `http://host:port`, or several of these
/// separated by commas.
#[derive(Clone, Debug)]
pub(crate) struct RegistryUrl {
    text: String,
    /// At least one.
    addresses: Vec<String>,
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for RegistryUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let addresses: Result<_, _> =
            text.split(',').map(|url| parse_address(url.trim())).collect();
        Ok(Self { text: text.to_owned(), addresses: addresses? })
    }
}

/// Accepts the URLs that the client accepts.
fn parse_address(url: &str) -> Result<String, String> {
    match Client::new(url) {
        // The certificates come with the other arguments.
        Ok(_) | Err(BuildError::NoRoots { .. }) => Ok(url.to_owned()),
        Err(BuildError::BadUrl { reason, .. }) => Err(reason),
        Err(other) => Err(other.to_string()),
    }
}

/// The registry's addresses, and the credentials for them. The client accepts both.
#[derive(Clone, Debug)]
pub(crate) struct RegistryAccess {
    url: RegistryUrl,
    credentials: Option<Credentials>,
}

impl RegistryAccess {
    /// Fails if the credentials can't be used with these addresses.
    pub(crate) fn new(
        url: RegistryUrl,
        credentials: Option<Credentials>,
    ) -> Result<Self, CommandError> {
        let access = Self { url, credentials };
        match access.builder(&access.url.addresses).build() {
            Ok(_) => Ok(access),
            Err(error) => Err(CommandError::configuration(&error)),
        }
    }

    /// Returns the first address.
    pub(crate) fn first(&self) -> &str {
        &self.url.addresses[0]
    }

    /// Builds a client, which survives outages of the registry.
    pub(crate) fn client(&self, namespace: &str) -> Client {
        let builder = self.builder(&self.url.addresses).namespace(namespace);
        builder.build().expect("it was checked when it was created")
    }

    /// A new connection to the address with this index.
    pub(crate) fn channel(&self, index: usize) -> RegistryChannel {
        let address = &self.url.addresses[index..=index];
        let builder = self.builder(address).connect_timeout(REQUEST_TIMEOUT);
        builder.build().expect("it was checked when it was created").registry()
    }

    fn builder(&self, addresses: &[String]) -> Builder {
        let builder = addresses.iter().fold(Client::builder(), Builder::registry);
        match &self.credentials {
            Some(credentials) => builder.credentials(credentials.clone()),
            None => builder,
        }
    }
}

impl fmt::Display for RegistryAccess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(formatter)
    }
}

/// The registry at one of its addresses. Connects at the first request.
#[derive(Clone, Debug)]
pub(crate) struct RemoteRegistry {
    access: RegistryAccess,
    /// The address in use.
    index: usize,
    channel: RegistryChannel,
}

impl RemoteRegistry {
    /// Starts with the first address.
    pub(crate) fn new(access: RegistryAccess) -> Self {
        let channel = access.channel(0);
        Self { access, index: 0, channel }
    }

    /// Switches to the next address over a new connection: the previous one may be dead without
    /// having been closed.
    pub(crate) fn use_next_address(&mut self) {
        self.index = (self.index + 1) % self.access.url.addresses.len();
        self.channel = self.access.channel(self.index);
    }

    /// Sends a request to the current address, and after a transient error to the next one. Each
    /// attempt may take [`REQUEST_TIMEOUT`].
    pub(crate) async fn call<T>(
        &mut self,
        request: impl AsyncFn(RegistryChannel) -> Result<Response<T>, Status>,
    ) -> Result<T, CommandError> {
        let mut errors = Vec::new();
        for _ in 0..self.access.url.addresses.len() {
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
        request: &impl AsyncFn(RegistryChannel) -> Result<Response<T>, Status>,
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
        &self.access.url.addresses[self.index]
    }
}

pub(crate) fn registry(channel: RegistryChannel) -> RegistryClient<RegistryChannel> {
    RegistryClient::new(channel)
}

pub(crate) fn discovery(channel: RegistryChannel) -> DiscoveryClient<RegistryChannel> {
    DiscoveryClient::new(channel).max_decoding_message_size(MESSAGE_MAX)
}

pub(crate) fn admin(channel: RegistryChannel) -> AdminClient<RegistryChannel> {
    AdminClient::new(channel)
}
