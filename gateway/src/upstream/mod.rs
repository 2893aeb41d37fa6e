//! The services behind the gateway, with the views of their instances (`services`), and the
//! channels over which the requests of a route reach them (`channels`).

pub(crate) mod channels;
pub(crate) mod services;
