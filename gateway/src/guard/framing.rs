//! The end of a body. Pure.
//! Invariant: every party finds the same end. Otherwise the bytes behind one end would be a request
//! of their own for a party that finds the other (request smuggling).

use http::{
    StatusCode, Version,
    header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING},
    request::Parts,
};

use super::{Refused, at_most_one};

/// Checks RFC 9112, 6, without the tolerance that it permits.
pub(super) fn check(parts: &Parts) -> Result<(), Refused> {
    let headers = &parts.headers;
    let length = at_most_one(headers, &CONTENT_LENGTH, "there is more than one length")?;
    if length.is_some_and(|length| !is_length(length.as_bytes())) {
        return Err(Refused::bad("the length is not a number"));
    }
    let coding =
        at_most_one(headers, &TRANSFER_ENCODING, "there is more than one transfer coding")?;
    if let Some(coding) = coding {
        if parts.version != Version::HTTP_11 {
            return Err(Refused::bad("this version of HTTP has no transfer codings"));
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Refused::bad("the transfer coding is not chunked"));
        }
        if length.is_some() {
            return Err(Refused::bad("there are both a length and a transfer coding"));
        }
    }
    let expected = at_most_one(headers, &EXPECT, "there is more than one expectation")?;
    if expected.is_some_and(|expected| !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let status = StatusCode::EXPECTATION_FAILED;
        return Err(Refused::new(status, "the expectation is not supported"));
    }
    Ok(())
}

/// Returns true for digits alone: no sign, list or space.
fn is_length(value: &[u8]) -> bool {
    let digits = value.iter().all(u8::is_ascii_digit);
    digits && str::from_utf8(value).is_ok_and(|value| value.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{judge, with};
    use super::*;

    #[test]
    fn one_plain_length_passes() {
        for length in ["0", "5", "005", "18446744073709551615"] {
            assert_eq!(with(&[("content-length", length)]), None, "{length}");
        }
    }

    #[test]
    fn a_length_that_is_not_a_number_is_refused() {
        for length in ["", "+5", "-5", "5, 5", "5,6", "0x5", "5 ", "5.0", "18446744073709551616"] {
            assert_eq!(with(&[("content-length", length)]), Some(400), "{length:?}");
        }
    }

    #[test]
    fn two_lengths_are_refused() {
        assert_eq!(with(&[("content-length", "5"), ("content-length", "6")]), Some(400));
        assert_eq!(with(&[("content-length", "5"), ("content-length", "5")]), Some(400));
    }

    #[test]
    fn chunked_passes() {
        assert_eq!(with(&[("transfer-encoding", "chunked")]), None);
        assert_eq!(with(&[("transfer-encoding", "Chunked")]), None);
    }

    #[test]
    fn another_coding_is_refused() {
        for coding in [
            "",
            "identity",
            "gzip",
            "gzip, chunked",
            "chunked, identity",
            "chunked, chunked",
            "xchunked",
            "chunkedx",
            " chunked",
            "\tchunked",
            "chunked ",
            "chunked;q=1",
            "\"chunked\"",
            "chunked,",
            ",chunked",
            "chun ked",
        ] {
            assert_eq!(with(&[("transfer-encoding", coding)]), Some(400), "{coding:?}");
        }
        let two = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(with(&two), Some(400));
        let other = [("transfer-encoding", "identity"), ("transfer-encoding", "chunked")];
        assert_eq!(with(&other), Some(400));
    }

    #[test]
    fn a_length_beside_a_coding_is_refused() {
        assert_eq!(with(&[("transfer-encoding", "chunked"), ("content-length", "5")]), Some(400));
    }

    #[test]
    fn codings_belong_to_http_1_1() {
        for version in [Version::HTTP_10, Version::HTTP_2] {
            let fields = [("host", "a"), ("transfer-encoding", "chunked")];
            assert_eq!(judge("POST", "/", version, &fields), Some(400));
        }
    }

    #[test]
    fn only_100_continue_can_be_expected() {
        assert_eq!(with(&[("expect", "100-continue")]), None);
        assert_eq!(with(&[("expect", "100-Continue")]), None);
        for expected in ["", "200-ok", "100-continue, x", "100-continued"] {
            assert_eq!(with(&[("expect", expected)]), Some(417), "{expected:?}");
        }
        assert_eq!(with(&[("expect", "100-continue"), ("expect", "100-continue")]), Some(400));
    }
}
