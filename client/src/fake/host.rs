//! The rule for the host of an instance, as the registry has it. Pure.
//!
//! Refused are addresses that no caller reaches (unspecified, multicast, broadcast), and the other forms
//! in which `inet_aton` reads an IPv4 address. One label of digits is a name where it can't be meant as
//! such an address.

use std::net::{IpAddr, Ipv4Addr};

const BYTES_MAX: usize = 253;

/// Checks a host; the error says why callers can't use it.
pub(super) fn check(text: &str) -> Result<(), String> {
    let reason = match text.parse() {
        Ok(address) => refuse_address(address),
        Err(_) if (1..=BYTES_MAX).contains(&text.len()) && has_labels(text) => refuse_name(text),
        Err(_) => Some(MALFORMED.to_owned()),
    };
    reason.map_or(Ok(()), Err)
}

const MALFORMED: &str = "must be an IP address or a DNS name, without a port";

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

/// A name without the dot that makes it absolute.
fn relative(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn refuse_address(address: IpAddr) -> Option<String> {
    let address = address.to_canonical();
    let kind = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        "the broadcast address"
    } else {
        return None;
    };
    Some(format!("is {kind}, which callers can't reach: advertise an address of this machine"))
}

fn refuse_name(name: &str) -> Option<String> {
    let name = relative(name);
    let is_digits = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(address) = inet_aton(name) {
        // A single number that nothing but a name is meant by.
        if is_digits(name) && !address.is_unspecified() && address.octets()[0] == 0 {
            return None;
        }
        let other = || format!("is another form of an IPv4 address: write {address}");
        return refuse_address(address.into()).or_else(|| Some(other()));
    }
    let (_, last) = name.rsplit_once('.')?;
    is_digits(last).then(|| MALFORMED.to_owned())
}

/// The address that `inet_aton` reads: one to four numbers, decimal, octal (from 0) or hexadecimal (from
/// 0x), of which the last one fills all bytes that are left.
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
        // As URLs have it, nothing is 0.
        (Some(""), _) | (_, Some("")) => return Some(0),
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) => (digits, 8),
        (None, None) => (text, 10),
    };
    // A sign is no digit.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    u64::from_str_radix(digits, radix).ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_judged_as_the_registry_does() {
        for good in [
            "10.0.0.7",
            "::1",
            "::ffff:10.0.0.7",
            "registry.invalid",
            "7.example",
            "1234",
            "123456789012",
            "0089",
            "0x1g",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, word) in [
            ("", "IP address or a DNS name"),
            ("a b", "IP address or a DNS name"),
            ("[::1]", "IP address or a DNS name"),
            ("256.1.1.1", "IP address or a DNS name"),
            (&"a.".repeat(127), "IP address or a DNS name"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("::ffff:0.0.0.0", "unspecified"),
            ("0", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("0x7f.1", "write 127.0.0.1"),
            ("0177.0.0.1", "write 127.0.0.1"),
            ("127.1", "write 127.0.0.1"),
            ("2130706433", "write 127.0.0.1"),
        ] {
            assert!(check(bad).is_err_and(|why| why.contains(word)), "{bad}: {:?}", check(bad));
        }
    }
}
