//! Gateways in this process.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::OnceLock,
    time::Duration,
};

use http::Request;
use hyper::body::Incoming;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use tempfile::TempDir;
use tonic::body::Body;
use waypost_client::fake::Registry;
use waypost_gateway::{Advertised, GatewayOptions, Running, TrustedProxies, start};

use super::{Acted, Answer, Caller, Instance, Lines, full, until, whole};

/// Any port on loopback.
const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The parameters of a gateway.
pub struct Setup<'a> {
    pub registry: Registry,
    /// The configuration file; if empty, the first segment of a path names the service.
    pub config: &'a str,
    /// Other files beside it.
    pub files: &'a [(&'a str, &'a str)],
    /// Networks of proxies in front of it.
    pub trusted: &'a [&'a str],
    /// True where it registers itself.
    pub advertised: Option<Advertised>,
    pub drain: Duration,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            registry: Registry::new(),
            config: "",
            files: &[],
            trusted: &[],
            advertised: None,
            drain: Duration::from_secs(20),
        }
    }
}

/// A gateway that works.
pub struct Gateway {
    pub registry: Registry,
    pub running: Running,
    lines: Lines,
    directory: TempDir,
}

impl Gateway {
    /// A gateway with this configuration file.
    pub async fn new(config: &str) -> Self {
        Self::set_up(Setup { config, ..Setup::default() }).await
    }

    pub async fn set_up(setup: Setup<'_>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in setup.files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let config = config_of(&directory);
        let text = if setup.config.is_empty() { "implicit = true\n" } else { setup.config };
        std::fs::write(&config, text).unwrap();
        let lines = Lines::default();
        let backoff = Duration::from_millis(50);
        let client = setup.registry.builder().backoff(backoff, backoff).build().unwrap();
        let options = GatewayOptions {
            listen: ANYWHERE,
            admin_listen: ANYWHERE,
            config: Some(config),
            client,
            trusted: TrustedProxies::new(setup.trusted.iter().map(|net| net.parse().unwrap())),
            name: format!("test-{:016x}", fastrand::u64(..)),
            advertised: setup.advertised,
            prometheus: Some(figures().clone()),
            access_log: Some(Box::new(lines.clone())),
            head_timeout: Duration::from_secs(10),
            body_silence_max: Duration::from_secs(30),
            drain: setup.drain,
        };
        let running = start(options).await.unwrap();
        Self { registry: setup.registry, running, lines, directory }
    }

    /// An instance that serves all requests so, and is registered.
    pub async fn instance<F>(
        &self,
        service: &str,
        id: &str,
        act: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> Instance
    where
        F: Future<Output = Acted> + Send + 'static,
    {
        let instance = Instance::serve(act).await;
        self.registry.join(instance.registration(service, id));
        instance
    }

    pub fn http1(&self) -> Caller {
        Caller::Http1(self.running.address())
    }

    pub fn http2(&self) -> Caller {
        Caller::Http2(self.running.address())
    }

    /// Sends a request in HTTP/1.1 and reads the whole response.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        whole(self.http1().send(request).await).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &'static str) -> Answer {
        self.send(Request::post(path).body(full(body)).unwrap()).await
    }

    /// Sends a request to the port of operators.
    pub async fn operator(&self, path: &str) -> Answer {
        let request = Request::get(path).body(Body::empty()).unwrap();
        whole(Caller::Http1(self.running.admin_address()).send(request).await).await
    }

    /// The access log, once it has `count` lines; more are an error.
    pub async fn told(&self, count: usize) -> Vec<Value> {
        until(async || self.lines.all().len() >= count).await;
        let lines = self.lines.all();
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    /// The last line of the access log for a request with this id, once it is there.
    pub async fn line_of(&self, request_id: &str) -> Value {
        let find = || self.lines.all().into_iter().find(|line| line["request_id"] == request_id);
        until(async || find().is_some()).await;
        find().unwrap()
    }

    /// Puts another file in the place of its own, as a whole.
    pub fn configure(&self, config: &str) {
        let path = config_of(&self.directory);
        let new = path.with_extension("new");
        std::fs::write(&new, config).unwrap();
        std::fs::rename(&new, path).unwrap();
    }
}

fn config_of(directory: &TempDir) -> PathBuf {
    directory.path().join("gateway.toml")
}

/// The metrics of all gateways of this process: services separate them.
fn figures() -> &'static PrometheusHandle {
    static FIGURES: OnceLock<PrometheusHandle> = OnceLock::new();
    FIGURES.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap())
}
