//! Compresses responses for callers that accept it, and corrects the fields that describe their
//! bytes.
//! Invariant: a response that is not compressed stays as it is, and so does the instance's request.

use std::convert::Infallible;

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, VARY},
};
use http_body_util::BodyExt;
use tonic::body::Body;
use tower::{Layer, Service, ServiceExt};
use tower_http::compression::{
    CompressionLayer,
    predicate::{DefaultPredicate, Predicate},
};

use crate::guard::members;

/// Checksums of the instance's bytes (RFC 9530, RFC 3230, RFC 1864): `Content-Digest` of the
/// content, `Repr-Digest` of the representation with its content coding. Compression changes both.
static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// Marks a response that the instance sent without a content coding.
#[derive(Clone, Copy)]
struct Uncoded;

/// Responds with `inner`, compressed where the caller accepts it and neither side forbids it.
pub(super) async fn respond<B, S>(
    inner: S,
    mut request: Request<B>,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    // RFC 9111, 5.2.1.6.
    if has_no_transform(request.headers()) {
        return inner.oneshot(request).await;
    }
    let validators = request.headers().get_all(IF_NONE_MATCH).iter().cloned().collect::<Vec<_>>();
    let mut accepted = allow_identity(request.headers_mut());
    let inner = inner
        .map_request(move |mut request: Request<B>| {
            restore(request.headers_mut(), accepted.take());
            request
        })
        .map_response(|mut response: Response<Body>| {
            if !response.headers().contains_key(CONTENT_ENCODING) {
                response.extensions_mut().insert(Uncoded);
            }
            response
        });
    let layer = CompressionLayer::new().compress_when(DefaultPredicate::new().and(may_transform));
    let mut response = layer.layer(inner).oneshot(request).await?.map(Body::new);
    let was_uncoded = response.extensions_mut().remove::<Uncoded>().is_some();
    if was_uncoded && response.headers().contains_key(CONTENT_ENCODING) {
        weaken(response.headers_mut());
        remove_digests(response.headers_mut());
        return Ok(response.map(|body| Body::new(body.map_frame(without_digests))));
    }
    if response.status() == StatusCode::NOT_MODIFIED {
        validate_weakly(response.headers_mut(), &validators);
    }
    Ok(response)
}

/// Returns false for a response whose bytes must stay: one with `no-transform` (RFC 9111, 5.2.2.6),
/// and ranges of several parts. The layer itself leaves those with a content coding or a
/// `Content-Range`.
fn may_transform(status: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    status != StatusCode::PARTIAL_CONTENT && !has_no_transform(headers)
}

fn has_no_transform(headers: &HeaderMap) -> bool {
    members(headers, &CACHE_CONTROL).any(|member| member.eq_ignore_ascii_case(b"no-transform"))
}

/// Removes from `Accept-Encoding` a refusal of the identity: for it the layer would change the
/// status to 406, though the instance may have used another coding. Returns the original values, if
/// any changed.
fn allow_identity(headers: &mut HeaderMap) -> Option<Vec<HeaderValue>> {
    let forbids = |member: &[u8]| {
        let mut parts = member.splitn(2, |byte| *byte == b';').map(<[u8]>::trim_ascii);
        let is_identity = parts
            .next()
            .is_some_and(|coding| coding == b"*" || coding.eq_ignore_ascii_case(b"identity"));
        is_identity && parts.next().is_some_and(is_zero)
    };
    if !members(headers, &ACCEPT_ENCODING).any(forbids) {
        return None;
    }
    let accepted = members(headers, &ACCEPT_ENCODING)
        .filter(|member| !forbids(member))
        .collect::<Vec<_>>()
        .join(&b", "[..]);
    let values = headers.get_all(ACCEPT_ENCODING).iter().cloned().collect();
    // Parts of values, joined, are a value.
    match HeaderValue::from_bytes(&accepted) {
        Ok(accepted) => drop(headers.insert(ACCEPT_ENCODING, accepted)),
        Err(_) => drop(headers.remove(ACCEPT_ENCODING)),
    }
    Some(values)
}

/// Returns true for a weight of 0 (RFC 9110, 12.4.2).
fn is_zero(weight: &[u8]) -> bool {
    let digits = weight.strip_prefix(b"q=").or_else(|| weight.strip_prefix(b"Q="));
    digits.is_some_and(|digits| {
        digits.starts_with(b"0") && digits.iter().all(|digit| matches!(digit, b'0' | b'.'))
    })
}

fn restore(headers: &mut HeaderMap, accepted: Option<Vec<HeaderValue>>) {
    let Some(accepted) = accepted else { return };
    headers.remove(ACCEPT_ENCODING);
    for value in accepted {
        headers.append(ACCEPT_ENCODING, value);
    }
}

/// Makes a strong validator weak: the content is the same, the bytes are not (RFC 9110, 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else {
        return;
    };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        headers.insert(ETAG, weak);
    }
}

/// Makes the validator of a 304 weak where the caller's is weak, from a compressed response: a
/// strong one would not select that response (RFC 9111, 4.3.4).
fn validate_weakly(headers: &mut HeaderMap, validators: &[HeaderValue]) {
    let Some(tag) = headers.get(ETAG) else { return };
    let weak = [b"W/", tag.as_bytes()].concat();
    let is_known = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|known| known.trim_ascii() == weak)
    };
    if validators.iter().any(is_known) {
        weaken(headers);
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

fn remove_digests(headers: &mut HeaderMap) {
    for name in &DIGESTS {
        headers.remove(name);
    }
}

fn without_digests<D>(mut frame: http_body::Frame<D>) -> http_body::Frame<D> {
    if let Some(trailers) = frame.trailers_mut() {
        remove_digests(trailers);
    }
    frame
}
