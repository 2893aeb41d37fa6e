//! HTTP/1.1 to instances: a `pool` of connections (`connection`), each with one call at a time. A
//! connection's bytes pass `wire` and `raw_target`; it returns to the pool with the end of a `body`.

mod body;
mod connection;
mod pool;
mod raw_target;
mod wire;

pub use self::raw_target::RawTarget;
pub(crate) use self::{body::Inflow, pool::Pool};
