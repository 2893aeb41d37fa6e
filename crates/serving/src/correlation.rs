//! The ids that correlate a request with its log lines and with the requests made for it:
//! `x-request-id`, and the `traceparent` of W3C Trace Context (level 1). Well-formed values from
//! outside are kept, others are replaced.

use std::{
    fmt,
    ops::Range,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use uuid::{Builder, fmt::Hyphenated};

/// The header of a request's id.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest id that is kept; a longer one would fill logs.
const ID_MAX: usize = 128;

const VERSION: Range<usize> = 0..2;
const TRACE_ID: Range<usize> = 3..35;
const PARENT_ID: Range<usize> = 36..52;
const FLAGS: Range<usize> = 53..55;

/// The ids of one request.
#[derive(Clone, Debug)]
pub struct Correlation {
    request_id: HeaderValue,
    trace_id: u128,
}

impl Correlation {
    /// Takes the ids from `headers`, or makes new ones, and writes them back: the request is then
    /// ready to be forwarded, with this program as the parent. `wall_now` is read where a new
    /// request id is made.
    pub fn establish(headers: &mut HeaderMap, wall_now: impl FnOnce() -> SystemTime) -> Self {
        let received = headers.get(&REQUEST_ID).filter(|id| is_id(id)).cloned();
        let request_id = received.unwrap_or_else(|| new_id(wall_now()));
        let mut parents = headers.get_all(&TRACE_PARENT).iter();
        let parent = parents.next().filter(|_| parents.next().is_none());
        let parent = parent.and_then(|value| value.to_str().ok()).filter(|value| is_parent(value));
        let parent = parent.and_then(|parent| {
            let trace_id = u128::from_str_radix(&parent[TRACE_ID], 16).ok()?;
            Some((trace_id, u8::from_str_radix(&parent[FLAGS], 16).ok()?))
        });
        if parent.is_none() {
            headers.remove(&TRACE_STATE);
        }
        // Ids are never zero, which stands for none.
        let (trace_id, flags) = parent.unwrap_or_else(|| (fastrand::u128(1..), 0));
        let span = fastrand::u64(1..);
        if let Ok(value) = format!("00-{trace_id:032x}-{span:016x}-{flags:02x}").try_into() {
            headers.insert(&TRACE_PARENT, value);
        }
        headers.insert(&REQUEST_ID, request_id.clone());
        Self { request_id, trace_id }
    }

    /// The request's id.
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The request's id as text, without control characters and blanks.
    pub fn request_id_text(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// The id of the trace that the request belongs to.
    pub fn trace_id(&self) -> TraceId {
        TraceId(self.trace_id)
    }
}

/// The id that correlates a request's log lines: its `x-request-id`, or else its `traceparent`.
pub fn correlation_id(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text(&REQUEST_ID).or_else(|| text(&TRACE_PARENT))
}

/// The id of a trace; displayed and serialized as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A UUID of version 7: later ids sort behind earlier ones.
fn new_id(now: SystemTime) -> HeaderValue {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or_default();
    // The id is no secret, so the generator need not be a cryptographic one.
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let id = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    let mut text = [0; Hyphenated::LENGTH];
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("digits and hyphens")
}

fn is_id(id: &HeaderValue) -> bool {
    (1..=ID_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// True for a `traceparent` that this version of the format can read; of later versions, the fields
/// that this one has.
fn is_parent(value: &str) -> bool {
    let bytes = value.as_bytes();
    let is_hex = |range: Range<usize>| {
        bytes[range].iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    let is_zero = |range: Range<usize>| bytes[range].iter().all(|byte| *byte == b'0');
    bytes.len() >= FLAGS.end
        && [2, 35, 52].into_iter().all(|at| bytes[at] == b'-')
        && [VERSION, TRACE_ID, PARENT_ID, FLAGS].into_iter().all(is_hex)
        && !is_zero(TRACE_ID)
        && !is_zero(PARENT_ID)
        && match &bytes[VERSION] {
            b"ff" => false,
            b"00" => bytes.len() == FLAGS.end,
            _ => bytes.len() == FLAGS.end || bytes[FLAGS.end] == b'-',
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn establish(headers: &mut HeaderMap) -> Correlation {
        Correlation::establish(headers, || UNIX_EPOCH)
    }

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers<const N: usize>(pairs: [(&'static str, &str); N]) -> HeaderMap {
        let pair = |(name, value): (&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().expect("a header's value"))
        };
        pairs.into_iter().map(pair).collect()
    }

    #[test]
    fn well_formed_ids_are_kept() {
        let mut headers =
            headers([("x-request-id", "r-7"), ("traceparent", PARENT), ("tracestate", "a=b")]);
        let correlation = establish(&mut headers);
        assert_eq!(correlation.request_id_text(), "r-7");
        assert_eq!(correlation.trace_id().to_string(), PARENT[TRACE_ID]);
        let passed_on = headers["traceparent"].to_str().expect("text");
        assert_eq!(passed_on[..36], PARENT[..36]);
        assert_ne!(passed_on[PARENT_ID], PARENT[PARENT_ID], "the gateway is the parent");
        assert_eq!(&passed_on[FLAGS], "01");
        assert!(is_parent(passed_on));
        assert_eq!(headers["tracestate"], "a=b");
    }

    #[test]
    fn missing_ids_are_made() {
        let mut headers = HeaderMap::new();
        let correlation = establish(&mut headers);
        assert_eq!(&headers["x-request-id"], correlation.request_id());
        assert!(is_parent(headers["traceparent"].to_str().expect("text")));
        assert_ne!(establish(&mut HeaderMap::new()).request_id, correlation.request_id);
    }

    #[test]
    fn malformed_ids_are_replaced() {
        let long = "x".repeat(ID_MAX + 1);
        for id in ["", "two words", "tab\there", &long] {
            let mut headers = headers([("x-request-id", id)]);
            assert_ne!(establish(&mut headers).request_id_text(), id);
        }
        for parent in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "",
        ] {
            let mut headers = headers([("traceparent", parent), ("tracestate", "a=b")]);
            let correlation = establish(&mut headers);
            assert_ne!(
                parent.get(TRACE_ID),
                Some(&*correlation.trace_id().to_string()),
                "{parent}"
            );
            assert!(!headers.contains_key("tracestate"), "it belongs to the parent: {parent}");
        }
    }

    #[test]
    fn later_versions_are_read_by_their_known_fields() {
        for parent in [
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes",
            &PARENT.replacen("00", "cc", 1),
        ] {
            let mut headers = headers([("traceparent", parent)]);
            assert_eq!(establish(&mut headers).trace_id().to_string(), PARENT[TRACE_ID]);
        }
    }

    #[test]
    fn two_parents_are_both_replaced() {
        let mut headers = headers([("traceparent", PARENT)]);
        headers.append("traceparent", PARENT.parse().expect("a header's value"));
        assert_ne!(establish(&mut headers).trace_id().to_string(), PARENT[TRACE_ID]);
        assert_eq!(headers.get_all("traceparent").iter().count(), 1);
    }
}
