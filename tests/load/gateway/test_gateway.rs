//! A gateway in this process, and its access log.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use tokio::time::sleep;
use waypost_gateway::{GatewayOptions, Running, TrustedProxies, start};

use crate::{gateway::callers::Callers, support::client};

/// A gateway, and the lines of its access log.
pub(crate) struct TestGateway {
    running: Running,
    lines: Lines,
    metrics: Option<PrometheusHandle>,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TestGateway {
    /// A gateway that finds services at the registry in the file, with the routes of another file.
    pub(crate) async fn start(registry: &Path, routes: Option<PathBuf>) -> Self {
        let lines = Lines::default();
        let access_log = Some(Box::new(lines.clone()) as _);
        Self { lines, ..Self::begin(registry, routes, access_log, None).await }
    }

    /// A gateway with metrics and without an access log.
    pub(crate) async fn start_measured(registry: &Path) -> Self {
        let metrics = PrometheusBuilder::new().install_recorder().expect("the first recorder");
        Self::begin(registry, None, None, Some(metrics)).await
    }

    async fn begin(
        registry: &Path,
        routes: Option<PathBuf>,
        access_log: Option<Box<dyn io::Write + Send>>,
        metrics: Option<PrometheusHandle>,
    ) -> Self {
        let nowhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        let running = start(GatewayOptions {
            listen: nowhere,
            admin_listen: nowhere,
            config: routes,
            client: client(registry).build().expect("a client"),
            trusted: TrustedProxies::default(),
            name: "gateway".to_owned(),
            advertised: None,
            prometheus: metrics.clone(),
            access_log,
            head_timeout: Duration::from_secs(10),
            body_silence_max: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        })
        .await
        .expect("a gateway");
        Self { running, lines: Lines::default(), metrics }
    }

    /// The text of a scrape of its metrics.
    pub(crate) fn metrics(&self) -> String {
        self.metrics.as_ref().expect("it is measured").render()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.address()
    }

    /// Stops it, and returns the access log.
    pub(crate) async fn close(self) -> Vec<Value> {
        self.running.close().await;
        let text = String::from_utf8(self.lines.0.lock().expect("no panic").clone());
        let text = text.expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Waits until requests are served.
pub(crate) async fn serving(gateway: &TestGateway) {
    loop {
        let callers = Callers::start(gateway.address(), 1, Duration::ZERO);
        sleep(Duration::from_millis(20)).await;
        if callers.stop().await.iter().any(|asked| !asked.failed()) {
            return;
        }
    }
}
