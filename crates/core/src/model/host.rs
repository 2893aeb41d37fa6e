//! The host under which callers reach an instance.
//!
//! Pure.
//!
//! A host is an IP address in its usual form, or a DNS name. Refused are addresses that no caller
//! reaches (unspecified, multicast, broadcast), and the other forms in which `inet_aton` reads an
//! IPv4 address (`0x7f.1`, `0177.0.0.1`, `127.1`, `2130706433`): some resolvers read them as that
//! address, others look them up as names.
//!
//! A single label of digits is a name if it is no such address: it exceeds `u32::MAX`, is no octal
//! number in spite of a leading 0, or is an address in `0.0.0.0/8` other than `0.0.0.0`. Container
//! ids are such names. A name of several labels does not end with a number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use compact_str::CompactString;
use thiserror::Error;

/// An IP address or a DNS name, as the instance declared it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(CompactString);

/// An invalid [`Host`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more bytes than allowed.
    #[error("has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// The bytes that it has.
        bytes: usize,
        /// The bytes that are allowed.
        bytes_max: usize,
    },
    /// An IPv6 address in brackets.
    #[error("must be an IPv6 address without brackets")]
    Bracketed,
    /// An IPv6 address with a zone id.
    #[error("has a zone id, which is valid on one machine alone: advertise an address without one")]
    Zoned,
    /// Neither an address nor a name.
    #[error("must be an IP address or a DNS name, without a port")]
    Malformed,
    /// The address that a server listens on for all addresses of its machine.
    #[error(
        "is the unspecified address, which servers listen on and callers can't reach: advertise an \
         address of this machine"
    )]
    Unspecified,
    /// The address of a group.
    #[error("is a multicast address, which callers can't connect to: advertise a unicast address")]
    Multicast,
    /// The address of all machines of a network.
    #[error(
        "is the broadcast address, which callers can't connect to: advertise a unicast address"
    )]
    Broadcast,
    /// One or several numbers that some resolvers read as an IPv4 address.
    #[error("is another form of an IPv4 address, which not all callers read alike: write {0}")]
    OtherForm(Ipv4Addr),
}

impl Host {
    /// Parses a host of at most `bytes_max` bytes that callers can reach. A DNS name has the form
    /// of RFC 1123, and `_` is allowed. Of several labels, the last is not all digits (RFC 3696,
    /// section 2).
    pub fn parse(text: &str, bytes_max: usize) -> Result<Self, HostError> {
        if text.len() > bytes_max {
            return Err(HostError::TooLong { bytes: text.len(), bytes_max });
        }
        match read(text)? {
            Some(address) => check_address(address)?,
            None => check_name(text)?,
        }
        Ok(Self(CompactString::from(text)))
    }

    /// Parses a host that was stored by an earlier version, which may have accepted more.
    pub fn stored(text: &str) -> Result<Self, HostError> {
        read(text).map(|_| Self(CompactString::from(text)))
    }

    /// Makes one of a text that was checked before.
    pub(super) fn from_valid(text: &str) -> Self {
        Self(CompactString::from(text))
    }

    /// Returns the host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Parses an address; `None` if the text has the form of a name.
fn read(text: &str) -> Result<Option<IpAddr>, HostError> {
    if text.is_empty() {
        return Err(HostError::Empty);
    }
    if text.starts_with('[') {
        return Err(HostError::Bracketed);
    }
    let address = text.parse().ok();
    if address.is_some() || has_labels(text) {
        return Ok(address);
    }
    match text.split_once('%') {
        Some((address, _)) if address.parse::<Ipv6Addr>().is_ok() => Err(HostError::Zoned),
        _ => Err(HostError::Malformed),
    }
}

/// Returns whether the text has the labels of a DNS name.
fn has_labels(text: &str) -> bool {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && bytes.first() != Some(&b'-')
            && bytes.last() != Some(&b'-')
    };
    relative(text).split('.').all(is_label)
}

/// Returns the name without the dot that makes it absolute.
fn relative(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn check_address(address: IpAddr) -> Result<(), HostError> {
    // A mapped IPv4 address is reached over IPv4.
    let address = address.to_canonical();
    if address.is_unspecified() {
        Err(HostError::Unspecified)
    } else if address.is_multicast() {
        Err(HostError::Multicast)
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Err(HostError::Broadcast)
    } else {
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), HostError> {
    let name = relative(name);
    let is_digits = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(address) = inet_aton(name) {
        // A single number in 0.0.0.0/8 is a name.
        if is_digits(name) && !address.is_unspecified() && address.octets()[0] == 0 {
            return Ok(());
        }
        check_address(address.into())?;
        return Err(HostError::OtherForm(address));
    }
    match name.rsplit_once('.') {
        Some((_, last)) if is_digits(last) => Err(HostError::Malformed),
        _ => Ok(()),
    }
}

/// Parses an address as `inet_aton` does: one to four numbers, which are decimal, octal (0) or
/// hexadecimal (0x). The last one fills the remaining bytes.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text.split('.').take(5).map(number).collect::<Option<_>>()?;
    let (last, bytes) = parts.split_last()?;
    let bits_left = 32 - 8 * u32::try_from(bytes.len()).ok().filter(|count| *count < 4)?;
    if bytes.iter().any(|byte| *byte > 0xff) || *last >= 1 << bits_left {
        return None;
    }
    let high = bytes.iter().zip([24, 16, 8]).map(|(byte, shift)| byte << shift).sum::<u64>();
    u32::try_from(high | last).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match (hexadecimal, text.strip_prefix('0')) {
        // As in URLs, no digits are 0.
        (Some(""), _) | (_, Some("")) => return Some(0),
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) => (digits, 8),
        (None, None) => (text, 10),
    };
    // from_str_radix accepts a sign.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    u64::from_str_radix(digits, radix).ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Option<HostError> {
        Host::parse(text, 253).err()
    }

    #[test]
    fn addresses_and_dns_names_are_hosts() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        for text in [
            "10.0.0.7",
            "127.0.0.1",
            "255.255.255.254",
            "223.255.255.255",
            "::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "localhost",
            "a-b.example",
            "x_1.y.",
            "7.example",
            "0x7f.example",
            "0x1g",
            "a.0x7f",
            &longest,
        ] {
            assert_eq!(Host::parse(text, 253).as_ref().map(Host::as_str), Ok(text));
        }
    }

    #[test]
    fn labels_of_digits_that_are_no_addresses_are_names() {
        for text in [
            "1234",
            "8080",
            "16777215",
            "4294967296",
            "123456789012",
            "99999999999999999999999999",
            "0089",
            "012345678901",
            "0042",
            "1234.",
            "42-7",
            "1234.example",
        ] {
            assert_eq!(error(text), None, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_hosts() {
        assert_eq!(error(""), Some(HostError::Empty));
        assert_eq!(error("[::1]"), Some(HostError::Bracketed));
        assert_eq!(error("fe80::1%eth0"), Some(HostError::Zoned));
        let label = "a".repeat(64);
        for text in [
            "256.1.1.1",
            "1.2.3.4.5",
            "0.0.0.0.0",
            "1.2.3.256",
            "1.2.65536",
            "08.1.1.1",
            "10.0.0.1.example.7",
            "a b",
            "a..b",
            "-a",
            "a-",
            "+1",
            "http://a",
            "a:80",
            ".",
            "ä",
            "a%b",
            &label,
        ] {
            assert_eq!(error(text), Some(HostError::Malformed), "{text:?}");
        }
        let long = "a.".repeat(127);
        assert!(matches!(Host::parse(&long, 253), Err(HostError::TooLong { bytes: 254, .. })));
    }

    #[test]
    fn addresses_that_no_caller_reaches_are_refused() {
        for text in ["0.0.0.0", "::", "0:0::0", "::ffff:0.0.0.0", "::ffff:0:0", "0", "00", "0x0"] {
            assert_eq!(error(text), Some(HostError::Unspecified), "{text}");
        }
        for text in ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::7", "::ffff:224.0.0.1"] {
            assert_eq!(error(text), Some(HostError::Multicast), "{text}");
        }
        for text in ["255.255.255.255", "::ffff:255.255.255.255", "0xffffffff", "4294967295"] {
            assert_eq!(error(text), Some(HostError::Broadcast), "{text}");
        }
    }

    #[test]
    fn other_forms_of_an_address_are_refused_with_the_usual_one() {
        for (text, address) in [
            ("0x7f.1", "127.0.0.1"),
            ("0X7F000001", "127.0.0.1"),
            ("0177.0.0.1", "127.0.0.1"),
            ("017700000001", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("127.0.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("2130706433.", "127.0.0.1"),
            ("16777216", "1.0.0.0"),
            ("010.0.0.1", "8.0.0.1"),
            ("10.0.0.01", "10.0.0.1"),
            ("10.0.0x0.1", "10.0.0.1"),
            ("10.0.65535", "10.0.255.255"),
            ("10.0.0.1.", "10.0.0.1"),
            ("0x4d2", "0.0.4.210"),
            ("0.1234", "0.0.4.210"),
        ] {
            let refused = error(text);
            assert_eq!(refused, Some(HostError::OtherForm(address.parse().unwrap())), "{text}");
            assert!(refused.unwrap().to_string().ends_with(&format!("write {address}")));
        }
    }

    #[test]
    fn stored_hosts_are_read_again() {
        for text in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1", "a.7b", "0x7f.a1"]
        {
            assert_eq!(Host::stored(text).as_ref().map(Host::as_str), Ok(text));
        }
        assert_eq!(Host::stored("a b"), Err(HostError::Malformed));
    }
}
