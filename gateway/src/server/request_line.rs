//! Follows where requests begin in the bytes of a connection of HTTP/1.1, and percent-encodes what clients
//! send in targets as it is, though it has to be encoded: `"`, `<`, `>` and the backtick, for which hyper
//! refuses a request. Pure.
//!
//! Invariant: only bytes of a request line's target are changed. Where a request begins is known from
//! hyper alone: it parsed the head before, and says how long the body is. Where it can't be known, nothing
//! is changed, and hyper refuses such a request as before.

use std::mem;

/// Longer targets are refused anyway.
const TARGET_MAX: usize = crate::guard::TARGET_BYTES_MAX;

/// Where bytes of a target were encoded, each of which takes three in the encoded form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EncodedAt(Vec<usize>);

/// Where in the requests the next byte belongs.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Before a request: empty lines may come.
    Start,
    Method,
    /// The target, in its encoded form so many bytes long.
    Target {
        length: usize,
        is_query: bool,
    },
    /// The rest of a line of the head; `is_empty`: nothing of it came yet but a CR.
    Line {
        is_empty: bool,
    },
    /// Behind the head. So many bytes came that hyper may not have looked at.
    Behind {
        excess: u64,
    },
    /// In a body, of which so many bytes are missing.
    Body {
        missing: u64,
    },
    /// Unknown.
    Lost,
}

/// The body of a request, as hyper has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    Known(u64),
    /// Chunked, or what follows the request is another protocol.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct RequestLines {
    place: Place,
    encoded_at: Vec<usize>,
    /// Whether the body of the last request may not have come to its end.
    is_body_open: bool,
}

impl RequestLines {
    /// Of a connection at the beginning of a request.
    pub(crate) fn new() -> Self {
        Self { place: Place::Start, encoded_at: Vec::new(), is_body_open: false }
    }

    /// Of a connection that is not looked at.
    pub(crate) fn unknown() -> Self {
        Self { place: Place::Lost, encoded_at: Vec::new(), is_body_open: false }
    }

    /// Looks at the bytes that came next. Returns what takes their place, where that is something else.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut changed: Option<Vec<u8>> = None;
        let mut at = 0;
        while at < bytes.len() {
            match self.place {
                Place::Lost => break,
                Place::Behind { excess } => {
                    let more = (bytes.len() - at) as u64;
                    self.place = Place::Behind { excess: excess + more };
                    break;
                }
                Place::Body { missing } => {
                    let here = missing.min((bytes.len() - at) as u64);
                    let count = usize::try_from(here).unwrap_or(bytes.len() - at);
                    self.place = match missing - here {
                        0 => Place::Start,
                        missing => Place::Body { missing },
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

    /// Moves on by a byte of a head. Returns its encoded form, where it needs that.
    fn step(&mut self, byte: u8) -> Option<&'static [u8; 3]> {
        let mut code = None;
        self.place = match (&self.place, byte) {
            (Place::Start, b'\r' | b'\n') => Place::Start,
            (Place::Start, _) => Place::Method,
            (Place::Method, b' ') => Place::Target { length: 0, is_query: false },
            (Place::Line { is_empty: true }, b'\n') => Place::Behind { excess: 0 },
            (_, b'\n') => Place::Line { is_empty: true },
            (Place::Method, _) => Place::Method,
            (Place::Line { is_empty: true }, b'\r') => Place::Line { is_empty: true },
            // The form of a target that goes to instances. A fragment is not part of the URI.
            (Place::Target { length: 0, .. }, byte) if byte != b'/' => {
                Place::Line { is_empty: false }
            }
            (Place::Target { .. }, b' ' | b'\r' | b'#') => Place::Line { is_empty: false },
            (Place::Target { length, .. }, _) if *length >= TARGET_MAX => {
                Place::Line { is_empty: false }
            }
            (Place::Target { length, is_query }, byte) => {
                let (length, is_query) = (*length, *is_query || byte == b'?');
                code = code_of(byte, is_query);
                let count = if code.is_some() { 3 } else { 1 };
                Place::Target { length: length + count, is_query }
            }
            _ => Place::Line { is_empty: false },
        };
        if let (Some(_), Place::Target { length, .. }) = (code, &self.place) {
            self.encoded_at.push(length - 3);
        }
        code
    }

    /// Hyper has parsed a head, and waits for a body of this length. Returns where the request's target was
    /// encoded, if it was.
    pub(crate) fn begin(&mut self, body: BodyLength) -> Option<EncodedAt> {
        let encoded_at = mem::take(&mut self.encoded_at);
        self.place = match (&self.place, body) {
            (Place::Behind { excess }, BodyLength::Known(length)) if *excess <= length => {
                match length - excess {
                    0 => Place::Start,
                    missing => Place::Body { missing },
                }
            }
            // Another request came behind this one, or the body's end is not known.
            _ => Place::Lost,
        };
        self.is_body_open = body == BodyLength::Unknown;
        (!encoded_at.is_empty()).then_some(EncodedAt(encoded_at))
    }

    /// Returns true where more of the last request's body may come: another reader of the connection would
    /// take it for a request.
    pub(crate) fn is_body_open(&self) -> bool {
        self.is_body_open || matches!(self.place, Place::Body { .. })
    }
}

/// The percent-encoded form of a byte that `http::Uri` does not take as it is.
fn code_of(byte: u8, is_query: bool) -> Option<&'static [u8; 3]> {
    match byte {
        b'"' if is_query => Some(b"%22"),
        b'<' => Some(b"%3C"),
        b'>' => Some(b"%3E"),
        b'`' if !is_query => Some(b"%60"),
        _ => None,
    }
}

impl EncodedAt {
    /// The target that an instance gets, with the bytes that were encoded as they came. `target` is its
    /// encoded form, which ends as the request's target does, whose encoded form is `length` bytes long.
    /// `None` where nothing of it was encoded.
    pub(crate) fn decode(&self, target: &str, length: usize) -> Option<String> {
        let mut decoded = String::with_capacity(target.len());
        let mut from = 0;
        for at in &self.0 {
            // Behind what is the same in both: a prefix may have been taken away, or put before it.
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

    /// What comes out of these pieces.
    fn read(lines: &mut RequestLines, pieces: &[&str]) -> String {
        let out = |piece: &&str| match lines.read(piece.as_bytes()) {
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
    fn bytes_of_a_target_are_encoded_and_no_others() {
        for at in 0..RAW.len() {
            let mut lines = RequestLines::new();
            let (one, other) = RAW.split_at(at);
            assert_eq!(read(&mut lines, &[one, other]), ENCODED, "{at}");
            let encoded_at = lines.begin(BodyLength::Known(0)).unwrap();
            let raw = encoded_at.decode(target(ENCODED), target(ENCODED).len());
            assert_eq!(raw.as_deref(), Some(target(RAW)));
        }
    }

    #[test]
    fn what_hyper_takes_is_encoded_and_no_more() {
        for byte in 0x21..0x7f_u8 {
            for is_query in [false, true] {
                let path = if is_query { "/?" } else { "/" };
                let text = format!("{path}{}", char::from(byte));
                let is_taken = text.parse::<http::Uri>().is_ok();
                assert_eq!(code_of(byte, is_query).is_none(), is_taken, "{text}");
            }
        }
    }

    #[test]
    fn each_request_of_a_connection_is_encoded() {
        let mut lines = RequestLines::new();
        let post = "POST /<> HTTP/1.1\r\n\r\n<>";
        for body in ["", "<body>", "GET /<> HTTP/1.1\r\n\r\n"] {
            for split in 0..=body.len() {
                let (one, other) = body.split_at(split);
                let head = format!("{}{one}", &post[..post.len() - 2]);
                let encoded = head.replacen("/<>", "/%3C%3E", 1);
                assert_eq!(read(&mut lines, &[&head]), encoded);
                assert!(lines.begin(BodyLength::Known(body.len() as u64)).is_some());
                assert_eq!(read(&mut lines, &[other]), other, "a body stays");
            }
        }
        // What comes in one piece with the end of a body, too.
        assert_eq!(read(&mut lines, &["P /a HTTP/1.1\n\n<"]), "P /a HTTP/1.1\n\n<");
        lines.begin(BodyLength::Known(3));
        assert_eq!(read(&mut lines, &["<>\r\n", "GET /> H\r\n\r\n"]), "<>\r\nGET /%3E H\r\n\r\n");
    }

    #[test]
    fn where_a_request_begins_is_never_guessed() {
        let next = "GET /<> HTTP/1.1\r\n\r\n";
        let head = "POST /a HTTP/1.1\r\n\r\n";
        // Another one came with it, the body is chunked, or another protocol follows.
        for (first, body) in [
            (format!("{head}{next}"), BodyLength::Known(0)),
            (format!("{head}<b>{next}"), BodyLength::Known(3)),
            (head.to_owned(), BodyLength::Unknown),
            (format!("{head}5\r\n<bod"), BodyLength::Unknown),
        ] {
            let mut lines = RequestLines::new();
            assert_eq!(read(&mut lines, &[&first]), first);
            assert_eq!(lines.begin(body), None);
            assert_eq!(read(&mut lines, &[next]), next);
            assert_eq!(lines.begin(BodyLength::Known(0)), None);
            assert_eq!(read(&mut lines, &[next]), next, "for good");
        }
        // Hyper has not taken the head before.
        let mut lines = RequestLines::new();
        assert_eq!(read(&mut lines, &[head, next]), format!("{head}{next}"));
        let mut lines = RequestLines::unknown();
        assert_eq!(read(&mut lines, &[next]), next);
    }

    #[test]
    fn a_body_is_open_until_all_of_it_came() {
        let mut lines = RequestLines::new();
        assert!(!lines.is_body_open());
        read(&mut lines, &["POST / HTTP/1.1\r\n\r\n"]);
        lines.begin(BodyLength::Known(2));
        assert!(lines.is_body_open());
        read(&mut lines, &["b"]);
        assert!(lines.is_body_open());
        read(&mut lines, &["b", "POST / HTTP/1.1\r\n\r\n"]);
        assert!(!lines.is_body_open());
        lines.begin(BodyLength::Unknown);
        assert!(lines.is_body_open());
        lines.begin(BodyLength::Known(0));
        assert!(!lines.is_body_open());
    }

    #[test]
    fn other_forms_of_targets_stay() {
        for line in ["GET http://a/<> HTTP/1.1\r\n", "GET <> HTTP/1.1\r\n", "GET  /<> HTTP/1.1\r\n"]
        {
            assert_eq!(read(&mut RequestLines::new(), &[line]), line);
        }
        let (fragment, long) =
            ("GET /#<> HTTP/1.1\r\n", format!("GET /{}<", "x".repeat(TARGET_MAX)));
        assert_eq!(read(&mut RequestLines::new(), &[fragment]), fragment);
        assert_eq!(read(&mut RequestLines::new(), &[&long]), long);
    }

    #[test]
    fn a_prefix_that_was_taken_away_or_put_before_does_not_matter() {
        let head = "GET /v1/a<b?q=\" HTTP/1.1\r\n\r\n";
        let mut lines = RequestLines::new();
        let encoded = read(&mut lines, &[head]);
        let length = target(&encoded).len();
        let encoded_at = lines.begin(BodyLength::Known(0)).unwrap();
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
