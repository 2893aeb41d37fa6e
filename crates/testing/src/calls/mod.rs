//! Load on a service and the replicas behind it, for benchmarks of calls.

pub mod load;
pub mod replica;
