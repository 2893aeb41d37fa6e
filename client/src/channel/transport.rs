//! The connections that a call can use to its instance.

use http::{Request, Response};
use tonic::body::Body;

use super::http1::{Pool, ResponseBody};
use crate::{
    endpoint::Endpoint,
    transport::{Connection, SendError},
};

/// The transport of a request to an instance.
pub(super) enum Transport {
    /// A connection that all calls share.
    Connection(Connection),
    /// A connection of its own from the pool.
    Pool(Pool),
}

impl Transport {
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        address: &str,
    ) -> Result<Response<ResponseBody>, SendError> {
        match self {
            Self::Connection(connection) => {
                Ok(connection.clone().send(request).await?.map(ResponseBody::shared))
            }
            Self::Pool(pool) => pool.send(request, address).await,
        }
    }

    /// Keeps the next call from using this connection.
    pub(super) fn forget(&self, endpoint: &Endpoint) {
        match self {
            Self::Connection(connection) => endpoint.connection().discard(connection),
            // The pool keeps no lost connection.
            Self::Pool(_) => {}
        }
    }
}
