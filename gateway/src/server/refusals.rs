//! Answers to requests that hyper refuses before the gateway gets them. In HTTP/1.1 hyper writes a bare head;
//! in HTTP/2 it resets the stream of a malformed request, which a server may answer before (RFC 9113,
//! 8.1.1). Such an answer gets an id here, and over HTTP/1.1 a document; the gateway logs and counts it.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, Version};

/// What the gateway has to say about a request that was refused.
pub(crate) struct Rejected {
    pub(crate) request_id: HeaderValue,
    /// A problem document.
    pub(crate) document: Vec<u8>,
}

/// Logs and counts a request that was refused.
pub(crate) type Reject = Arc<dyn Fn(StatusCode, Version) -> Rejected + Send + Sync>;

/// Bytes on their way in place of others.
pub(super) struct Replacement {
    pub(super) bytes: Vec<u8>,
    pub(super) written: usize,
    /// How many bytes of hyper's they stand for.
    pub(super) stands_for: usize,
}

impl Replacement {
    /// Of the head that hyper answers a request of HTTP/1.1 with by itself, where `bytes` are one.
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
        let mut answer = format!(
            "{line}\r\n{kept}content-type: application/problem+json\r\nx-request-id: {}\r\n\
             content-length: {}\r\n\r\n",
            request_id.to_str().unwrap_or_default(),
            document.len(),
        )
        .into_bytes();
        answer.extend(document);
        Some(Self { bytes: answer, written: 0, stands_for: bytes.len() })
    }

    /// Of the frame that resets a stream of HTTP/2.
    pub(super) fn of_reset(stream: u32, reject: &Reject) -> Self {
        let request_id = reject(StatusCode::BAD_REQUEST, Version::HTTP_2).request_id;
        let id = request_id.as_bytes();
        // `:status: 400` of the static table, and a literal that is never indexed (RFC 7541, 6.1, 6.2.3):
        // the state of the compression, which hyper keeps, is not touched.
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
        // A whole answer was sent: the rest of the request is not needed (RFC 9113, 8.1).
        push_frame(&mut bytes, RST_STREAM, 0, stream, &NO_ERROR);
        Self { bytes, written: 0, stands_for: RESET_LEN }
    }
}

const ID_NAME: &[u8] = b"x-request-id";
const STATUS_400: u8 = 0x80 | 12;
const NEVER_INDEXED: u8 = 0x10;
/// The length of a string that takes one byte is less.
const ONE_BYTE_MAX: u8 = 127;

const FRAME_HEAD: usize = 9;
const RESET_LEN: usize = FRAME_HEAD + 4;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const NO_ERROR: [u8; 4] = [0; 4];
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];

fn push_frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    bytes.extend(&length[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

/// Length, type and stream of a frame.
fn frame_of(head: &[u8; FRAME_HEAD]) -> (usize, u8, u32) {
    let [a, b, c, kind, _, streams @ ..] = *head;
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    (length, kind, u32::from_be_bytes(streams) & (u32::MAX >> 1))
}

/// Follows where frames begin in the bytes of one direction of a connection.
#[derive(Clone, Copy, Default)]
struct Cursor {
    head: [u8; FRAME_HEAD],
    /// How much of a frame's head came by.
    known: usize,
    /// How much of its payload did not.
    missing: usize,
}

impl Cursor {
    fn is_between_frames(&self) -> bool {
        self.missing == 0 && self.known == 0
    }

    /// Moves on within a frame. Returns by how many bytes, which is at least one where there are some, and
    /// the frame's head where it ends there.
    fn step(&mut self, bytes: &[u8]) -> (usize, Option<[u8; FRAME_HEAD]>) {
        if self.missing > 0 {
            let count = self.missing.min(bytes.len());
            self.missing -= count;
            return (count, None);
        }
        let count = (FRAME_HEAD - self.known).min(bytes.len());
        self.head[self.known..self.known + count].copy_from_slice(&bytes[..count]);
        self.known += count;
        if self.known < FRAME_HEAD {
            return (count, None);
        }
        let (length, ..) = frame_of(&self.head);
        (self.known, self.missing) = (0, length);
        (count, Some(self.head))
    }
}

/// Follows the frames that a connection of HTTP/2 sends.
#[derive(Clone, Copy, Default)]
pub(super) struct SentFrames {
    cursor: Cursor,
    /// No later stream has got a header. Where one has, it is not known which ones before have.
    answered: u32,
}

impl SentFrames {
    /// The first frame, and its place, that resets a stream for a malformed request which has got no
    /// header yet, and which `received` lets answer. Only where it is whole, and its bytes are beside each
    /// other.
    pub(super) fn reset_in(&self, bytes: &[u8], received: &ReceivedFrames) -> Option<(usize, u32)> {
        let mut frames = *self;
        let mut at = 0;
        while at < bytes.len() {
            if frames.cursor.is_between_frames()
                && let Some(whole) = bytes[at..].first_chunk::<RESET_LEN>()
                && let Some((head, code)) = whole.split_first_chunk::<FRAME_HEAD>()
                && let (4, RST_STREAM, stream) = frame_of(head)
                && stream > frames.answered
                && code == PROTOCOL_ERROR
                && received.may_answer(stream)
            {
                return Some((at, stream));
            }
            at += frames.step(&bytes[at..]);
        }
        None
    }

    /// These bytes were sent.
    pub(super) fn advance(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]);
        }
    }

    fn step(&mut self, bytes: &[u8]) -> usize {
        let (count, head) = self.cursor.step(bytes);
        if let Some((_, HEADERS, stream)) = head.as_ref().map(frame_of) {
            self.answered = self.answered.max(stream);
        }
        count
    }
}

/// Follows the frames that a connection of HTTP/2 receives.
#[derive(Default)]
pub(super) struct ReceivedFrames {
    first: FirstSettings,
    cursor: Cursor,
    settings: u32,
    /// The latest stream that a request came on.
    opened: u32,
    /// The latest stream that more than the head of a request came on. A later one was reset for its head.
    continued: u32,
}

impl ReceivedFrames {
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.first.read(bytes);
        let mut at = 0;
        while at < bytes.len() {
            let (count, head) = self.cursor.step(&bytes[at..]);
            at += count;
            let Some(head) = head else { continue };
            match frame_of(&head) {
                (_, SETTINGS, _) if head[4] & ACK == 0 => {
                    self.settings = self.settings.saturating_add(1);
                }
                (_, HEADERS, stream) if stream > self.opened => self.opened = stream,
                (_, HEADERS | DATA, stream) => self.continued = self.continued.max(stream),
                _ => {}
            }
        }
    }

    /// Returns true where the head of `stream`'s request may be what it is reset for, and a block of fields
    /// can be sent that does not change the table of fields: later settings may have changed its size.
    fn may_answer(&self, stream: u32) -> bool {
        self.first.keep_table() && self.settings <= 1 && stream > self.continued
    }
}

/// The first frame that a connection of HTTP/2 receives: its settings.
#[derive(Default)]
struct FirstSettings {
    bytes: Vec<u8>,
    /// Whether they let a block of fields begin without a change of its table (RFC 7541, 4.2).
    keep_table: Option<bool>,
}

/// More settings than there are.
const SETTINGS_MAX: usize = 32 * 6;
const HEADER_TABLE_SIZE: [u8; 2] = [0, 1];
/// How large the table is at first, in bytes.
const TABLE_SIZE: u32 = 4096;

impl FirstSettings {
    fn read(&mut self, bytes: &[u8]) {
        if self.keep_table.is_some() {
            return;
        }
        let room = FRAME_HEAD + SETTINGS_MAX - self.bytes.len();
        self.bytes.extend(&bytes[..bytes.len().min(room)]);
        let Some((head, payload)) = self.bytes.split_first_chunk::<FRAME_HEAD>() else { return };
        let (length, kind, _) = frame_of(head);
        if kind != SETTINGS || length > SETTINGS_MAX {
            self.keep_table = Some(false);
        } else if let Some(payload) = payload.get(..length) {
            let shrinks = |setting: &[u8]| {
                let size = setting.last_chunk::<4>().map(|size| u32::from_be_bytes(*size));
                setting.starts_with(&HEADER_TABLE_SIZE)
                    && size.is_some_and(|size| size < TABLE_SIZE)
            };
            self.keep_table = Some(!payload.chunks(6).any(shrinks));
        }
    }

    /// Returns true where a block of fields can be sent that does not change the table.
    fn keep_table(&self) -> bool {
        self.keep_table == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject() -> Reject {
        Arc::new(|status, _| Rejected {
            request_id: HeaderValue::from_static("r-7"),
            document: status.as_str().as_bytes().to_vec(),
        })
    }

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, kind, 0, stream, payload);
        bytes
    }

    /// A connection that has received its settings, and these frames.
    fn received(frames: &[Vec<u8>]) -> ReceivedFrames {
        let mut received = ReceivedFrames::default();
        let all = [frame(SETTINGS, 0, &[]), frames.concat()].concat();
        all.chunks(5).for_each(|piece| received.read(piece));
        received
    }

    #[test]
    fn a_stream_is_answered_that_is_reset_for_the_head_of_its_request() {
        let head = |stream| frame(HEADERS, stream, &[0x82; 30]);
        let ack = [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0].to_vec();
        for (frames, may) in [
            (vec![head(7)], true),
            (vec![head(5), frame(DATA, 5, b"hello"), head(7), ack], true),
            (vec![head(7), frame(DATA, 7, b"hello")], false),
            (vec![head(7), head(7)], false),
            (vec![head(7), head(9), frame(DATA, 9, b"hello")], false),
            // Another table, or not: it is not looked at.
            (vec![head(5), frame(SETTINGS, 0, &[0, 1, 0, 0, 4, 0]), head(7)], false),
        ] {
            assert_eq!(received(&frames).may_answer(7), may, "{frames:?}");
        }
    }

    #[test]
    fn a_bare_refusal_gets_an_id_and_a_document() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                    content-length: 0\r\ndate: today\r\n\r\n";
        let replaced = Replacement::of_head(bare.as_bytes(), &reject()).expect("a refusal");
        let expected = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                        date: today\r\ncontent-type: application/problem+json\r\n\
                        x-request-id: r-7\r\ncontent-length: 3\r\n\r\n431";
        assert_eq!(String::from_utf8(replaced.bytes).unwrap(), expected);
        assert_eq!(replaced.stands_for, bare.len());
    }

    #[test]
    fn what_is_no_bare_refusal_stays() {
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
            assert!(Replacement::of_head(bytes.as_bytes(), &reject()).is_none(), "{bytes}");
        }
    }

    #[test]
    fn the_reset_of_a_malformed_request_is_found_among_frames() {
        let received = received(&[]);
        let (data, answer) = (frame(0, 1, &[3; 40]), frame(HEADERS, 3, &[0x88]));
        let reset = frame(RST_STREAM, 5, &PROTOCOL_ERROR);
        let all = [data, answer, reset.clone()].concat();
        let place = all.len() - RESET_LEN;
        for at in 0..=place {
            let mut frames = SentFrames::default();
            frames.advance(&all[..at]);
            assert_eq!(frames.reset_in(&all[at..], &received), Some((place - at, 5)), "{at}");
            assert_eq!(frames.reset_in(&all[at..all.len() - 1], &received), None);
        }
        let mut frames = SentFrames::default();
        frames.advance(&all[..=place]);
        assert_eq!(frames.reset_in(&all[place + 1..], &received), None, "it is sent already");
        frames.advance(&all[place + 1..]);
        assert_eq!(frames.reset_in(&reset, &received), Some((0, 5)));
    }

    #[test]
    fn other_frames_are_no_resets_of_malformed_requests() {
        let (mut frames, received) = (SentFrames::default(), received(&[]));
        frames.advance(&frame(HEADERS, 5, &[0x88]));
        for (kind, stream, payload) in [
            (RST_STREAM, 5, &PROTOCOL_ERROR[..]),
            (RST_STREAM, 3, &PROTOCOL_ERROR),
            (RST_STREAM, 7, &NO_ERROR),
            (RST_STREAM, 7, &[0, 0, 0, 8]),
            (RST_STREAM, 7, &[0, 0, 0, 1, 0]),
            (7, 7, &PROTOCOL_ERROR),
            (0, 7, &frame(RST_STREAM, 7, &PROTOCOL_ERROR)),
        ] {
            assert_eq!(
                frames.reset_in(&frame(kind, stream, payload), &received),
                None,
                "{kind} {stream}"
            );
        }
    }

    #[test]
    fn a_reset_is_preceded_by_an_answer() {
        let replaced = Replacement::of_reset(7, &reject());
        let block = b"\x8c\x10\x0cx-request-id\x03r-7";
        let mut expected = Vec::new();
        push_frame(&mut expected, HEADERS, END_STREAM | END_HEADERS, 7, block);
        expected.extend(frame(RST_STREAM, 7, &NO_ERROR));
        assert_eq!(replaced.bytes, expected);
        assert_eq!(replaced.stands_for, RESET_LEN);
    }

    #[test]
    fn a_table_that_the_caller_makes_smaller_is_left_alone() {
        let setting = |id: u8, size: u32| [&[0, id][..], &size.to_be_bytes()].concat();
        for (settings, keeps) in [
            (vec![], true),
            (vec![setting(1, 4096)], true),
            (vec![setting(1, 65_536), setting(4, 0)], true),
            (vec![setting(4, 100)], true),
            (vec![setting(1, 4095)], false),
            (vec![setting(3, 5000), setting(1, 0)], false),
            (vec![setting(9, 1); 33], false),
        ] {
            let bytes = frame(SETTINGS, 0, &settings.concat());
            let mut first = FirstSettings::default();
            for piece in bytes.chunks(5) {
                assert!(!first.keep_table());
                first.read(piece);
            }
            first.read(&frame(SETTINGS, 0, &setting(1, 0)));
            assert_eq!(first.keep_table(), keeps, "{settings:?}");
        }
        let mut first = FirstSettings::default();
        first.read(&frame(HEADERS, 1, &[]));
        assert!(!first.keep_table(), "settings come first");
    }
}
