//! `Via` (RFC 9110, 7.6.3): records that a request passed this gateway, and detects loops. Pure.
//! Never used for anything but loops: callers can forge the field.

use http::{HeaderMap, HeaderValue, StatusCode, Version, header::VIA};
use thiserror::Error;

use crate::guard::{Refused, members};

/// The times that a request may have passed before. Once is no loop: a service may forward a
/// request.
const PASSES_MAX: usize = 1;

/// The name of a gateway in `Via`: unique, and the same while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Pseudonym {
    name: String,
    /// The values for each version of requests.
    http_10: HeaderValue,
    http_11: HeaderValue,
    http_2: HeaderValue,
}

/// A name is not valid in `Via`.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("must be 1 to 128 letters, digits, '-', '.' and '_'")]
pub struct InvalidPseudonym;

impl Pseudonym {
    /// The length of the longest name.
    pub(crate) const LEN_MAX: usize = 128;

    /// # Errors
    /// [`InvalidPseudonym`] for a name that is empty, too long, or has other characters.
    pub(crate) fn new(name: &str) -> Result<Self, InvalidPseudonym> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !(1..=Self::LEN_MAX).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(InvalidPseudonym);
        }
        let line = |version| {
            HeaderValue::try_from(format!("{version} {name}")).map_err(|_| InvalidPseudonym)
        };
        Ok(Self {
            http_10: line("1.0")?,
            http_11: line("1.1")?,
            http_2: line("2.0")?,
            name: name.to_owned(),
        })
    }

    /// Appends the name to `Via` of a request that came over `version`.
    ///
    /// # Errors
    /// 508 for a request that has passed more than once; its `Via` stays.
    pub(crate) fn append(&self, headers: &mut HeaderMap, version: Version) -> Result<(), Refused> {
        let passes = members(headers, &VIA).filter(|hop| self.is_in(hop)).count();
        if passes > PASSES_MAX {
            return Err(Refused::new(
                StatusCode::LOOP_DETECTED,
                "the request has passed this gateway before: there is a loop",
            ));
        }
        let line = match version {
            Version::HTTP_10 => &self.http_10,
            Version::HTTP_2 => &self.http_2,
            _ => &self.http_11,
        };
        headers.append(VIA, line.clone());
        Ok(())
    }

    /// Returns true for a member, `protocol received-by [comment]`, of this gateway.
    fn is_in(&self, hop: &[u8]) -> bool {
        let mut words = hop.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(self.name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(via: &[&'static str]) -> Result<Vec<String>, u16> {
        let mut headers = HeaderMap::new();
        for line in via {
            headers.append(VIA, HeaderValue::from_static(line));
        }
        let name = Pseudonym::new("waypost-1").unwrap();
        name.append(&mut headers, Version::HTTP_11).map_err(|refused| refused.status.as_u16())?;
        let lines = headers.get_all(VIA).iter().map(|line| line.to_str().unwrap().to_owned());
        Ok(lines.collect())
    }

    #[test]
    fn a_request_gets_a_member() {
        assert_eq!(append(&[]).unwrap(), ["1.1 waypost-1"]);
        assert_eq!(append(&["1.0 fred, 1.1 p"]).unwrap(), ["1.0 fred, 1.1 p", "1.1 waypost-1"]);
    }

    #[test]
    fn a_member_has_the_version() {
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
    fn a_request_may_pass_twice_but_not_in_a_loop() {
        assert!(append(&["1.1 waypost-1"]).is_ok());
        assert_eq!(append(&["1.1 waypost-1", "1.1 waypost-1"]), Err(508));
        assert_eq!(append(&["1.1 WAYPOST-1 (x), 1.1 other,HTTP/2.0\twaypost-1"]), Err(508));
    }

    #[test]
    fn a_loop_ends() {
        let name = Pseudonym::new("a").unwrap();
        let mut headers = HeaderMap::new();
        let rounds = (0..10).take_while(|_| name.append(&mut headers, Version::HTTP_11).is_ok());
        assert_eq!(rounds.count(), PASSES_MAX + 1);
    }

    #[test]
    fn other_names_are_not_a_loop() {
        let via = ["1.1 waypost-10, 1.1 waypost-10", "1.1 other (waypost-1)", "waypost-1", "", ","];
        assert!(append(&via).is_ok());
    }

    #[test]
    fn a_pseudonym_is_one_plain_word() {
        for name in ["a", "waypost-7f3a", "gw.example_1"] {
            assert!(Pseudonym::new(name).is_ok(), "{name}");
        }
        for name in ["", "a b", "a,b", "a(b)", "a\r\nx: 1", "ü", &"a".repeat(129)] {
            assert_eq!(Pseudonym::new(name).err(), Some(InvalidPseudonym), "{name}");
        }
    }
}
