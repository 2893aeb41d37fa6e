//! Servers with a policy and TLS, and callers with credentials.

mod caller;
mod issuer;
mod place;
mod tenant;

use std::net::SocketAddr;

use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;
use tower::service_fn;
use waypost_testing::wait::soon;

pub(crate) use caller::{Answer, Protocol, RawCaller, Reading};
pub(crate) use issuer::{after, jwt, jwt_by};
pub(crate) use place::{Place, serve, static_token, token_table};
pub(crate) use tenant::{Tenant, end_of};

/// Adds a token to each call.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(AsciiMetadataValue);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A connection whose calls have a token.
pub(crate) type TokenChannel = InterceptedService<Channel, Bearer>;

/// Returns a connection whose calls have a token.
pub(crate) fn with_token(channel: Channel, token: &str) -> TokenChannel {
    let value = format!("Bearer {token}").parse().expect("a header value");
    InterceptedService::new(channel, Bearer(value))
}

/// Opens a connection over TLS.
pub(crate) async fn connect_tls(address: SocketAddr, tls: TlsConnector) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    let connect = service_fn(move |_| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::from(address.ip());
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
        }
    });
    soon("a connection", endpoint.connect_with_connector(connect)).await.expect("TLS")
}

/// Returns the error of a handshake that the server refuses.
pub(crate) async fn handshake_error(address: SocketAddr, tls: TlsConnector) -> String {
    let stream = TcpStream::connect(address).await.expect("connected");
    let read = async {
        // With TLS 1.3 the server judges the certificate after the caller has finished.
        tls.connect(ServerName::from(address.ip()), stream).await?.read_u8().await
    };
    soon("the end of a handshake", read).await.expect_err("a refusal").to_string()
}

/// Returns the machine's reason of a refusal.
pub(crate) fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|details| details.reason)
}
