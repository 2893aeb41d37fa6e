//! The door of the port: it tells TLS from clear text by the first byte, makes the handshake, and
//! bounds the connections on which nothing was allowed yet.
//!
//! In the order of a connection: `strangers` counts it; `handshake` or `clear_text` answers its
//! first bytes; `linger` ends the refused; `stream` is what the server reads then.
//!
//! Invariant: with TLS, no byte of a caller that speaks clear text is interpreted.

mod clear_text;
mod handshake;
mod linger;
mod strangers;
mod stream;
mod visitor;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::rustls::{CertificateError, Error as TlsError};
use waypost_auth::{certificate::PeerCertificate, policy::Unauthenticated};

use crate::auth::TrustCell;

use self::{handshake::handshake, strangers::Strangers};
pub(crate) use self::{
    strangers::{Acquaintance, Closing, End, KnownBy, Stranger},
    stream::DoorStream,
    visitor::visited,
};

/// The time for a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// The door of a listener. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// The source of the credentials; `None`: the port speaks clear text.
    trust: Option<Arc<TrustCell>>,
    strangers: Strangers,
}

/// A connection past the door.
pub(crate) struct Opened<I> {
    pub(crate) stream: DoorStream<I>,
    /// The certificate that the caller proved in the handshake.
    pub(crate) certificate: Option<Arc<PeerCertificate>>,
}

/// The reason why a connection did not pass the door.
#[derive(Debug, Error)]
pub(crate) enum DoorError {
    /// The caller closed its connection, or it broke, before its first byte.
    #[error("connection ended before its first byte")]
    Silent,
    /// The first byte is not that of a handshake.
    #[error("clear text on a port that speaks TLS only")]
    ClearText,
    /// The handshake failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(io::Error),
    /// The handshake took over [`HANDSHAKE_MAX`].
    #[error("TLS handshake took over {HANDSHAKE_MAX:?}")]
    Timeout,
}

impl DoorError {
    /// Returns the reason for which a caller's certificate was refused, if that is the error.
    pub(crate) fn refusal(&self) -> Option<Unauthenticated> {
        let Self::Handshake(error) = self else { return None };
        match error.get_ref()?.downcast_ref()? {
            TlsError::NoCertificatesPresented => Some(Unauthenticated::NoCredentials),
            TlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => Some(Unauthenticated::CredentialsExpired),
            TlsError::InvalidCertificate(_) => Some(Unauthenticated::CertificateNotTrusted),
            _ => None,
        }
    }
}

impl Door {
    /// Makes a door that lets `strangers_max` strangers in at a time.
    pub(crate) fn new(
        trust: Option<Arc<TrustCell>>,
        known_by: KnownBy,
        strangers_max: usize,
    ) -> Self {
        Self { trust, strangers: Strangers::new(known_by, strangers_max) }
    }

    /// Counts a new connection as a stranger, and closes an older one at the limit.
    pub(crate) fn arrive(&self, address: Option<IpAddr>) -> Stranger {
        self.strangers.arrive(address)
    }

    /// Opens a connection: by a handshake where there are credentials for TLS, else as it is.
    /// Not cancel safe: bytes that were read are lost.
    pub(crate) async fn open<I>(
        &self,
        stream: I,
        stranger: &Stranger,
    ) -> Result<Opened<I>, DoorError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let acquaintance = stranger.acquaintance();
        let Some(tls) = self.trust.as_ref().and_then(|trust| trust.current().tls.clone()) else {
            let stream = DoorStream::clear_text(stream, acquaintance);
            return Ok(Opened { stream, certificate: None });
        };
        // Boxed, so that the task of a connection has no room for a handshake.
        let handshake = Box::pin(handshake(stream, &tls));
        let (stream, certificate) =
            timeout(HANDSHAKE_MAX, handshake).await.map_err(|_| DoorError::Timeout)??;
        Ok(Opened { stream: DoorStream::tls(stream, acquaintance), certificate })
    }
}

#[cfg(test)]
mod tests;
