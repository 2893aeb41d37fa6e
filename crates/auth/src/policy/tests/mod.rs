//! Tests of the policy as a whole, by topic. This file has what they share.

mod decisions;
mod errors;
mod hosts;
mod mutations;
mod reference;
mod tokens;

use std::{fs, path::Path};

use serde_json::json;
use tempfile::TempDir;
use waypost_config::ConfigErrors;

use super::{Grants, Policy, Principal};
use crate::testing::SigningKey;

/// The policy of the documentation, with the tokens that its tests use.
const EXAMPLE: &str = include_str!("example.toml");

/// A directory with the keys of the issuer `k8s`, in `keys.json`.
fn directory() -> TempDir {
    let directory = TempDir::new().expect("a directory");
    let set = json!({ "keys": [SigningKey::ed25519().jwk("EdDSA", "a")] });
    fs::write(directory.path().join("keys.json"), set.to_string()).expect("a file");
    directory
}

/// Parses a policy that names no file.
fn parse(text: &str) -> Result<Policy, ConfigErrors> {
    Policy::parse(text, Path::new("/nowhere"))
}

fn principal(text: &str) -> Principal {
    Principal::parse(text).expect("a principal")
}

/// The rights of a principal by a policy that names no file.
fn grants(policy: &str, text: &str) -> Grants {
    parse(policy).expect("a policy").grants(&principal(text))
}
