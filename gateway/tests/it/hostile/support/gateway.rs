//! The gateway, in this process, before the instances of a service `orders`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use waypost_client::{Registration, fake::Registry};
use waypost_gateway::{GatewayOptions, Running, TrustedProxies};

/// Timeout of heads. Short, for tests.
pub const HEAD_TIMEOUT: Duration = Duration::from_millis(500);

/// Timeout of bodies.
pub const BODY_SILENCE_MAX: Duration = Duration::from_millis(700);

/// A gateway without a configuration: `/orders` leads to `upstream`.
pub async fn start(upstream: SocketAddr) -> Running {
    start_with(&[upstream], None).await
}

/// A gateway with a configuration, and any number of instances.
pub async fn start_with(upstreams: &[SocketAddr], config: Option<PathBuf>) -> Running {
    let registry = Registry::new();
    for upstream in upstreams {
        registry.join(Registration::new("orders", upstream.ip().to_string(), upstream.port()));
    }
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = GatewayOptions {
        listen: anywhere,
        admin_listen: anywhere,
        config,
        client: registry.client(),
        trusted: TrustedProxies::default(),
        name: "waypost-1".into(),
        advertised: None,
        prometheus: None,
        access_log: None,
        head_timeout: HEAD_TIMEOUT,
        body_silence_max: BODY_SILENCE_MAX,
        drain: Duration::ZERO,
    };
    waypost_gateway::start(options).await.unwrap()
}
