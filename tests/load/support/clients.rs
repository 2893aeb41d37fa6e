//! Clients of a registry that gets another address with each start.

use std::{io, path::Path};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use waypost_client::{Builder, Client};
use waypost_testing::process::read_port_file;

/// Host name of the registry.
const NAME: &str = "registry.localhost";

/// Returns the builder of a client whose connections go to the address in a port file.
pub(crate) fn client(port_file: &Path) -> Builder {
    let port_file = port_file.to_owned();
    Client::builder().registry(format!("http://{NAME}:1")).connector(tower::service_fn(
        move |uri: http::Uri| {
            let registry = (uri.host() == Some(NAME)).then(|| read_port_file(&port_file));
            async move {
                let address = match registry {
                    Some(address) => address?,
                    None => {
                        let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?;
                        authority.as_str().parse().map_err(io::Error::other)?
                    }
                };
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        },
    ))
}
