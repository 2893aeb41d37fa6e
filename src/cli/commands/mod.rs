//! Commands of one file each: arguments, request, output.

pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod deregister;
pub(crate) mod drain;
pub(crate) mod health;
pub(crate) mod instances;
pub(crate) mod release;
pub(crate) mod restore;
pub(crate) mod serve;
pub(crate) mod services;
pub(crate) mod status;
