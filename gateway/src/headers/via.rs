//! The trail of gateways a request has passed (`Via`, RFC 9110, 7.6.3), and the end of one that goes in
//! circles. Pure; it must never believe the trail in anything else: a caller can make one up.

use http::{HeaderMap, HeaderValue, StatusCode, Version, header::VIA};
use thiserror::Error;

use crate::guard::{Refused, members};

/// How often a request may come by. Once is no loop yet: a service may hand on what it was sent.
const PASSES_MAX: usize = 1;

/// The name under which a gateway stands in `Via`: its own alone, the same for as long as it runs.
///
/// ```
/// use http::{HeaderMap, Version};
/// use waypost_gateway::headers::via::Pseudonym;
///
/// let name = Pseudonym::new("waypost-7f3a")?;
/// let mut headers = HeaderMap::new();
/// assert!(name.append(&mut headers, Version::HTTP_11).is_ok());
/// assert_eq!(headers["via"], "1.1 waypost-7f3a");
/// # Ok::<(), waypost_gateway::headers::via::NoPseudonym>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pseudonym {
    name: String,
    /// One for each version that requests come in.
    old: HeaderValue,
    usual: HeaderValue,
    multiplexed: HeaderValue,
}

/// A name that cannot stand in `Via`.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a pseudonym is made of letters, digits, '-', '.' and '_', and not of more than 128")]
pub struct NoPseudonym;

impl Pseudonym {
    /// The longest name.
    pub const LEN_MAX: usize = 128;

    /// # Errors
    /// [`NoPseudonym`] for a name that is empty, too long, or could be read as more than a name.
    pub fn new(name: &str) -> Result<Self, NoPseudonym> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !(1..=Self::LEN_MAX).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(NoPseudonym);
        }
        let line =
            |version| HeaderValue::try_from(format!("{version} {name}")).map_err(|_| NoPseudonym);
        Ok(Self {
            old: line("1.0")?,
            usual: line("1.1")?,
            multiplexed: line("2.0")?,
            name: name.to_owned(),
        })
    }

    /// Adds itself to the trail of a request that came in over `version`.
    ///
    /// # Errors
    /// 508 for a request that came by here more than once already; its trail stays as it was.
    pub fn append(&self, headers: &mut HeaderMap, version: Version) -> Result<(), Refused> {
        let passes = members(headers, &VIA).filter(|hop| self.is_in(hop)).count();
        if passes > PASSES_MAX {
            return Err(Refused::new(StatusCode::LOOP_DETECTED, "the request goes in circles"));
        }
        let line = match version {
            Version::HTTP_10 => &self.old,
            Version::HTTP_2 => &self.multiplexed,
            _ => &self.usual,
        };
        headers.append(VIA, line.clone());
        Ok(())
    }

    /// Whether a member of the trail, `protocol received-by [comment]`, was received by this gateway.
    fn is_in(&self, hop: &[u8]) -> bool {
        let mut words = hop.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(self.name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(trail: &[&'static str]) -> Result<Vec<String>, u16> {
        let mut headers = HeaderMap::new();
        for line in trail {
            headers.append(VIA, HeaderValue::from_static(line));
        }
        let name = Pseudonym::new("waypost-1").unwrap();
        name.append(&mut headers, Version::HTTP_11).map_err(|refused| refused.status.as_u16())?;
        let lines = headers.get_all(VIA).iter().map(|line| line.to_str().unwrap().to_owned());
        Ok(lines.collect())
    }

    #[test]
    fn a_request_gets_a_line() {
        assert_eq!(pass(&[]).unwrap(), ["1.1 waypost-1"]);
        assert_eq!(pass(&["1.0 fred, 1.1 p"]).unwrap(), ["1.0 fred, 1.1 p", "1.1 waypost-1"]);
    }

    #[test]
    fn a_line_tells_the_version() {
        let name = Pseudonym::new("a").unwrap();
        for (version, line) in
            [(Version::HTTP_10, "1.0 a"), (Version::HTTP_11, "1.1 a"), (Version::HTTP_2, "2.0 a")]
        {
            let mut headers = HeaderMap::new();
            name.append(&mut headers, version).unwrap();
            assert_eq!(headers[VIA], line);
        }
    }

    #[test]
    fn a_request_may_come_by_twice_but_not_in_circles() {
        assert!(pass(&["1.1 waypost-1"]).is_ok());
        assert_eq!(pass(&["1.1 waypost-1", "1.1 waypost-1"]), Err(508));
        assert_eq!(pass(&["1.1 WAYPOST-1 (x), 1.1 other,HTTP/2.0\twaypost-1"]), Err(508));
    }

    #[test]
    fn a_loop_ends_by_itself() {
        let name = Pseudonym::new("a").unwrap();
        let mut headers = HeaderMap::new();
        let rounds = (0..10).take_while(|_| name.append(&mut headers, Version::HTTP_11).is_ok());
        assert_eq!(rounds.count(), PASSES_MAX + 1);
    }

    #[test]
    fn other_names_are_no_loop() {
        let trail =
            ["1.1 waypost-10, 1.1 waypost-10", "1.1 other (waypost-1)", "waypost-1", "", ","];
        assert!(pass(&trail).is_ok());
    }

    #[test]
    fn a_pseudonym_is_one_plain_word() {
        for name in ["a", "waypost-7f3a", "gw.example_1"] {
            assert!(Pseudonym::new(name).is_ok(), "{name}");
        }
        for name in ["", "a b", "a,b", "a(b)", "a\r\nx: 1", "ü", &"a".repeat(129)] {
            assert_eq!(Pseudonym::new(name).err(), Some(NoPseudonym), "{name}");
        }
    }
}
