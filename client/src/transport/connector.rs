//! Opens byte streams to addresses: over TCP, or with the user's connector (for a simulated
//! network, for example). Does not know the protocol above.

use std::{error::Error, future::Future, io, pin::Pin, sync::Arc};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

type Dialed<T> = Pin<Box<dyn Future<Output = Result<T, Arc<dyn Error + Send + Sync>>> + Send>>;

/// The byte stream that a connector opens.
pub(crate) trait ByteStream: hyper::rt::Read + hyper::rt::Write + Send + Unpin {}

impl<T: hyper::rt::Read + hyper::rt::Write + Send + Unpin> ByteStream for T {}

/// A connector of any type.
#[derive(Clone)]
pub(crate) struct Connector {
    dial: Arc<dyn Fn(Uri) -> Dialed<Box<dyn ByteStream>> + Send + Sync>,
}

impl Connector {
    /// Connects over TCP with `TCP_NODELAY`.
    pub(crate) fn tcp() -> Self {
        Self::new(tower::service_fn(|uri: Uri| async move {
            let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
            let port = uri.port_u16().unwrap_or(80);
            // Without the brackets that URIs have around an IPv6 address.
            let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }))
    }

    pub(crate) fn new<C>(connector: C) -> Self
    where
        C: Service<Uri> + Clone + Send + Sync + 'static,
        C::Response: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
        C::Error: Into<Box<dyn Error + Send + Sync>>,
        C::Future: Send,
    {
        let dial = move |uri| -> Dialed<Box<dyn ByteStream>> {
            let connector = connector.clone();
            Box::pin(async move {
                let stream =
                    connector.oneshot(uri).await.map_err(|error| Arc::from(error.into()))?;
                Ok(Box::new(stream) as Box<dyn ByteStream>)
            })
        };
        Self { dial: Arc::new(dial) }
    }

    pub(crate) async fn open(
        &self,
        uri: Uri,
    ) -> Result<Box<dyn ByteStream>, Arc<dyn Error + Send + Sync>> {
        (self.dial)(uri).await
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Connector")
    }
}
