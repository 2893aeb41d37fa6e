//! What callers are told where no instance answers: a problem document (RFC 9457), or, where the call is
//! one of gRPC, a status. It must never tell more of the inside than names.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use serde::Serialize;
use tonic::{Code, Status, body::Body};

/// A request that came to nothing.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: Cow<'static, str>,
    service: Option<String>,
    /// Boxed: results that are seldom a problem stay small.
    headers: Box<HeaderMap>,
}

/// The document. `type` is absent, which means that the title says what there is to know.
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

    /// The service that the request was for.
    pub(crate) fn of(mut self, service: &str) -> Self {
        self.service = Some(service.into());
        self
    }

    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    /// Says that it may be tried again after so many seconds.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        self.with(header::RETRY_AFTER, seconds)
    }

    /// Says that no other request is read from the connection that this one came over, where it is of
    /// HTTP/1: what follows a request that was refused, or not read to its end, is none.
    pub(crate) fn last(self, version: Version) -> Self {
        match version {
            Version::HTTP_2 => self,
            _ => self.with(header::CONNECTION, HeaderValue::from_static("close")),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The document, as JSON.
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

    /// As an answer of plain HTTP.
    pub(crate) fn answer(self, request_id: &str) -> Response<Body> {
        let text = self.document(request_id);
        let mut answer = Response::new(Body::new(http_body_util::Full::from(text)));
        *answer.status_mut() = self.status;
        *answer.headers_mut() = *self.headers;
        let kind = HeaderValue::from_static("application/problem+json");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        answer
    }

    /// As an answer to a call of gRPC.
    pub(crate) fn answer_grpc(self, request_id: &str) -> Response<Body> {
        let message = format!("{self} (request {request_id})");
        let mut answer = Status::new(code(self.status), message).into_http();
        answer.headers_mut().extend(*self.headers);
        answer
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.title, self.detail)
    }
}

/// The same in gRPC's words.
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
        let title = "Nobody is up";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, "none of 2 instances takes traffic")
            .of("orders")
            .retry_after(1)
    }

    #[tokio::test]
    async fn a_problem_names_the_service_and_the_request() {
        let answer = problem().answer("r-7");
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers()["retry-after"], "1");
        let text = answer.into_body().collect().await.expect("a whole body").to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(
            document,
            serde_json::json!({
                "title": "Nobody is up",
                "status": 503,
                "detail": "none of 2 instances takes traffic",
                "service": "orders",
                "request_id": "r-7",
            })
        );
    }

    #[test]
    fn a_call_of_grpc_gets_a_status() {
        let answer = problem().answer_grpc("r-7");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "14");
        let message = answer.headers()["grpc-message"].to_str().expect("text");
        assert!(message.contains("r-7"), "{message}");
    }
}
