//! A channel to the registry itself, for programs that use its protocol. Never repeats a request,
//! and never waits between attempts.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::body::Body;

use crate::{registry::RegistryLink, transport::SendError};

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
        let failure =
            |error: SendError| RegistryChannelError { reason: error.reason().into_boxed_str() };
        Box::pin(async move { link.send(request).await.map_err(failure) })
    }
}

impl fmt::Debug for RegistryChannel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RegistryChannel").finish_non_exhaustive()
    }
}
