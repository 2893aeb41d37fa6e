//! The two structures of public keys in DER: SubjectPublicKeyInfo (RFC 5280, section 4.1) and
//! RSAPublicKey (RFC 8017, appendix A.1.1). Own code, since a reader of ASN.1 would be three crates
//! for these three fields. Pure.
//!
//! Invariant: reads lengths in their one canonical form, and no bytes are left over.

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// A public key, and the identifier of its algorithm with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubjectPublicKey<'a> {
    pub(super) algorithm: &'a [u8],
    pub(super) key: &'a [u8],
}

/// The big-endian numbers of an RSA key, as they are encoded: with a zero in front of a high bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RsaNumbers<'a> {
    pub(super) modulus: &'a [u8],
    pub(super) exponent: &'a [u8],
}

pub(super) fn subject_public_key(mut der: &[u8]) -> Option<SubjectPublicKey<'_>> {
    let mut fields = last(&mut der, SEQUENCE)?;
    let algorithm = element(&mut fields, SEQUENCE)?;
    // The first byte counts the unused bits of the last one.
    let (0, key) = last(&mut fields, BIT_STRING)?.split_first()? else { return None };
    Some(SubjectPublicKey { algorithm, key })
}

pub(super) fn rsa_numbers(mut der: &[u8]) -> Option<RsaNumbers<'_>> {
    let mut fields = last(&mut der, SEQUENCE)?;
    let modulus = element(&mut fields, INTEGER)?;
    let exponent = last(&mut fields, INTEGER)?;
    let is_positive = |number: &[u8]| number.first().is_some_and(|first| *first < 0x80);
    (is_positive(modulus) && is_positive(exponent)).then_some(RsaNumbers { modulus, exponent })
}

/// Returns the value of an element that nothing follows.
fn last<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(input, tag).filter(|_| input.is_empty())
}

/// Takes an element from the start of the input, and returns its value.
fn element<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&[found, first], rest) = input.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&[length], rest) = rest.split_first_chunk()?;
            (usize::from(length.checked_sub(0x80)?) + 0x80, rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length).checked_sub(0x100)?) + 0x100, rest)
        }
        // More than 64 KiB, which no key has, or a length that is not known yet.
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(tag: u8, value: &[u8]) -> Vec<u8> {
        let length = value.len();
        let mut out = vec![tag];
        match length {
            0..0x80 => out.push(length as u8),
            0x80..0x100 => out.extend([0x81, length as u8]),
            _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        out.extend(value);
        out
    }

    fn info(algorithm: &[u8], bits: &[u8]) -> Vec<u8> {
        let fields = [encoded(SEQUENCE, algorithm), encoded(BIT_STRING, bits)].concat();
        encoded(SEQUENCE, &fields)
    }

    #[test]
    fn elements_of_all_lengths_are_read() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1234] {
            let key = vec![7; length];
            let der = info(b"id", &[&[0], key.as_slice()].concat());
            let read = subject_public_key(&der).expect("it is one");
            assert_eq!(read, SubjectPublicKey { algorithm: b"id", key: &key });
        }
        let numbers = [encoded(INTEGER, &[0, 0x81]), encoded(INTEGER, &[3])].concat();
        let der = encoded(SEQUENCE, &numbers);
        let expected = RsaNumbers { modulus: &[0, 0x81], exponent: &[3] };
        assert_eq!(rsa_numbers(&der), Some(expected));
    }

    #[test]
    fn every_other_encoding_is_rejected() {
        let good = info(b"id", &[0, 7]);
        for end in 0..good.len() {
            assert_eq!(subject_public_key(&good[..end]), None, "cut at {end}");
        }
        let fields = [encoded(SEQUENCE, b"id"), encoded(BIT_STRING, &[0, 7])].concat();
        let short = |length: &[u8]| [&[SEQUENCE], length, fields.as_slice()].concat();
        for der in [
            [good.as_slice(), &[0]].concat(),
            short(&[0x81, fields.len() as u8]),
            short(&[0x82, 0, fields.len() as u8]),
            short(&[0x80]),
            short(&[0x84, 0xff, 0xff, 0xff, 0xff]),
            short(&[0xff]),
            encoded(SEQUENCE, &[fields.as_slice(), &[5, 0]].concat()),
            info(b"id", &[1, 7]),
            info(b"id", &[]),
            encoded(BIT_STRING, &fields),
        ] {
            assert_eq!(subject_public_key(&der), None, "{der:02x?}");
        }
        for (modulus, exponent) in [(&[0x81_u8][..], &[3_u8][..]), (&[], &[3]), (&[7], &[0x83])] {
            let numbers = [encoded(INTEGER, modulus), encoded(INTEGER, exponent)].concat();
            assert_eq!(rsa_numbers(&encoded(SEQUENCE, &numbers)), None);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        let tags = [SEQUENCE, BIT_STRING, INTEGER, 0x80, 0x81, 0x82, 0x83, 0xff, 0, 1, 2];
        for _ in 0..100_000 {
            let length = random.usize(0..24);
            let der: Vec<_> = (0..length).map(|_| tags[random.usize(0..tags.len())]).collect();
            let _ = (subject_public_key(&der), rsa_numbers(&der));
        }
    }
}
