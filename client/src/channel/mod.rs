//! Channels: services that send each call to a picked instance, for generated tonic clients and for
//! plain HTTP. `dispatch` makes one `attempt` after the other (`connect`, `retry`), `hedge` makes
//! them in parallel. Never sends a call twice that an instance may have served, unless the caller
//! allows it or, over a kept connection that ended, its method is idempotent. No call waits without
//! a deadline.

mod attempt;
mod balanced;
mod call;
mod connect;
mod dispatch;
mod failure;
#[cfg(feature = "tonic")]
mod grpc;
mod hedge;
#[cfg(feature = "http")]
mod http;
mod http1;
mod protocol;
mod retry;
mod served_by;
mod stale;
mod timeout;
mod transport;

#[cfg(feature = "tonic")]
pub use self::grpc::ResponseFuture;
#[cfg(feature = "http")]
pub use self::http::{FailureKind, HttpChannel, HttpChannelError, HttpFuture};
pub use self::{
    balanced::BalancedChannel,
    http1::RawTarget,
    protocol::{Grpc, Http, Protocol},
    served_by::ServedBy,
    timeout::CallTimeout,
};
