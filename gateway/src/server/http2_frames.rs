//! Follows the frames of a connection of HTTP/2, to find the stream resets that a response may
//! precede. Pure.
//! Invariant: a response precedes a reset only where the stream has none yet, and where its fields
//! do not depend on the compression state of the connection.

pub(super) const FRAME_HEAD: usize = 9;
pub(super) const RESET_LEN: usize = FRAME_HEAD + 4;
const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const NO_ERROR: [u8; 4] = [0; 4];
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];

/// Appends a frame to `bytes`.
pub(super) fn push_frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    bytes.extend(&length[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

/// Returns the length, type and stream of a frame.
fn frame_of(head: &[u8; FRAME_HEAD]) -> (usize, u8, u32) {
    let [a, b, c, kind, _, streams @ ..] = *head;
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    (length, kind, u32::from_be_bytes(streams) & (u32::MAX >> 1))
}

/// Follows where frames begin in the bytes of one direction of a connection.
#[derive(Clone, Copy, Default)]
struct FrameCursor {
    head: [u8; FRAME_HEAD],
    /// The bytes of a frame's head so far.
    known: usize,
    /// The bytes of its payload still to come.
    missing: usize,
}

impl FrameCursor {
    fn is_between_frames(&self) -> bool {
        self.missing == 0 && self.known == 0
    }

    /// Moves on within a frame. Returns by how many bytes, at least one where there are some, and
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

/// Follows both directions of a connection.
#[derive(Default)]
pub(super) struct Http2Frames {
    pub(super) sent: SentFrames,
    pub(super) received: ReceivedFrames,
}

/// Follows the frames that a connection sends.
#[derive(Clone, Copy, Default)]
pub(super) struct SentFrames {
    cursor: FrameCursor,
    /// The latest stream that got a header; later ones have none. Of earlier ones it is not known.
    responded: u32,
}

impl SentFrames {
    /// Finds the first frame that resets a stream for a malformed request, where the stream has no
    /// header yet and `received` allows a response. Returns its position and stream. Only a frame
    /// that is whole and contiguous is found.
    pub(super) fn reset_in(&self, bytes: &[u8], received: &ReceivedFrames) -> Option<(usize, u32)> {
        let mut frames = *self;
        let mut at = 0;
        while at < bytes.len() {
            if frames.cursor.is_between_frames()
                && let Some(whole) = bytes[at..].first_chunk::<RESET_LEN>()
                && let Some((head, code)) = whole.split_first_chunk::<FRAME_HEAD>()
                && let (4, RST_STREAM, stream) = frame_of(head)
                && stream > frames.responded
                && code == PROTOCOL_ERROR
                && received.may_respond(stream)
            {
                return Some((at, stream));
            }
            at += frames.step(&bytes[at..]);
        }
        None
    }

    /// Notes that these bytes were sent.
    pub(super) fn advance(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]);
        }
    }

    fn step(&mut self, bytes: &[u8]) -> usize {
        let (count, head) = self.cursor.step(bytes);
        if let Some((_, HEADERS, stream)) = head.as_ref().map(frame_of) {
            self.responded = self.responded.max(stream);
        }
        count
    }
}

/// Follows the frames that a connection receives.
#[derive(Default)]
pub(super) struct ReceivedFrames {
    first: FirstSettings,
    cursor: FrameCursor,
    settings: u32,
    /// The latest stream that has a request.
    opened: u32,
    /// The latest stream that got more than the head of a request. A later one is reset for its
    /// head.
    continued: u32,
}

impl ReceivedFrames {
    /// Notes that these bytes were received.
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

    /// Returns true where the head of the request may be the reason for a reset of `stream`, and a
    /// block of fields can be sent that does not change the table of fields: later settings may
    /// have changed its size.
    fn may_respond(&self, stream: u32) -> bool {
        self.first.keep_table() && self.settings <= 1 && stream > self.continued
    }
}

/// The first frame that a connection receives: its settings.
#[derive(Default)]
struct FirstSettings {
    bytes: Vec<u8>,
    /// True where a block of fields may begin without a change of its table (RFC 7541, 4.2).
    keep_table: Option<bool>,
}

/// More bytes than there are settings.
const SETTINGS_MAX: usize = 32 * 6;
const HEADER_TABLE_SIZE: [u8; 2] = [0, 1];
/// The initial size of the table, in bytes.
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

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, kind, 0, stream, payload);
        bytes
    }

    /// Follows a connection that has received its settings, and `frames`.
    fn received(frames: &[Vec<u8>]) -> ReceivedFrames {
        let mut received = ReceivedFrames::default();
        let all = [frame(SETTINGS, 0, &[]), frames.concat()].concat();
        all.chunks(5).for_each(|piece| received.read(piece));
        received
    }

    #[test]
    fn a_stream_that_is_reset_for_its_head_may_get_a_response() {
        let head = |stream| frame(HEADERS, stream, &[0x82; 30]);
        let ack = [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0].to_vec();
        for (frames, may) in [
            (vec![head(7)], true),
            (vec![head(5), frame(DATA, 5, b"hello"), head(7), ack], true),
            (vec![head(7), frame(DATA, 7, b"hello")], false),
            (vec![head(7), head(7)], false),
            (vec![head(7), head(9), frame(DATA, 9, b"hello")], false),
            // These settings could change the table.
            (vec![head(5), frame(SETTINGS, 0, &[0, 1, 0, 0, 4, 0]), head(7)], false),
        ] {
            assert_eq!(received(&frames).may_respond(7), may, "{frames:?}");
        }
    }

    #[test]
    fn the_reset_of_a_malformed_request_is_found_among_frames() {
        let received = received(&[]);
        let (data, response) = (frame(0, 1, &[3; 40]), frame(HEADERS, 3, &[0x88]));
        let reset = frame(RST_STREAM, 5, &PROTOCOL_ERROR);
        let all = [data, response, reset.clone()].concat();
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
    fn other_frames_are_not_resets_of_malformed_requests() {
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
    fn a_caller_that_shrinks_the_table_gets_no_response() {
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
