//! A directory with what callers are judged by: a policy, the keys of an issuer, and the identity
//! folder of a server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use waypost::{Config, config::StoreKind};
use waypost_auth::testing::SigningKey;
use waypost_testing::{authority::TestAuthority, process::read_port_file, wait::until};

use crate::support::TestServer;

/// The issuer `k8s` of [`Place`]'s policies.
pub(super) const ISSUER: &str = "https://issuer.test";

/// The directory.
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) authority: TestAuthority,
}

impl Place {
    /// Makes the files. The policy has an issuer `k8s`.
    pub(crate) fn new(policy: &str) -> Self {
        let place = Self::without_issuer("");
        place.write_policy(policy);
        place
    }

    /// Makes the files. The policy has no issuer until another one is written.
    pub(crate) fn without_issuer(policy: &str) -> Self {
        let directory = TempDir::new().expect("a directory");
        let authority = TestAuthority::new("the authority of a test");
        let tls = directory.path().join("tls");
        fs::create_dir(&tls).expect("a directory");
        authority.write_folder(&tls, &authority.issue("127.0.0.1"));
        let place = Self { directory, authority };
        place.write_keys();
        place.write_file("policy.toml", policy);
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn policy(&self) -> PathBuf {
        self.path().join("policy.toml")
    }

    pub(crate) fn tls(&self) -> PathBuf {
        self.path().join("tls")
    }

    /// Replaces the policy, whole.
    pub(crate) fn write_policy(&self, text: &str) {
        let issuer = format!(
            "\n[issuer.k8s]\nissuer = '{ISSUER}'\naudience = 'waypost'\nkeys = 'keys.json'\n"
        );
        self.write_file("policy.toml", &format!("{text}{issuer}"));
    }

    /// Replaces a file, whole.
    pub(crate) fn write_file(&self, name: &str, text: &str) {
        let beside = self.path().join("new");
        fs::write(&beside, text).expect("written");
        fs::rename(beside, self.path().join(name)).expect("renamed");
    }

    /// Writes the keys of the issuer.
    pub(crate) fn write_keys(&self) {
        let keys = json!({ "keys": [SigningKey::p256().jwk("ES256", "a")] });
        self.write_file("keys.json", &keys.to_string());
    }

    fn config(&self, data: &str) -> Config {
        Config {
            listen: "127.0.0.1:0".parse().expect("an address"),
            port_file: Some(self.path().join(format!("{data}.port"))),
            data_dir: self.path().join(data),
            store: StoreKind::Memory,
            policy: Some(self.policy()),
            ..Config::default()
        }
    }

    /// Returns the configuration of a server in clear text.
    pub(crate) fn clear_text(&self) -> Config {
        self.config("clear")
    }

    /// Returns the configuration of a server with TLS.
    pub(crate) fn with_tls(&self) -> Config {
        Config { tls: Some(self.tls()), ..self.config("tls") }
    }
}

/// Starts a server, and waits until it serves.
pub(crate) async fn serve(config: Config) -> TestServer {
    let port_file = config.port_file.clone().expect("a port file");
    let server = TestServer::start_config(config);
    until("the server to serve", || read_port_file(&port_file).is_ok()).await;
    server
}

/// Returns the text of the static token with a name.
pub(crate) fn static_token(name: &str) -> String {
    format!("waypost_{name:-<43}")
}

/// Returns the entry of a static token in a policy; `more` are further lines.
pub(crate) fn token_table(name: &str, more: &str) -> String {
    let sha256 = Sha256::digest(static_token(name));
    format!("[[token]]\nname = '{name}'\nsha256 = '{sha256:x}'\n{more}\n")
}
