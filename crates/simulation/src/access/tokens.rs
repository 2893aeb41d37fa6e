//! The static tokens of a simulated world: one of each service, and those of readers. Pure.

use std::fmt::Write;

use http::HeaderValue;
use sha2::{Digest, Sha256};
use waypost_client::Token;

use super::subject::ServiceName;

/// The token of the recorder and the probes, which may do everything.
pub(crate) const RECORDER_TOKEN: &str = "recorder";
/// The token of views, which may discover everything.
pub(crate) const VIEWER_TOKEN: &str = "viewer";
/// The token of the hostile client.
pub(crate) const INTRUDER_TOKEN: &str = "intruder";

/// The name of a service's token.
pub(crate) fn service_token((namespace, service): &ServiceName) -> String {
    format!("{namespace}.{service}")
}

/// The name of the token of the readers on a node.
pub(crate) fn reader_token(node: usize) -> String {
    format!("reader-{node}")
}

/// The token of a name.
pub(crate) fn token(name: &str) -> Token {
    Token::new(text(name)).expect("names are ASCII")
}

/// The value of the header with which requests carry a token.
pub(crate) fn authorization(name: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {}", text(name))).expect("names are ASCII")
}

/// The digest of a token, as the policy has it.
pub(crate) fn sha256(name: &str) -> String {
    let digest = Sha256::digest(text(name));
    digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string has room");
        hex
    })
}

fn text(name: &str) -> String {
    format!("waypost_simulated-{name}")
}
