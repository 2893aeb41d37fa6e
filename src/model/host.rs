//! Where something is reached.

use std::net::IpAddr;

use compact_str::CompactString;
use thiserror::Error;

/// Where an instance is reached: an IP address or a DNS name, as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(CompactString);

/// Why a text is no [`Host`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostError {
    /// There is nothing.
    #[error("must not be empty")]
    Empty,
    /// It has more bytes than allowed.
    #[error("has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// How many it has.
        bytes: usize,
        /// How many are allowed.
        bytes_max: usize,
    },
    /// It is an IPv6 address in brackets.
    #[error("must be an IPv6 address without brackets")]
    Bracketed,
    /// It is neither an address nor a name.
    #[error("must be an IP address or a DNS name, without a port")]
    Malformed,
}

impl Host {
    /// Reads a host of at most `bytes_max` bytes. The form of a DNS name is that of RFC 1123 with
    /// `_` allowed besides, and a last label that is not all digits (RFC 3696, section 2).
    pub fn parse(text: &str, bytes_max: usize) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if text.len() > bytes_max {
            return Err(HostError::TooLong { bytes: text.len(), bytes_max });
        }
        if text.starts_with('[') {
            return Err(HostError::Bracketed);
        }
        if text.parse::<IpAddr>().is_err() && !is_dns_name(text) {
            return Err(HostError::Malformed);
        }
        Ok(Self(CompactString::from(text)))
    }

    /// One that was read before.
    pub(super) fn known(text: &str) -> Self {
        Self(CompactString::from(text))
    }

    /// The host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_dns_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && bytes.first() != Some(&b'-')
            && bytes.last() != Some(&b'-')
    };
    let last = text.rsplit('.').next().unwrap_or(text);
    text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_dns_names_are_hosts() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        for text in ["10.0.0.7", "::1", "fe80::1", "localhost", "a-b.example", "x_1.y.", &longest] {
            assert_eq!(Host::parse(text, 253).as_ref().map(Host::as_str), Ok(text));
        }
    }

    #[test]
    fn other_texts_are_no_hosts() {
        assert_eq!(Host::parse("", 253), Err(HostError::Empty));
        assert_eq!(Host::parse("[::1]", 253), Err(HostError::Bracketed));
        let label = "a".repeat(64);
        for text in
            ["256.1.1.1", "1.2.3", "a b", "a..b", "-a", "a-", "http://a", "a:80", ".", &label, "ä"]
        {
            assert_eq!(Host::parse(text, 253), Err(HostError::Malformed), "{text:?}");
        }
        let long = "a.".repeat(127);
        assert!(matches!(Host::parse(&long, 253), Err(HostError::TooLong { bytes: 254, .. })));
    }
}
