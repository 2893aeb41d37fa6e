//! The service that is requested: it calls the other one for each request.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use http::Request;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tonic::body::Body;
use tower::Service as _;
use waypost_client::{CallTimeout, HttpChannel, Service};

use crate::{Outcome, prices::Price};

pub(crate) const SERVICE: &str = "orders";

/// The work that a request is, besides its price.
const WORK: Duration = Duration::from_millis(5);
const PRICE_MAX: Duration = Duration::from_secs(2);
/// Attempts to get a price: the request is idempotent.
const PRICE_ATTEMPTS: u32 = 3;

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) number: u32,
    /// The replica that responds.
    pub(crate) by: String,
    pub(crate) price: Price,
}

#[derive(Clone)]
struct Orders {
    id: String,
    prices: HttpChannel,
}

pub(crate) fn router(id: String, prices: &Service) -> Router {
    let prices = prices.http_channel().retry_idempotent(PRICE_ATTEMPTS);
    Router::new()
        .route("/{number}", get(look_up))
        .route("/", post(place))
        .with_state(Orders { id, prices })
}

type Answer = Result<Json<Order>, (StatusCode, String)>;

async fn look_up(State(orders): State<Orders>, Path(number): Path<u32>) -> Answer {
    orders.answer(number).await
}

async fn place(State(orders): State<Orders>, Json(number): Json<u32>) -> Answer {
    orders.answer(number).await
}

impl Orders {
    async fn answer(mut self, number: u32) -> Answer {
        sleep(WORK).await;
        match self.price(number).await {
            Ok(price) => Ok(Json(Order { number, by: self.id, price })),
            Err(error) => Err((StatusCode::BAD_GATEWAY, format!("no price: {error}\n"))),
        }
    }

    /// The channel adds the correlation headers of the request that is served.
    async fn price(&mut self, number: u32) -> Outcome<Price> {
        let request = Request::get(format!("/{number}")).extension(CallTimeout(PRICE_MAX));
        let answer = self.prices.call(request.body(Body::empty())?).await?;
        if !answer.status().is_success() {
            return Err(answer.status().to_string().into());
        }
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }
}
