//! TLS for connections to the registry, with the credentials in force at the time of each.

use std::{error::Error, io, sync::Arc};

use http::{Uri, uri::Scheme};
use hyper_util::rt::TokioIo;
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{
    connection::{Dialer, OpenMoment},
    connector::Connector,
};
use crate::credentials::{ActiveCredentials, tls::TlsFailure};

/// Creates the dialer for the registry's addresses with this host name from the one for plain
/// connections. `None` if the host can't be a name in a certificate.
pub(crate) fn secure(
    dialer: &Dialer,
    credentials: &Arc<ActiveCredentials>,
    host: &str,
) -> Option<Dialer> {
    let host = host.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let expected: Arc<str> = match credentials.server_id() {
        Some(id) => id.to_string().into(),
        None => host.into(),
    };
    let (plain, active) = (dialer.connector.clone(), Arc::clone(credentials));
    let shown = Arc::clone(&expected);
    let connector = tower::service_fn(move |address: Uri| {
        let (plain, active, name) = (plain.clone(), Arc::clone(&active), name.clone());
        let expected = Arc::clone(&shown);
        async move {
            let stream = plain.open(clear(&address)?).await?;
            let config = active.tls().ok_or("there is no ca.crt to trust the server by")?;
            let connector = TlsConnector::from(Arc::new(config));
            let connected = connector.connect(name, TokioIo::new(stream)).await;
            let stream = connected.map_err(|error| in_words(error, &expected))?;
            Ok::<_, Box<dyn Error + Send + Sync>>(TokioIo::new(stream))
        }
    });
    Some(Dialer {
        connector: Connector::new(connector),
        scheme: Scheme::HTTPS,
        opening: OpenMoment::FirstByte { server: expected },
        ..dialer.clone()
    })
}

/// The reason of a failed connection, in words if it comes from TLS.
pub(super) fn in_words(error: io::Error, expected: &str) -> Box<dyn Error + Send + Sync> {
    match TlsFailure::find(&error, expected) {
        Some(failure) => failure.into(),
        None => error.into(),
    }
}

/// The URI of the plain connection below.
fn clear(address: &Uri) -> Result<Uri, http::Error> {
    let authority = address.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query("/").build()
}
