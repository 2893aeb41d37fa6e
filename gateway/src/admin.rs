//! The operators' port: metrics, liveness and readiness.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;

/// Serves operators until `stop`.
pub(crate) async fn run(listener: TcpListener, gateway: Arc<Gateway>, stop: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { "alive\n" }))
        .route("/health/ready", get(ready))
        .with_state(gateway);
    let serving = axum::serve(listener, router).into_future();
    if let Some(Err(error)) = stop.run_until_cancelled(serving).await {
        tracing::error!(%error, "serving the operators' port failed");
    }
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    match &gateway.prometheus {
        Some(prometheus) => (StatusCode::OK, prometheus.render()),
        None => (StatusCode::NOT_FOUND, "metrics are not recorded\n".to_owned()),
    }
}

async fn ready(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    match gateway.unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}
