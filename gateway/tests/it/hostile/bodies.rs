//! Bodies over HTTP/1 with broken ends. The instance may see their beginning, never an end.

use crate::hostile::support::case::{Case, Expected};

pub fn cases() -> Vec<Case> {
    let smuggled = "GET /orders/smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let chunks = |name, chunks: &str| {
        let head = "POST /orders/7 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        Case::new(name, format!("{head}{chunks}{smuggled}"), Expected::BodyCut)
    };
    vec![
        chunks("size that is none", "x\r\nhello\r\n0\r\n\r\n"),
        chunks("signed size", "+5\r\nhello\r\n0\r\n\r\n"),
        chunks("negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        chunks("size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        chunks("underscored size", "0_5\r\nhello\r\n0\r\n\r\n"),
        chunks("size in two words", "5 5\r\nhello\r\n0\r\n\r\n"),
        chunks("empty size", "\r\nhello\r\n0\r\n\r\n"),
        chunks("space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        chunks("size that overflows", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        chunks("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        chunks("bare CR after the size", "5\rhello\r\n0\r\n\r\n"),
        chunks("bare LF in an extension", "5;x\nhello\r\n0\r\n\r\n"),
        chunks("bare CR in an extension", "5;x\ry\r\nhello\r\n0\r\n\r\n"),
        chunks("bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
        chunks("no line break after the data", "5\r\nhello0\r\n\r\n"),
        chunks("data that is too long", "5\r\nhello!\r\n0\r\n\r\n"),
        chunks("data that is too short", "6\r\nhello\r\n0\r\n\r\n"),
        chunks("end by bare LFs", "5\r\nhello\r\n0\n\n"),
        chunks("giant extension", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(20 * 1024))),
        chunks("giant trailer", &format!("0\r\nX: {}\r\n\r\n", "y".repeat(80 * 1024))),
        chunks("5,000 trailers", &format!("0\r\n{}\r\n", "X: y\r\n".repeat(5000))),
        chunks("trailer that is none", "0\r\nX y\r\n\r\n"),
    ]
}
