//! Frames of HTTP/2 (RFC 9113) and literal fields of HPACK (RFC 7541) without checks: a library
//! would refuse to write malformed ones.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use crate::hostile::support::{caller::PATIENCE, case::Outcome};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The stream of all requests.
const STREAM: u32 = 1;

/// Frames are no longer by default.
const PAYLOAD_MAX: usize = 16 * 1024;

/// A header, encoded.
#[derive(Clone, Default)]
pub struct Block(Vec<u8>);

impl Block {
    /// The fields of every request.
    pub fn get(path: &str) -> Self {
        Self::request("GET", path)
    }

    pub fn request(method: &str, path: &str) -> Self {
        Self::default()
            .field(":method", method)
            .field(":scheme", "http")
            .field(":authority", "a")
            .field(":path", path)
    }

    /// Adds a field with this exact spelling.
    pub fn field(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        // Literal, not indexed, with a new name.
        self.0.push(0);
        self.text(name.as_ref());
        self.text(value.as_ref());
        self
    }

    fn text(&mut self, text: &[u8]) {
        // An integer with a prefix of 7 bits (RFC 7541, 5.1).
        let mut len = text.len();
        if let Some(mut rest) = len.checked_sub(127) {
            self.0.push(127);
            while rest >= 128 {
                self.0.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            len = rest;
        }
        self.0.push(len as u8);
        self.0.extend_from_slice(text);
    }
}

/// The preface, and settings that change nothing.
pub fn opening() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, b"").as_slice()].concat()
}

/// A header in as many frames as it needs. Without [`END_HEADERS`] it never ends.
pub fn headers(block: &Block, flags: u8) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut pieces = block.0.chunks(PAYLOAD_MAX).peekable();
    let mut kind = HEADERS;
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() { flags & END_HEADERS } else { 0 };
        let stream = if kind == HEADERS { flags & END_STREAM } else { 0 };
        frames.extend(frame(kind, end | stream, STREAM, piece));
        kind = CONTINUATION;
    }
    frames
}

pub fn data(bytes: &[u8], flags: u8) -> Vec<u8> {
    frame(DATA, flags, STREAM, bytes)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The fate of the stream.
pub async fn outcome(read: &mut (impl AsyncRead + Unpin)) -> Outcome {
    let outcome = timeout(PATIENCE, async {
        loop {
            let Ok((kind, stream, payload)) = read_frame(read).await else { break Outcome::Cut };
            match (kind, stream) {
                (HEADERS, STREAM) => break Outcome::Answered(status(&payload)),
                (RST_STREAM, STREAM) | (GOAWAY, _) => break Outcome::Cut,
                _ => {}
            }
        }
    });
    outcome.await.unwrap_or(Outcome::Open)
}

async fn read_frame(read: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    read.read_exact(&mut head).await?;
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let mut payload = vec![0; len as usize];
    read.read_exact(&mut payload).await?;
    Ok((head[3], stream, payload))
}

/// The first field of the first response on a connection.
fn status(block: &[u8]) -> u16 {
    // Before it the size of the table may change.
    let resized = block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count();
    match block[resized..] {
        // Those that the static table holds.
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        // Other statuses, in digits.
        [0x48, len, ref rest @ ..] if len & 0x80 == 0 => digits(&rest[..usize::from(len)]),
        [0x48, len, ref rest @ ..] => digits(&decode_digits(&rest[..usize::from(len & 0x7f)])),
        _ => panic!("{block:x?} does not begin with a status"),
    }
}

fn digits(digits: &[u8]) -> u16 {
    str::from_utf8(digits).unwrap().parse().unwrap()
}

/// Huffman's code, of which digits take five bits or six (RFC 7541, appendix B).
fn decode_digits(bytes: &[u8]) -> Vec<u8> {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut digits = Vec::new();
    for _ in 0..3 {
        let five = bits.by_ref().take(5).fold(0, |code, bit| code << 1 | bit);
        let digit = if five < 3 { five } else { (five << 1 | bits.next().unwrap()) - 0x19 + 3 };
        digits.push(b'0' + digit);
    }
    digits
}

#[test]
fn statuses_are_read_in_all_their_forms() {
    assert_eq!(status(&[0x8c]), 400);
    assert_eq!(status(&[0x20, 0x88]), 200);
    assert_eq!(status(&[0x48, 3, b'5', b'0', b'1']), 501);
    // 501 and 431, in Huffman's code.
    assert_eq!(status(&[0x48, 0x82, 0x6c, 0x01]), 501);
    assert_eq!(status(&[0x48, 0x83, 0x69, 0x90, 0xff]), 431);
}
