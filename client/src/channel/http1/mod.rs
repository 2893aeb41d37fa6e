//! HTTP/1.1 to instances: a `pool` of connections (`connection`), each with one call at a time. A
//! connection's bytes pass its `wire`; it is `idle` from the end of one `body` to the next call.

mod body;
mod connection;
mod idle;
mod pool;
mod raw_target;
mod wire;

pub use self::raw_target::RawTarget;
pub(crate) use self::{body::ResponseBody, pool::Pool};
