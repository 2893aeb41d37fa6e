//! The gateway's own error responses: a problem document (RFC 9457), or a status for a gRPC call.
//! Invariant: a response contains nothing of the platform but names.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use serde::Serialize;
use tonic::{Code, Status, body::Body};

/// The reason why a request gets no response of an instance.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: Cow<'static, str>,
    service: Option<String>,
    /// Boxed: results stay small.
    headers: Box<HeaderMap>,
}

/// The document. `type` is absent: the title has all of the meaning (RFC 9457, 4.2.1).
#[derive(Serialize)]
struct Document<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    request_id: &'a str,
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let headers = Box::default();
        Self { status, title, detail: detail.into(), service: None, headers }
    }

    /// Names the service that the request was for.
    pub(crate) fn for_service(mut self, service: &str) -> Self {
        self.service = Some(service.into());
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    /// Adds `Retry-After`.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, seconds)
    }

    /// Adds `Connection: close`, unless the request came over HTTP/2: what follows a request that
    /// was refused, or not read to its end, is no request.
    pub(crate) fn closing(self, version: Version) -> Self {
        match version {
            Version::HTTP_2 => self,
            _ => self.with_header(header::CONNECTION, HeaderValue::from_static("close")),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the document, as JSON.
    pub(crate) fn document(&self, request_id: &str) -> Vec<u8> {
        let document = Document {
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            service: self.service.as_deref(),
            request_id,
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// Converts it to a response to a plain HTTP request.
    pub(crate) fn into_response(self, request_id: &str) -> Response<Body> {
        let text = self.document(request_id);
        let mut response = Response::new(Body::new(http_body_util::Full::from(text)));
        *response.status_mut() = self.status;
        *response.headers_mut() = *self.headers;
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    /// Converts it to a response to a gRPC call.
    pub(crate) fn into_grpc_response(self, request_id: &str) -> Response<Body> {
        let message = format!("{self} (request {request_id})");
        let mut response = Status::new(code(self.status), message).into_http();
        response.headers_mut().extend(*self.headers);
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.title, self.detail)
    }
}

/// Maps an HTTP status to gRPC's.
fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn problem() -> Problem {
        let title = "No instance";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, "none of 2 instances takes traffic")
            .for_service("orders")
            .retry_after(1)
    }

    #[tokio::test]
    async fn a_problem_document_names_the_service_and_the_request() {
        let response = problem().into_response("r-7");
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "1");
        let text = response.into_body().collect().await.expect("a whole body").to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(
            document,
            serde_json::json!({
                "title": "No instance",
                "status": 503,
                "detail": "none of 2 instances takes traffic",
                "service": "orders",
                "request_id": "r-7",
            })
        );
    }

    #[test]
    fn a_grpc_call_gets_a_status() {
        let response = problem().into_grpc_response("r-7");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        let message = response.headers()["grpc-message"].to_str().expect("text");
        assert!(message.contains("r-7"), "{message}");
    }
}
