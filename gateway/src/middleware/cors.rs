//! Cross-origin resource sharing: the layer of tower-http, with two corrections.

use std::convert::Infallible;

use http::{Method, Request, Response, header};
use tonic::body::Body;
use tower::{Layer, Service, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

use crate::{
    config::{Allowed, Cors},
    headers::hop_by_hop::remove_prefixed,
};

/// The prefix of all response fields that CORS and its extensions define.
const CORS_FIELDS: &str = "access-control-";

/// Responds with `inner`, and with the CORS fields of the configuration. They replace those of an
/// instance, which would widen what the operator allows.
pub(super) async fn respond<B, S>(
    cors: Option<&CorsLayer>,
    inner: S,
    request: Request<B>,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    let Some(cors) = cors else { return inner.oneshot(request).await };
    let inner = inner.map_response(|mut response: Response<Body>| {
        remove_prefixed(response.headers_mut(), CORS_FIELDS);
        response
    });
    if !is_other_options(&request) {
        return cors.layer(inner).oneshot(request).await;
    }
    // The layer takes every OPTIONS for a preflight: it gets another method meanwhile.
    let mut request = request;
    *request.method_mut() = Method::GET;
    let inner = inner.map_request(|mut request: Request<B>| {
        *request.method_mut() = Method::OPTIONS;
        request
    });
    cors.layer(inner).oneshot(request).await
}

/// Returns true for an OPTIONS that is not a preflight (Fetch standard, section 3.3.2).
fn is_other_options<B>(request: &Request<B>) -> bool {
    let mut names = [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD].into_iter();
    request.method() == Method::OPTIONS && !names.all(|name| request.headers().contains_key(name))
}

/// Builds the layer of a configuration.
pub(super) fn layer(cors: &Cors) -> CorsLayer {
    let layer = CorsLayer::new().allow_credentials(cors.credentials);
    let layer = match &cors.origins {
        Allowed::Any => layer.allow_origin(AllowOrigin::any()),
        Allowed::These(origins) => layer.allow_origin(AllowOrigin::list(origins.iter().cloned())),
    };
    let layer = match &cors.methods {
        Allowed::Any => layer.allow_methods(AllowMethods::any()),
        Allowed::These(methods) => layer.allow_methods(AllowMethods::list(methods.iter().cloned())),
    };
    let layer = match &cors.headers {
        Allowed::Any => layer.allow_headers(AllowHeaders::any()),
        Allowed::These(headers) => layer.allow_headers(AllowHeaders::list(headers.iter().cloned())),
    };
    let layer = match &cors.exposed {
        Allowed::Any => layer.expose_headers(ExposeHeaders::any()),
        Allowed::These(exposed) => {
            layer.expose_headers(ExposeHeaders::list(exposed.iter().cloned()))
        }
    };
    match cors.max_age {
        None => layer,
        Some(age) => layer.max_age(age),
    }
}
