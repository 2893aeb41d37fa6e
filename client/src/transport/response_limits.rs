//! Limits of a response's head and trailers, and the errors of responses over them. Pure.
//! Invariant: a response over a limit fails its own call only, never the connection.

use http::{HeaderMap, HeaderValue, header::CONTENT_LENGTH};
use tonic::Status;

/// The largest head, or trailers, of a response in bytes: 256 KiB.
pub(crate) const FIELDS_BYTES_MAX: usize = 256 * 1024;
/// The most header fields of a response in HTTP/1.1. HTTP/2 bounds their bytes alone.
pub(crate) const FIELDS_MAX: usize = 256;
/// The limit that h2 enforces and announces. Well over [`FIELDS_BYTES_MAX`], because h2 closes the
/// whole connection on a header block of more than 1.25 times its limit.
pub(crate) const HEADER_LIST_MAX: u32 = 4 * 1024 * 1024;

/// The overhead of each field (RFC 9113, 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// The error of a response that can't be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidResponse {
    #[error("its head has {0} bytes, the limit is {FIELDS_BYTES_MAX}")]
    HeadBytes(usize),
    #[error("its head has more than {FIELDS_BYTES_MAX} bytes, the limit")]
    HeadTooLong,
    #[error("its head has more than {FIELDS_MAX} fields, the limit")]
    TooManyFields,
    #[error("its trailers have {0} bytes, the limit is {FIELDS_BYTES_MAX}")]
    TrailerBytes(usize),
    #[error("its head is not valid HTTP/2, or has more than {HEADER_LIST_MAX} bytes, the limit")]
    Http2,
}

impl InvalidResponse {
    /// Checks the head of a response.
    pub(crate) fn check_head(headers: &HeaderMap) -> Result<(), Self> {
        let bytes = size(headers);
        if bytes > FIELDS_BYTES_MAX { Err(Self::HeadBytes(bytes)) } else { Ok(()) }
    }

    /// Checks the trailers of a response.
    pub(crate) fn check_trailers(trailers: &HeaderMap) -> Result<(), Self> {
        let bytes = size(trailers);
        if bytes > FIELDS_BYTES_MAX { Err(Self::TrailerBytes(bytes)) } else { Ok(()) }
    }

    /// The status of the call.
    pub(crate) fn status(self, address: &impl std::fmt::Display) -> Status {
        let message = format!("the response of {address} can't be passed on: {self}");
        match self {
            Self::Http2 => Status::internal(message),
            _ => Status::resource_exhausted(message),
        }
    }
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}

/// Replaces repeated content lengths by one (RFC 9110, 8.6). Removes them if they differ; after
/// hyper has read the head, only a response without a body can have that.
pub(crate) fn unify_content_length(headers: &mut HeaderMap) {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(first), second) = (values.next(), values.next()) else { return };
    if second.is_none() && !first.as_bytes().contains(&b',') {
        return;
    }
    let members = || {
        let values = headers.get_all(CONTENT_LENGTH).iter();
        values
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
    };
    let one = members().next().filter(|one| members().all(|other| other == *one));
    match one.map(HeaderValue::from_bytes) {
        Some(Ok(one)) => drop(headers.insert(CONTENT_LENGTH, one)),
        _ => drop(headers.remove(CONTENT_LENGTH)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(values: &[&'static str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_LENGTH, HeaderValue::from_static(value));
        }
        unify_content_length(&mut headers);
        let left = headers.get_all(CONTENT_LENGTH).iter();
        left.map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_repeated_length_becomes_one() {
        for values in [&["7"][..], &["7, 7"], &["7", "7"], &["7,7 ,7", "7"]] {
            assert_eq!(lengths(values), ["7"], "{values:?}");
        }
    }

    #[test]
    fn lengths_that_differ_are_removed() {
        for values in [&["7, 8"][..], &["7", "8"], &["7,"], &["7", "7,8"]] {
            assert_eq!(lengths(values), [""; 0], "{values:?}");
        }
        assert_eq!(lengths(&[]), [""; 0]);
    }

    #[test]
    fn a_head_at_the_limit_passes() {
        let mut headers = HeaderMap::new();
        let value = "x".repeat(FIELDS_BYTES_MAX - FIELD_OVERHEAD - "x-a".len());
        headers.insert("x-a", value.parse().unwrap());
        assert_eq!(InvalidResponse::check_head(&headers), Ok(()));
        assert_eq!(InvalidResponse::check_trailers(&headers), Ok(()));
        headers.insert("x-b", HeaderValue::from_static(""));
        let over = FIELDS_BYTES_MAX + FIELD_OVERHEAD + "x-b".len();
        assert_eq!(InvalidResponse::check_head(&headers), Err(InvalidResponse::HeadBytes(over)));
        assert_eq!(
            InvalidResponse::check_trailers(&headers),
            Err(InvalidResponse::TrailerBytes(over))
        );
    }

    #[test]
    fn the_status_names_what_is_too_large_and_the_limit() {
        let status = InvalidResponse::TrailerBytes(300_000).status(&"10.0.0.1:80");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        let expected = "the response of 10.0.0.1:80 can't be passed on: \
                        its trailers have 300000 bytes, the limit is 262144";
        assert_eq!(status.message(), expected);
    }
}
