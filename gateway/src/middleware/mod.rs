//! The layers around a response: CORS outside, compression inside. Only they see a request as a
//! whole.

mod compression;
mod cors;

use std::convert::Infallible;

use http::{Request, Response};
use tonic::body::Body;
use tower::Service;
use tower_http::cors::CorsLayer;

use crate::config::GatewayConfig;

/// The layers that a configuration asks for.
#[derive(Default)]
pub(crate) struct Layers {
    cors: Option<CorsLayer>,
    has_compression: bool,
}

impl Layers {
    pub(crate) fn new(config: &GatewayConfig) -> Self {
        Self { cors: config.cors.as_ref().map(cors::layer), has_compression: config.compression }
    }

    /// Returns true where no layer changes any response.
    pub(crate) fn is_empty(&self) -> bool {
        self.cors.is_none() && !self.has_compression
    }

    /// Responds with `inner` within the layers. The layer for CORS responds to preflights itself.
    pub(crate) async fn respond<B, S>(
        &self,
        inner: S,
        request: Request<B>,
    ) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone,
    {
        let cors = self.cors.as_ref();
        if !self.has_compression {
            return cors::respond(cors, inner, request).await;
        }
        let inner = tower::service_fn(move |request| compression::respond(inner.clone(), request));
        cors::respond(cors, inner, request).await
    }
}
