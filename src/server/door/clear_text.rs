//! The answer to clear text on a port that speaks TLS only, in the protocol that it came in.
//! Invariant: reads no more than the four bytes that name the protocol.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The beginning of HTTP/2's preface, which no method of HTTP/1 has.
const HTTP2: &[u8; 4] = b"PRI ";
/// SETTINGS without a setting, and GOAWAY with INADEQUATE_SECURITY, the last stream 0 and a text.
const GOAWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
    \0\0\x21\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cthis port speaks TLS only";
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain\r\ncontent-length: 26\r\nconnection: close\r\n\r\n\
    this port speaks TLS only\n";

/// Answers a caller whose first byte is given, and closes the connection.
pub(super) async fn refuse<I: AsyncRead + AsyncWrite + Unpin>(mut stream: I, first: u8) {
    let answer = if is_http2(&mut stream, first).await { GOAWAY } else { BAD_REQUEST };
    // An error means that the caller is gone.
    let _sent = stream.write_all(answer).await;
    let _closed = stream.shutdown().await;
}

/// Reads on as long as the bytes are those of HTTP/2.
async fn is_http2<I: AsyncRead + Unpin>(stream: &mut I, first: u8) -> bool {
    let (mut byte, mut expected) = (first, HTTP2.iter());
    loop {
        match expected.next() {
            Some(next) if *next == byte => {}
            Some(_) => return false,
            None => return true,
        }
        if expected.len() == 0 {
            return true;
        }
        match stream.read_u8().await {
            Ok(next) => byte = next,
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_in_the_answers_are_those_of_their_texts() {
        assert_eq!(GOAWAY.len(), 9 + 9 + usize::from(GOAWAY[11]));
        let text = String::from_utf8(BAD_REQUEST.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{text}");
    }
}
