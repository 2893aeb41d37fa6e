//! Requests over a kept connection that the instance had closed. Such a request is sent once more,
//! over a new connection. Never repeats one that an instance may have begun to serve, unless
//! serving it twice does no harm (RFC 9110, 9.2.2; RFC 9112, 9.3.1).

use http::Response;

use super::{balanced::BalancedChannel, call::Call, protocol::Protocol, transport::Transport};
use crate::{channel::http1::ResponseBody, runtime::clock, transport::SendError};

impl<P: Protocol> BalancedChannel<P> {
    /// Sends an attempt; a second time, over a new connection, if it used a kept one that ended
    /// before any byte of a response. The second time is free of the budget and counts as the same
    /// attempt, as the first was no failure of the instance. It fails as any other.
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
