//! Responses to requests that hyper refuses before the gateway gets them. Over HTTP/1.1 hyper
//! writes a bare head; over HTTP/2 it resets the stream of a malformed request, which a server may
//! answer before (RFC 9113, 8.1.1). Such a response gets a request id here, and over HTTP/1.1 a
//! problem document.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, Version};

use super::http2_frames::{
    END_HEADERS, END_STREAM, FRAME_HEAD, HEADERS, NO_ERROR, RESET_LEN, RST_STREAM, push_frame,
};

/// The gateway's part of the response to a refused request.
pub(crate) struct Rejected {
    pub(crate) request_id: HeaderValue,
    /// A problem document.
    pub(crate) document: Vec<u8>,
}

/// Logs and counts a refused request.
pub(crate) type Reject = Arc<dyn Fn(StatusCode, Version) -> Rejected + Send + Sync>;

/// Bytes that are sent in place of hyper's.
pub(super) struct Substitute {
    pub(super) bytes: Vec<u8>,
    pub(super) written: usize,
    /// The number of bytes of hyper's that they replace.
    pub(super) replaces: usize,
}

impl Substitute {
    /// Replaces the bare head with which hyper refuses a request of HTTP/1.1, where `bytes` are
    /// one.
    pub(super) fn of_head(bytes: &[u8], reject: &Reject) -> Option<Self> {
        let head = str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let line = lines.next().filter(|line| line.starts_with("HTTP/1."))?;
        let status = StatusCode::from_bytes(line.get(9..12)?.as_bytes()).ok()?;
        let is_length = |line: &str| line.eq_ignore_ascii_case("content-length: 0");
        let is_bare = lines.clone().any(is_length) && status.is_client_error();
        if !is_bare {
            return None;
        }
        let Rejected { request_id, document } = reject(status, Version::HTTP_11);
        let kept: String =
            lines.filter(|line| !is_length(line)).map(|line| format!("{line}\r\n")).collect();
        let mut response = format!(
            "{line}\r\n{kept}content-type: application/problem+json\r\nx-request-id: {}\r\n\
             content-length: {}\r\n\r\n",
            request_id.to_str().unwrap_or_default(),
            document.len(),
        )
        .into_bytes();
        response.extend(document);
        Some(Self { bytes: response, written: 0, replaces: bytes.len() })
    }

    /// Replaces the frame that resets a stream of HTTP/2.
    pub(super) fn of_reset(stream: u32, reject: &Reject) -> Self {
        let request_id = reject(StatusCode::BAD_REQUEST, Version::HTTP_2).request_id;
        let id = request_id.as_bytes();
        // `:status: 400` of the static table, and a literal that is never indexed (RFC 7541, 6.1,
        // 6.2.3): hyper's compression state stays valid.
        let mut block = vec![STATUS_400];
        if let (Ok(name), Ok(value)) = (u8::try_from(ID_NAME.len()), u8::try_from(id.len()))
            && value < ONE_BYTE_MAX
        {
            block.push(NEVER_INDEXED);
            block.push(name);
            block.extend(ID_NAME);
            block.push(value);
            block.extend(id);
        }
        let mut bytes = Vec::with_capacity(block.len() + 2 * FRAME_HEAD + 4);
        push_frame(&mut bytes, HEADERS, END_STREAM | END_HEADERS, stream, &block);
        // The response is whole: the rest of the request is not needed (RFC 9113, 8.1).
        push_frame(&mut bytes, RST_STREAM, 0, stream, &NO_ERROR);
        Self { bytes, written: 0, replaces: RESET_LEN }
    }
}

const ID_NAME: &[u8] = b"x-request-id";
const STATUS_400: u8 = 0x80 | 12;
const NEVER_INDEXED: u8 = 0x10;
/// The length of a string that takes one byte is less.
const ONE_BYTE_MAX: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    fn reject() -> Reject {
        Arc::new(|status, _| Rejected {
            request_id: HeaderValue::from_static("r-7"),
            document: status.as_str().as_bytes().to_vec(),
        })
    }

    #[test]
    fn a_bare_head_gets_a_request_id_and_a_document() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                    content-length: 0\r\ndate: today\r\n\r\n";
        let replaced = Substitute::of_head(bare.as_bytes(), &reject()).expect("a refusal");
        let expected = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                        date: today\r\ncontent-type: application/problem+json\r\n\
                        x-request-id: r-7\r\ncontent-length: 3\r\n\r\n431";
        assert_eq!(String::from_utf8(replaced.bytes).unwrap(), expected);
        assert_eq!(replaced.replaces, bare.len());
    }

    #[test]
    fn other_heads_are_not_replaced() {
        for bytes in [
            "",
            "HTTP/1.1 400",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 xyz\r\ncontent-length: 0\r\n\r\n",
            "anything\r\ncontent-length: 0\r\n\r\n",
        ] {
            assert!(Substitute::of_head(bytes.as_bytes(), &reject()).is_none(), "{bytes}");
        }
    }

    #[test]
    fn a_response_precedes_a_reset() {
        let replaced = Substitute::of_reset(7, &reject());
        let block = b"\x8c\x10\x0cx-request-id\x03r-7";
        let mut expected = Vec::new();
        push_frame(&mut expected, HEADERS, END_STREAM | END_HEADERS, 7, block);
        push_frame(&mut expected, RST_STREAM, 0, 7, &NO_ERROR);
        assert_eq!(replaced.bytes, expected);
        assert_eq!(replaced.replaces, RESET_LEN);
    }
}
