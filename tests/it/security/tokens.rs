//! A registry's process with a policy, an audit file, and callers with tokens.

use std::{collections::HashMap, fs, path::PathBuf};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use waypost_auth::policy::NewToken;
use waypost_client::proto::{
    admin_client::AdminClient, discovery_client::DiscoveryClient, registry_client::RegistryClient,
};
use waypost_testing::process::{RegistryProcess, Serve};

use crate::support::serve;

/// A registry's process, and its callers.
pub(super) struct TokenRegistry {
    place: TempDir,
    pub(super) process: RegistryProcess,
    tokens: HashMap<&'static str, NewToken>,
}

/// The credential of a caller, and the id of its calls.
#[derive(Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>, &'static str);

pub(super) type Authorized = InterceptedService<Channel, Bearer>;

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request.metadata_mut().insert("x-request-id", MetadataValue::from_static(self.1));
        Ok(request)
    }
}

impl TokenRegistry {
    /// Starts a registry with these rules, and a token for each of the names.
    pub(super) async fn start(rules: &str, names: &[&'static str]) -> Self {
        Self::start_with(rules, names, serve()).await
    }

    pub(super) async fn start_with(rules: &str, names: &[&'static str], serve: Serve) -> Self {
        let place = TempDir::new().unwrap();
        let token = |name: &&'static str| (*name, NewToken::generate().unwrap());
        let tokens: HashMap<_, _> = names.iter().map(token).collect();
        let entry = |(name, token): (&&str, &NewToken)| {
            let sha256 = token.sha256();
            format!(
                "[[token]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\n\
                 expires = 2100-01-01T00:00:00Z\n"
            )
        };
        let entries: String = tokens.iter().map(entry).collect();
        let policy = place.path().join("policy.toml");
        fs::write(&policy, format!("{rules}\n{entries}")).unwrap();
        let arguments = ["--policy".into(), policy, "--audit".into(), audit(&place)];
        let arguments = arguments.map(PathBuf::into_os_string);
        Self { process: serve.arguments(arguments).start().await, place, tokens }
    }

    pub(super) fn policy(&self) -> PathBuf {
        self.place.path().join("policy.toml")
    }

    pub(super) fn audit(&self) -> PathBuf {
        audit(&self.place)
    }

    /// Opens a connection of a caller; `anonymous` has no token.
    pub(super) async fn connect(&self, name: &str) -> Authorized {
        let bearer = self.tokens.get(name).map(|token| {
            let mut value: MetadataValue<_> = format!("Bearer {}", token.text()).parse().unwrap();
            value.set_sensitive(true);
            value
        });
        InterceptedService::new(self.process.channel().await, Bearer(bearer, "call-7"))
    }

    pub(super) async fn registry(&self, name: &str) -> RegistryClient<Authorized> {
        RegistryClient::new(self.connect(name).await)
    }

    pub(super) async fn discovery(&self, name: &str) -> DiscoveryClient<Authorized> {
        DiscoveryClient::new(self.connect(name).await)
    }

    pub(super) async fn admin(&self, name: &str) -> AdminClient<Authorized> {
        AdminClient::new(self.connect(name).await)
    }

    /// Stops the registry, and returns the audit records of calls and sessions.
    pub(super) async fn records(&mut self) -> Vec<Value> {
        self.process.signal(Signal::TERM);
        assert_eq!(self.process.end().await.code(), Some(0));
        let text = fs::read_to_string(self.audit()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn audit(place: &TempDir) -> PathBuf {
    place.path().join("audit")
}
