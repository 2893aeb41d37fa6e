//! The services behind the gateway: their views, and the channels of routes to them.

pub(crate) mod channels;
pub(crate) mod services;
