//! The connections that a call can take to its instance.

use http::{Request, Response};
use tonic::body::Body;

use super::http1::{Pool, ResponseBody};
use crate::{
    endpoint::Endpoint,
    transport::{Connection, SendError},
};

/// How a request gets to an instance.
pub(super) enum Transport {
    /// Over a connection that all calls share.
    Connection(Connection),
    /// Over one that it has for itself.
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

    /// The next call is not to go the same way.
    pub(super) fn forget(&self, endpoint: &Endpoint) {
        match self {
            Self::Connection(connection) => endpoint.connection().discard(connection),
            // It keeps none that was lost.
            Self::Pool(_) => {}
        }
    }
}
