//! TLS for connections to the registry: the identity `folder` is read as a whole into an `identity`
//! (certificates from PEM, their `end`, the expected `server_id`); `failure` has the errors of
//! handshakes in words.

mod end;
mod failure;
mod folder;
mod folder_error;
mod identity;
mod pem;
mod server_id;

pub use self::folder_error::FolderError;
pub(crate) use self::{
    failure::TlsFailure,
    folder::FollowedFolder,
    identity::TlsIdentity,
    pem::{certificates, client_config},
    server_id::{InvalidServerId, ServerId},
};
