//! TLS for connections to instances. An instance proves that it belongs to its service, wherever it
//! runs: its address is never taken for its name.

use std::{error::Error, fmt, io, sync::Arc};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, ConfigBuilder, RootCertStore,
        client::WantsClientCert,
        pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use super::{connection::Dialer, connector::Connector};
use crate::credentials::tls::{certificates, client_config};

/// TLS settings for calls to instances: trusted roots, the name that instances must prove, and this
/// client's identity. TLS 1.2 and 1.3, by rustls.
///
/// An instance shows a certificate for the name of its service (`orders`, not its address), or for
/// a [given name](Self::server_name). With any other certificate, or one that no root signed,
/// connecting fails and the call goes elsewhere.
///
/// ```
/// use waypost_client::{Client, Tls, TlsError};
///
/// # fn example(ca: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder().tls(Tls::new(ca)?).build()?;
/// # Ok(())
/// # }
/// assert!(matches!(Tls::new(b"no certificate"), Err(TlsError::BadRoots { .. })));
/// ```
#[derive(Clone)]
pub struct Tls {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
    /// None: the name of the service.
    server_name: Option<Box<str>>,
}

/// An error in TLS settings.
///
/// ```
/// use waypost_client::{Tls, TlsError};
///
/// let error = Tls::new(b"").unwrap_err();
/// assert_eq!(error.to_string(), "the root certificates can't be used: none found");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The root certificates are not PEM, not certificates, or missing.
    #[error("the root certificates can't be used: {reason}")]
    BadRoots {
        /// The reason.
        reason: String,
    },
    /// The client's certificate or key is invalid, or they don't belong together.
    #[error("the client's certificate and key can't be used: {reason}")]
    BadIdentity {
        /// The reason.
        reason: String,
    },
    /// The text is not a valid TLS server name.
    #[error("{name:?} is not a valid TLS server name")]
    BadName {
        /// The text.
        name: String,
    },
}

impl Tls {
    /// Trusts certificates that one of these root certificates (PEM) signed.
    ///
    /// # Errors
    /// [`TlsError::BadRoots`].
    ///
    /// ```no_run
    /// use waypost_client::Tls;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tls = Tls::new(&std::fs::read("ca.pem")?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(roots: &[u8]) -> Result<Self, TlsError> {
        let bad = |reason: &dyn fmt::Display| TlsError::BadRoots { reason: reason.to_string() };
        let mut store = RootCertStore::empty();
        for root in certificates(roots, bad)? {
            store.add(root).map_err(|error| bad(&error))?;
        }
        let roots = Arc::new(store);
        let config = builder(&roots).map_err(|error| bad(&error))?.with_no_client_auth();
        Ok(Self { roots, config: for_http2(config), server_name: None })
    }

    /// Sets this client's identity, for instances that ask for it: its certificate, then those
    /// between it and a root, and its key (all PEM). Default: none.
    ///
    /// # Errors
    /// [`TlsError::BadIdentity`].
    ///
    /// ```no_run
    /// use waypost_client::Tls;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tls = Tls::new(&std::fs::read("ca.pem")?)?
    ///     .identity(&std::fs::read("client.pem")?, &std::fs::read("client.key")?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn identity(self, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let bad = |reason: &dyn fmt::Display| TlsError::BadIdentity { reason: reason.to_string() };
        let chain = certificates(chain, bad)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad(&error))?;
        let builder = builder(&self.roots).map_err(|error| bad(&error))?;
        let config = builder.with_client_auth_cert(chain, key).map_err(|error| bad(&error))?;
        Ok(Self { config: for_http2(config), ..self })
    }

    /// Sets the name that instances must have a certificate for. Default: the name of their
    /// service.
    ///
    /// # Errors
    /// [`TlsError::BadName`].
    ///
    /// ```no_run
    /// use waypost_client::Tls;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tls = Tls::new(&std::fs::read("ca.pem")?)?.server_name("backends.internal")?;
    /// assert!(tls.server_name("no name").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn server_name(self, name: impl Into<String>) -> Result<Self, TlsError> {
        let name = name.into();
        match ServerName::try_from(name.as_str()) {
            Ok(_) => Ok(Self { server_name: Some(name.into()), ..self }),
            Err(_) => Err(TlsError::BadName { name }),
        }
    }

    /// Creates the dialer for instances of `service` from the one for plain connections.
    pub(crate) fn secure(&self, dialer: &Dialer, service: &str) -> Dialer {
        let name = self.server_name.as_deref().unwrap_or(service).to_owned();
        let origin = format!("https://{name}").parse().ok();
        let (plain, connector) =
            (dialer.connector.clone(), TlsConnector::from(Arc::clone(&self.config)));
        let connector = tower::service_fn(move |address: Uri| {
            let (plain, connector, name) = (plain.clone(), connector.clone(), name.clone());
            async move {
                let no_name =
                    |_| io::Error::other(format!("{name:?} is not a valid TLS server name"));
                let name = ServerName::try_from(name.clone()).map_err(no_name)?;
                let stream = plain.open(address).await?;
                let stream = connector.connect(name, TokioIo::new(stream)).await?;
                Ok::<_, Box<dyn Error + Send + Sync>>(TokioIo::new(stream))
            }
        });
        Dialer { connector: Connector::new(connector), origin, ..dialer.clone() }
    }
}

impl fmt::Debug for Tls {
    /// Leaves out the key, which must not get into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Tls");
        debug.field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

fn builder(
    roots: &Arc<RootCertStore>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    Ok(client_config()?.with_root_certificates(Arc::clone(roots)))
}

fn for_http2(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_carry_the_name_of_the_certificate() {
        let authority = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
        let tls = Tls::new(authority.cert.pem().as_bytes()).unwrap();
        let origin = |tls: &Tls| tls.secure(&Dialer::default(), "orders").origin.unwrap();
        assert_eq!(origin(&tls), "https://orders");
        assert_eq!(origin(&tls.server_name("b.internal").unwrap()), "https://b.internal");
    }
}
