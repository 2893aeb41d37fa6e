//! The service behind the other one: what something costs.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::HeaderMap,
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

pub(crate) const SERVICE: &str = "prices";

/// The work that a request is.
const WORK: Duration = Duration::from_millis(1);

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Price {
    pub(crate) cents: u32,
    /// The replica that responded.
    pub(crate) by: String,
    /// The request of the caller, as it came to the gateway.
    pub(crate) request_id: String,
}

pub(crate) fn router(id: String) -> Router {
    Router::new().route("/{number}", get(price)).with_state(id)
}

async fn price(
    State(by): State<String>,
    Path(number): Path<u32>,
    headers: HeaderMap,
) -> Json<Price> {
    sleep(WORK).await;
    let request_id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let request_id = request_id.unwrap_or_default().to_owned();
    Json(Price { cents: 100 + number % 900, by, request_id })
}
