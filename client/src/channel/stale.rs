//! Requests that went into a connection which the instance had closed while it was kept. Such a request is
//! sent once more, over a new connection. Must not repeat one that an instance may have begun to serve,
//! unless serving it twice does no harm (RFC 9110, 9.2.2; RFC 9112, 9.3.1).

use http::Response;

use super::{balanced::BalancedChannel, call::Call, protocol::Protocol, transport::Transport};
use crate::{channel::http1::ResponseBody, runtime::clock, transport::SendError};

impl<P: Protocol> BalancedChannel<P> {
    /// Sends an attempt, the second time over a new connection where the first had been kept and ended
    /// before any byte of a response. The second time costs nothing of the budget and counts as the same
    /// attempt, as nothing of it is the instance's failure. It fails as any other.
    pub(super) async fn send(
        &self,
        call: &Call,
        transport: &Transport,
        request: ::http::Request<tonic::body::Body>,
        address: &str,
    ) -> Result<Response<ResponseBody>, SendError> {
        let sent = transport.send(request, address).await;
        let (Err(SendError::Stale(_)), Transport::Pool(pool)) = (&sent, transport) else {
            return sent;
        };
        if !call.is_idempotent() && self.options.attempts < 2 {
            return sent;
        }
        match call.again::<P>(clock::now()) {
            Some(request) => pool.send_on_new_connection(request, address).await,
            None => sent,
        }
    }
}
