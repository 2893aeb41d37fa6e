//! Frames of HTTP/2 that are wrong, and calls that are given up.

use std::{io, net::SocketAddr};

use fastrand::Rng;
use prost::Message;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use waypost_client::proto::ResolveRequest;

use super::{bytes, exchange, unknown_name};
use crate::http2::framed;

/// The connection preface (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;

/// Returns a frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Sends bytes that are not HTTP, with or without the preface.
pub(super) async fn garbage(address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    let preface = if rng.bool() { PREFACE } else { &[] };
    let length = rng.usize(1..4096);
    exchange(address, &[preface, &bytes(rng, length)].concat()).await
}

/// Sends frames of all kinds, with lengths and flags that may be wrong.
pub(super) async fn frames(address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    let mut sent = PREFACE.to_vec();
    if rng.bool() {
        sent.extend(frame(SETTINGS, 0, 0, &[]));
    }
    for _ in 0..rng.usize(1..40) {
        let length = [0, 1, 4, 8, 9, 100, 16_384][rng.usize(..7)];
        let payload = bytes(rng, length);
        let stream = [0, 1, 2, 3, 0x7fff_ffff][rng.usize(..5)];
        sent.extend(frame(rng.u8(..14), rng.u8(..), stream, &payload));
    }
    exchange(address, &sent).await
}

/// Makes calls and does not wait for their responses.
pub(super) async fn abandoned_calls(address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    if rng.bool() {
        // The connection ends with a reset, in spite of a response on its way.
        stream.set_zero_linger()?;
    }
    let request = ResolveRequest { service: unknown_name(rng), ..ResolveRequest::default() };
    let body = framed(&request.encode_to_vec());
    let head = resolve_head();
    let mut sent = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for number in 0..rng.u32(1..60) {
        let id = 2 * number + 1;
        sent.extend(frame(HEADERS, END_HEADERS, id, &head));
        match rng.u8(..3) {
            0 => sent.extend(frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes())),
            1 => sent.extend(frame(DATA, END_STREAM, id, &body)),
            _ => sent.extend(frame(DATA, 0, id, &body[..3])),
        }
    }
    let end = rng.usize(..=sent.len());
    stream.write_all(&sent[..end]).await
}

/// Returns the header block of a call of `Resolve`.
fn resolve_head() -> Vec<u8> {
    // Indexed fields: `:method: POST` and `:scheme: http`.
    let mut head = vec![0x83, 0x86];
    for (name, value) in
        [(":path", "/waypost.v1.Discovery/Resolve"), ("content-type", "application/grpc")]
    {
        head.push(0); // A literal field without indexing.
        for text in [name, value] {
            head.push(u8::try_from(text.len()).expect("a short text"));
            head.extend(text.bytes());
        }
    }
    head
}
