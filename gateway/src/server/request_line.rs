//! Follows where requests begin in the bytes of a connection of HTTP/1.1, and percent-encodes in
//! targets what some clients send without: `"`, `<`, `>` and the backtick, for which hyper refuses
//! a request. Pure.
//! Invariant: only bytes of a request line's target change. Where a request begins follows from
//! hyper alone: it parsed the head before, and gives the length of the body. Where that is unknown,
//! nothing changes, and hyper refuses such a request.

use std::mem;

/// The guard refuses longer targets.
const TARGET_MAX: usize = crate::guard::TARGET_BYTES_MAX;

/// The positions in an encoded target of the bytes that were encoded, of three bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EncodedPositions(Vec<usize>);

/// The part of a request that the next byte belongs to.
#[derive(Debug, PartialEq, Eq)]
enum Position {
    /// Before a request: empty lines may come.
    BeforeRequest,
    Method,
    /// The target; `length` is that of its encoded form so far.
    Target {
        length: usize,
        part: TargetPart,
    },
    /// The rest of a line of the head; `is_empty`: at most a CR of it has arrived.
    Line {
        is_empty: bool,
    },
    /// Behind the head, before hyper has parsed it; `excess` bytes have arrived since.
    AfterHead {
        excess: u64,
    },
    /// In a body, of which `missing` bytes are still to come.
    Body {
        missing: u64,
    },
    Unknown,
}

/// The part of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TargetPart {
    Path,
    Query,
}

/// The length of a request's body, from hyper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    Known(u64),
    /// The body is chunked, or another protocol follows the request.
    Unknown,
}

/// The encoder of one connection.
#[derive(Debug)]
pub(crate) struct TargetEncoder {
    position: Position,
    encoded_at: Vec<usize>,
    /// Set while more of the last request's body may arrive.
    is_body_open: bool,
}

impl TargetEncoder {
    /// An encoder for a connection before a request.
    pub(crate) fn new() -> Self {
        Self { position: Position::BeforeRequest, encoded_at: Vec::new(), is_body_open: false }
    }

    /// An encoder that changes nothing.
    pub(crate) fn disabled() -> Self {
        Self { position: Position::Unknown, encoded_at: Vec::new(), is_body_open: false }
    }

    /// Encodes the bytes that arrived next. Returns them, if any changed.
    pub(crate) fn encode(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut changed: Option<Vec<u8>> = None;
        let mut at = 0;
        while at < bytes.len() {
            match self.position {
                Position::Unknown => break,
                Position::AfterHead { excess } => {
                    let more = (bytes.len() - at) as u64;
                    self.position = Position::AfterHead { excess: excess + more };
                    break;
                }
                Position::Body { missing } => {
                    let here = missing.min((bytes.len() - at) as u64);
                    let count = usize::try_from(here).unwrap_or(bytes.len() - at);
                    self.position = match missing - here {
                        0 => Position::BeforeRequest,
                        missing => Position::Body { missing },
                    };
                    if let Some(changed) = &mut changed {
                        changed.extend(&bytes[at..at + count]);
                    }
                    at += count;
                    continue;
                }
                _ => {}
            }
            match self.step(bytes[at]) {
                None => {
                    if let Some(changed) = &mut changed {
                        changed.push(bytes[at]);
                    }
                }
                Some(code) => {
                    let changed = changed.get_or_insert_with(|| bytes[..at].to_vec());
                    changed.extend(code);
                }
            }
            at += 1;
        }
        if let Some(changed) = &mut changed {
            changed.extend(&bytes[at..]);
        }
        changed
    }

    /// Moves on by a byte of a head. Returns its encoded form, where it needs one.
    fn step(&mut self, byte: u8) -> Option<&'static [u8; 3]> {
        let mut code = None;
        self.position = match (&self.position, byte) {
            (Position::BeforeRequest, b'\r' | b'\n') => Position::BeforeRequest,
            (Position::BeforeRequest, _) => Position::Method,
            (Position::Method, b' ') => Position::Target { length: 0, part: TargetPart::Path },
            (Position::Line { is_empty: true }, b'\n') => Position::AfterHead { excess: 0 },
            (_, b'\n') => Position::Line { is_empty: true },
            (Position::Method, _) => Position::Method,
            (Position::Line { is_empty: true }, b'\r') => Position::Line { is_empty: true },
            // Only the origin form of a target goes to instances. A fragment is not part of the
            // URI.
            (Position::Target { length: 0, .. }, byte) if byte != b'/' => {
                Position::Line { is_empty: false }
            }
            (Position::Target { .. }, b' ' | b'\r' | b'#') => Position::Line { is_empty: false },
            (Position::Target { length, .. }, _) if *length >= TARGET_MAX => {
                Position::Line { is_empty: false }
            }
            (Position::Target { length, part }, byte) => {
                let (length, part) =
                    (*length, if byte == b'?' { TargetPart::Query } else { *part });
                code = code_of(byte, part);
                let count = if code.is_some() { 3 } else { 1 };
                Position::Target { length: length + count, part }
            }
            _ => Position::Line { is_empty: false },
        };
        if let (Some(_), Position::Target { length, .. }) = (code, &self.position) {
            self.encoded_at.push(length - 3);
        }
        code
    }

    /// Notes that hyper has parsed a head, which a body of this length follows. Returns the
    /// positions at which the request's target was encoded, if any.
    pub(crate) fn head_parsed(&mut self, body: BodyLength) -> Option<EncodedPositions> {
        let encoded_at = mem::take(&mut self.encoded_at);
        self.position = match (&self.position, body) {
            (Position::AfterHead { excess }, BodyLength::Known(length)) if *excess <= length => {
                match length - excess {
                    0 => Position::BeforeRequest,
                    missing => Position::Body { missing },
                }
            }
            // Another request has arrived behind this one, or the end of the body is unknown.
            _ => Position::Unknown,
        };
        self.is_body_open = body == BodyLength::Unknown;
        (!encoded_at.is_empty()).then_some(EncodedPositions(encoded_at))
    }

    /// Returns true where more of the last request's body may arrive, which another reader of the
    /// connection would take for a request.
    pub(crate) fn is_body_open(&self) -> bool {
        self.is_body_open || matches!(self.position, Position::Body { .. })
    }
}

/// Returns the percent-encoded form of a byte that `http::Uri` refuses.
fn code_of(byte: u8, part: TargetPart) -> Option<&'static [u8; 3]> {
    match byte {
        b'"' if part == TargetPart::Query => Some(b"%22"),
        b'<' => Some(b"%3C"),
        b'>' => Some(b"%3E"),
        b'`' if part == TargetPart::Path => Some(b"%60"),
        _ => None,
    }
}

impl EncodedPositions {
    /// Decodes the target for an instance, where the caller had not encoded it. `target` is its
    /// encoded form, and ends as the request's target does, whose encoded form has `length` bytes.
    /// `None`: nothing in it was encoded.
    pub(crate) fn decode(&self, target: &str, length: usize) -> Option<String> {
        let mut decoded = String::with_capacity(target.len());
        let mut from = 0;
        for at in &self.0 {
            // Counted from the end: the route may have removed or added a prefix.
            let Some(at) = (target.len() + at).checked_sub(length) else { continue };
            let byte = match target.get(at..at + 3) {
                Some("%22") => '"',
                Some("%3C") => '<',
                Some("%3E") => '>',
                Some("%60") => '`',
                _ => continue,
            };
            decoded.push_str(target.get(from..at)?);
            decoded.push(byte);
            from = at + 3;
        }
        (from > 0).then(|| decoded + &target[from..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes the pieces of a stream.
    fn encode(encoder: &mut TargetEncoder, pieces: &[&str]) -> String {
        let out = |piece: &&str| match encoder.encode(piece.as_bytes()) {
            Some(changed) => String::from_utf8(changed).unwrap(),
            None => (*piece).to_owned(),
        };
        pieces.iter().map(out).collect()
    }

    const RAW: &str = "GET /a`<>\"{|}^\\?q=\"<>`{|}^\\&x=%22 HTTP/1.1\r\nX: \"<>`\r\n\r\n";
    const ENCODED: &str =
        "GET /a%60%3C%3E\"{|}^\\?q=%22%3C%3E`{|}^\\&x=%22 HTTP/1.1\r\nX: \"<>`\r\n\r\n";

    fn target(head: &str) -> &str {
        head.split(' ').nth(1).unwrap()
    }

    #[test]
    fn only_bytes_of_a_target_are_encoded() {
        for at in 0..RAW.len() {
            let mut encoder = TargetEncoder::new();
            let (one, other) = RAW.split_at(at);
            assert_eq!(encode(&mut encoder, &[one, other]), ENCODED, "{at}");
            let encoded_at = encoder.head_parsed(BodyLength::Known(0)).unwrap();
            let raw = encoded_at.decode(target(ENCODED), target(ENCODED).len());
            assert_eq!(raw.as_deref(), Some(target(RAW)));
        }
    }

    #[test]
    fn only_bytes_that_hyper_refuses_are_encoded() {
        for byte in 0x21..0x7f_u8 {
            for (part, path) in [(TargetPart::Path, "/"), (TargetPart::Query, "/?")] {
                let text = format!("{path}{}", char::from(byte));
                let is_accepted = text.parse::<http::Uri>().is_ok();
                assert_eq!(code_of(byte, part).is_none(), is_accepted, "{text}");
            }
        }
    }

    #[test]
    fn each_request_of_a_connection_is_encoded() {
        let mut encoder = TargetEncoder::new();
        let post = "POST /<> HTTP/1.1\r\n\r\n<>";
        for body in ["", "<body>", "GET /<> HTTP/1.1\r\n\r\n"] {
            for split in 0..=body.len() {
                let (one, other) = body.split_at(split);
                let head = format!("{}{one}", &post[..post.len() - 2]);
                let encoded = head.replacen("/<>", "/%3C%3E", 1);
                assert_eq!(encode(&mut encoder, &[&head]), encoded);
                assert!(encoder.head_parsed(BodyLength::Known(body.len() as u64)).is_some());
                assert_eq!(encode(&mut encoder, &[other]), other, "a body stays");
            }
        }
        // A request in one piece with the end of a body.
        assert_eq!(encode(&mut encoder, &["P /a HTTP/1.1\n\n<"]), "P /a HTTP/1.1\n\n<");
        encoder.head_parsed(BodyLength::Known(3));
        assert_eq!(
            encode(&mut encoder, &["<>\r\n", "GET /> H\r\n\r\n"]),
            "<>\r\nGET /%3E H\r\n\r\n"
        );
    }

    #[test]
    fn the_begin_of_a_request_is_never_guessed() {
        let next = "GET /<> HTTP/1.1\r\n\r\n";
        let head = "POST /a HTTP/1.1\r\n\r\n";
        // Another request came with it, the body is chunked, or another protocol follows.
        for (first, body) in [
            (format!("{head}{next}"), BodyLength::Known(0)),
            (format!("{head}<b>{next}"), BodyLength::Known(3)),
            (head.to_owned(), BodyLength::Unknown),
            (format!("{head}5\r\n<bod"), BodyLength::Unknown),
        ] {
            let mut encoder = TargetEncoder::new();
            assert_eq!(encode(&mut encoder, &[&first]), first);
            assert_eq!(encoder.head_parsed(body), None);
            assert_eq!(encode(&mut encoder, &[next]), next);
            assert_eq!(encoder.head_parsed(BodyLength::Known(0)), None);
            assert_eq!(encode(&mut encoder, &[next]), next, "for good");
        }
        // Hyper has not parsed the head yet.
        let mut encoder = TargetEncoder::new();
        assert_eq!(encode(&mut encoder, &[head, next]), format!("{head}{next}"));
        let mut encoder = TargetEncoder::disabled();
        assert_eq!(encode(&mut encoder, &[next]), next);
    }

    #[test]
    fn a_body_is_open_until_all_of_it_arrived() {
        let mut encoder = TargetEncoder::new();
        assert!(!encoder.is_body_open());
        encode(&mut encoder, &["POST / HTTP/1.1\r\n\r\n"]);
        encoder.head_parsed(BodyLength::Known(2));
        assert!(encoder.is_body_open());
        encode(&mut encoder, &["b"]);
        assert!(encoder.is_body_open());
        encode(&mut encoder, &["b", "POST / HTTP/1.1\r\n\r\n"]);
        assert!(!encoder.is_body_open());
        encoder.head_parsed(BodyLength::Unknown);
        assert!(encoder.is_body_open());
        encoder.head_parsed(BodyLength::Known(0));
        assert!(!encoder.is_body_open());
    }

    #[test]
    fn other_forms_of_targets_do_not_change() {
        for line in ["GET http://a/<> HTTP/1.1\r\n", "GET <> HTTP/1.1\r\n", "GET  /<> HTTP/1.1\r\n"]
        {
            assert_eq!(encode(&mut TargetEncoder::new(), &[line]), line);
        }
        let (fragment, long) =
            ("GET /#<> HTTP/1.1\r\n", format!("GET /{}<", "x".repeat(TARGET_MAX)));
        assert_eq!(encode(&mut TargetEncoder::new(), &[fragment]), fragment);
        assert_eq!(encode(&mut TargetEncoder::new(), &[&long]), long);
    }

    #[test]
    fn a_removed_or_added_prefix_does_not_matter() {
        let head = "GET /v1/a<b?q=\" HTTP/1.1\r\n\r\n";
        let mut encoder = TargetEncoder::new();
        let encoded = encode(&mut encoder, &[head]);
        let length = target(&encoded).len();
        let encoded_at = encoder.head_parsed(BodyLength::Known(0)).unwrap();
        for (target, expected) in [
            ("/a%3Cb?q=%22", Some("/a<b?q=\"")),
            ("/in/side/of/a%3Cb?q=%22", Some("/in/side/of/a<b?q=\"")),
            ("/?q=%22", Some("/?q=\"")),
            ("/v1/a%3Cb?q=\"\"\"", Some("/v1/a<b?q=\"\"\"")),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(encoded_at.decode(target, length).as_deref(), expected, "{target}");
        }
    }
}
