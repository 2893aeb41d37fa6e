//! The end of a certificate's validity. Pure. Reads no more of the certificate than the way to it
//! (RFC 5280, 4.1): the libraries below verify the end and do not return it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// The version of a certificate, which those of version 1 lack.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Returns the last moment at which the certificate is valid; `None` if it is malformed.
pub(super) fn certificate_end(der: &[u8]) -> Option<SystemTime> {
    let mut certificate = Der(der).value(SEQUENCE)?;
    let mut signed = certificate.value(SEQUENCE)?;
    if signed.0.first() == Some(&VERSION) {
        signed.value(VERSION)?;
    }
    signed.value(INTEGER)?;
    // The algorithm of the signature, and the issuer.
    signed.value(SEQUENCE)?;
    signed.value(SEQUENCE)?;
    let mut validity = signed.value(SEQUENCE)?;
    validity.next()?;
    match validity.next()? {
        (UTC_TIME, text) => {
            let (year, rest) = (digits(text.get(..2)?)?, text.get(2..)?);
            time(if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, text) => time(digits(text.get(..4)?)?, text.get(4..)?),
        _ => None,
    }
}

/// The rest of a sequence of DER values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&short, rest) = rest.split_first()?;
        let (length, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
                (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Takes the next value, which has this tag, and returns what is in it.
    fn value(&mut self, tag: u8) -> Option<Der<'a>> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| Der(content))
    }
}

/// The time of a year and `MMDDhhmmssZ`, the only form in certificates.
fn time(year: u64, rest: &[u8]) -> Option<SystemTime> {
    let (&zone, rest) = rest.split_last()?;
    if zone != b'Z' || rest.len() != 10 || year < 1970 {
        return None;
    }
    let part = |at: usize| digits(&rest[at..at + 2]);
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24;
    if !valid || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 of a year that begins in March (H. Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms").
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        (365 * year + year / 4 - year / 100 + year / 400 + day_of_year).checked_sub(719_468)?;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn digits(text: &[u8]) -> Option<u64> {
    let digit = |digit: &u8| char::from(*digit).to_digit(10).map(u64::from);
    text.iter().try_fold(0, |number, byte| Some(number * 10 + digit(byte)?))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(["a".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1990, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn seconds(der: &[u8]) -> u64 {
        certificate_end(der).unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn the_end_is_read_in_both_forms() {
        // In UTCTime until 2049, in GeneralizedTime from 2050.
        for (year, month, day, expected) in [
            (1999, 12, 31, 946_598_400),
            (2024, 2, 29, 1_709_164_800),
            (2024, 3, 1, 1_709_251_200),
            (2027, 1, 1, 1_798_761_600),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (9999, 12, 31, 253_402_214_400),
        ] {
            assert_eq!(seconds(&certificate(year, month, day)), expected, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn a_malformed_certificate_has_no_end_and_does_no_harm() {
        let whole = certificate(2030, 6, 1);
        let expected = seconds(&whole);
        for end in 0..whole.len() {
            assert_eq!(certificate_end(&whole[..end]), None);
        }
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let mut damaged = whole.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..200.min(damaged.len()));
                damaged[at] = random.u8(..);
            }
            let _ = certificate_end(&damaged);
        }
        for _ in 0..20_000 {
            let noise: Vec<u8> = (0..random.usize(..64)).map(|_| random.u8(..)).collect();
            let _ = certificate_end(&noise);
        }
        assert_eq!(seconds(&whole), expected, "seed {seed}");
    }
}
