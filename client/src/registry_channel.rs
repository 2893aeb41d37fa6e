//! A channel to the registry itself, for programs that use its protocol. Never repeats a request,
//! and never waits between attempts.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;

use crate::{credentials::TokenError, registry::RegistryLink, transport::SendError};

/// A channel to the registry, for the stubs in [`proto`](crate::proto). Requests go over the
/// client's connection, with its credentials. After a failure the next request goes to the next
/// address.
///
/// ```no_run
/// use waypost_client::{Client, proto::{GetStatusRequest, admin_client::AdminClient}};
///
/// # async fn example(client: Client) -> Result<(), tonic::Status> {
/// let status = AdminClient::new(client.registry()).get_status(GetStatusRequest {}).await?;
/// println!("{} instances", status.into_inner().instances);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RegistryChannel {
    link: Arc<RegistryLink>,
}

/// The reason why there is no response of the registry. Stubs return it as the source of a status.
///
/// ```no_run
/// # fn example(status: tonic::Status) {
/// use std::error::Error;
/// use waypost_client::RegistryChannelError;
///
/// let source = status.source().and_then(|source| source.downcast_ref::<RegistryChannelError>());
/// if let Some(error) = source {
///     eprintln!("the registry sent no response: {error}");
/// }
/// # }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct RegistryChannelError {
    reason: Box<str>,
}

impl RegistryChannel {
    pub(crate) fn new(link: Arc<RegistryLink>) -> Self {
        Self { link }
    }

    /// Opens a byte stream of its own to the registry, with TLS and the client's certificate if the
    /// URL has `https`. For programs that speak HTTP/2 themselves, such as load generators. Cancel
    /// safe.
    ///
    /// # Errors
    /// Connecting failed.
    pub async fn open_stream(
        &self,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, RegistryChannelError> {
        let opened = self.link.open_stream().await;
        opened.map(TokioIo::new).map_err(|error| SendError::Connect(error).into())
    }

    /// The header `authorization` of a request on such a stream; `None` without a token.
    ///
    /// # Errors
    /// The source has no token at present.
    pub fn authorization(&self) -> Result<Option<HeaderValue>, TokenError> {
        let mut headers = HeaderMap::new();
        if let Some(credentials) = self.link.active_credentials() {
            credentials.authorize(&mut headers)?;
        }
        Ok(headers.remove(AUTHORIZATION))
    }
}

impl From<SendError> for RegistryChannelError {
    fn from(error: SendError) -> Self {
        Self { reason: error.reason().into_boxed_str() }
    }
}

impl tower::Service<Request<Body>> for RegistryChannel {
    type Response = Response<Body>;
    type Error = RegistryChannelError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let link = Arc::clone(&self.link);
        Box::pin(async move { Ok(link.send(request).await?) })
    }
}

impl fmt::Debug for RegistryChannel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RegistryChannel").finish_non_exhaustive()
    }
}
