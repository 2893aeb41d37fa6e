//! Raw requests and their outcomes, the gateway under test, and the instance behind it.

pub mod caller;
pub mod case;
pub mod frames;
pub mod gateway;
pub mod upstream;
