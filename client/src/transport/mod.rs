//! Connections to the registry and to instances. From the ground up: byte streams (`connector`; TLS
//! to instances in `tls`, to the registry in `registry_tls`; `first_read`), the limits of a
//! response (`response_limits`), one HTTP/2 connection (`connection`), and the one that all calls
//! to an address share (`shared_connection`).

pub(crate) mod connection;
mod connector;
#[cfg(feature = "tls")]
mod first_read;
#[cfg(feature = "tls")]
mod registry_tls;
mod response_limits;
mod shared_connection;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "tls")]
pub(crate) use self::registry_tls::secure;
#[cfg(feature = "tls")]
pub use self::tls::{Tls, TlsError};
pub(crate) use self::{
    connection::{ConnectError, Connection, Dialer, SendError},
    connector::{ByteStream, Connector},
    response_limits::{FIELDS_BYTES_MAX, FIELDS_MAX, InvalidResponse, unify_content_length},
    shared_connection::{SharedConnection, address_uri},
};
