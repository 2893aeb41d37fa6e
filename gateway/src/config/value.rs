//! Single values of the file: each function reads one kind, or says what would be right.

use std::{fmt::Display, num::NonZeroU32, ops::RangeInclusive, str::FromStr, time::Duration};

use http::{HeaderName, Method};
use toml::de::DeValue;

/// A value as it is in the file.
pub(super) type Value<'a> = &'a DeValue<'a>;

/// The longest wait that can be asked for.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A string.
pub(super) fn text(value: Value<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| must_be("a string", value))
}

/// `true` or `false`.
pub(super) fn flag(value: Value<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| must_be("true or false", value))
}

/// What a string says.
pub(super) fn parsed<T: FromStr<Err: Display>>(value: Value<'_>) -> Result<T, String> {
    let text = text(value)?;
    text.parse().map_err(|reason| about(&text, &reason))
}

/// What a word stands for.
pub(super) fn word<T: Copy>(value: Value<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let text = text(value)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        about(&text, &format_args!("must be one of {}", words.join(", ")))
    })
}

/// An integer.
pub(super) fn integer<N: TryFrom<u64> + PartialOrd + Display>(
    value: Value<'_>,
    range: RangeInclusive<N>,
) -> Result<N, String> {
    let integer = value.as_integer().ok_or_else(|| must_be("an integer", value))?;
    let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
    number
        .and_then(|number| number.try_into().ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            let (least, most) = range.into_inner();
            about(&integer.to_string(), &format_args!("must be {least} to {most}"))
        })
}

/// A number of things, at least one.
pub(super) fn count(value: Value<'_>) -> Result<NonZeroU32, String> {
    let count = integer(value, 1..=u32::MAX)?;
    NonZeroU32::new(count).ok_or_else(|| must_be("1 or more", value))
}

/// A time, such as `1m 30s`.
pub(super) fn duration(value: Value<'_>) -> Result<Duration, String> {
    let text = text(value)?;
    humantime::parse_duration(&text)
        .map_err(|_| about(&text, &"must be a time with its unit, such as 30s or 1m 30s"))
}

/// A time that something is waited for: not none, and no more than a day.
pub(super) fn wait(value: Value<'_>) -> Result<Duration, String> {
    let duration = duration(value)?;
    if duration.is_zero() || duration > WAIT_MAX {
        let text = humantime::format_duration(duration).to_string();
        return Err(about(&text, &"must be more than 0s, and at most 24h"));
    }
    Ok(duration)
}

/// A number of bytes: an integer, or a string with a unit.
pub(super) fn bytes(value: Value<'_>) -> Result<u64, String> {
    if value.is_integer() {
        return integer(value, 0..=i64::MAX.unsigned_abs());
    }
    let wrong = "must be a number of bytes, or a string with a unit such as 64KiB, 10MiB or 1GiB";
    let Some(text) = value.as_str() else { return Err(must_be("a number of bytes", value)) };
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let with_unit = |(unit, size): (&str, u64)| {
        let digits = text.strip_suffix(unit)?.trim_end();
        let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| whole)?.checked_mul(size)
    };
    units.into_iter().find_map(with_unit).ok_or_else(|| about(text, &wrong))
}

/// An HTTP method.
pub(super) fn method(value: Value<'_>) -> Result<Method, String> {
    let text = text(value)?;
    // Methods are told apart by case: `get` would be one that nobody sends.
    let upper = !text.bytes().any(|byte| byte.is_ascii_lowercase());
    let method = text.parse().ok().filter(|_| upper);
    method.ok_or_else(|| about(&text, &"must be a method in capital letters, such as GET"))
}

/// The name of a header.
pub(super) fn header(value: Value<'_>) -> Result<HeaderName, String> {
    let text = text(value)?;
    text.parse().map_err(|_| about(&text, &"must be the name of a header, such as x-customer"))
}

/// Says what is wrong with a text.
pub(super) fn about(text: &str, reason: &dyn Display) -> String {
    format!("'{}' {reason}", text.escape_debug())
}

/// Says that a value has the wrong type.
pub(super) fn must_be(what: &str, value: Value<'_>) -> String {
    format!("must be {what}, and is of type {}", value.type_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(text: &str, read: impl FnOnce(Value<'_>) -> T) -> T {
        let value = DeValue::parse(text).expect("a value of TOML");
        read(value.get_ref())
    }

    #[test]
    fn a_size_is_an_integer_or_has_a_unit() {
        for (text, size) in [
            ("0", 0),
            ("1_000", 1000),
            ("0x10", 16),
            ("'64KiB'", 64 << 10),
            ("'10 MiB'", 10 << 20),
            ("'1GiB'", 1 << 30),
        ] {
            assert_eq!(read(text, bytes), Ok(size), "{text}");
        }
        for text in [
            "-1",
            "1.5",
            "true",
            "''",
            "'10'",
            "'MiB'",
            "'10MB'",
            "'10mib'",
            "'-1KiB'",
            "'+1KiB'",
            "'1.5GiB'",
            "'99999999999999GiB'",
            "99999999999999999999",
        ] {
            let message = read(text, bytes).expect_err(text);
            assert!(message.contains("must be"), "{message}");
        }
    }

    #[test]
    fn an_integer_is_within_its_range() {
        assert_eq!(read("10", |value| integer(value, 0..=10)), Ok(10));
        assert_eq!(
            read("'7'", |value| integer(value, 0..=10)),
            Err("must be an integer, and is of type string".into())
        );
        for text in ["11", "-1", "9223372036854775808", "1_1"] {
            let message = read(text, |value| integer(value, 0..=10)).expect_err(text);
            assert!(message.ends_with("must be 0 to 10"), "{message}");
        }
        assert_eq!(read("1", count), Ok(NonZeroU32::MIN));
        assert_eq!(read("4294967295", count), Ok(NonZeroU32::MAX));
        assert!(read("0", count).is_err());
        assert!(read("4294967296", count).is_err());
    }

    #[test]
    fn a_time_has_a_unit_and_a_wait_a_bound() {
        assert_eq!(read("'1m 30s'", wait), Ok(Duration::from_secs(90)));
        assert_eq!(read("'24h'", wait), Ok(WAIT_MAX));
        assert_eq!(read("'0s'", duration), Ok(Duration::ZERO));
        for text in
            ["'0s'", "'25h'", "'5'", "'soon'", "''", "'-1s'", "30", "'99999999999999999years'"]
        {
            let message = read(text, wait).expect_err(text);
            assert!(message.contains("must be"), "{message}");
        }
    }

    #[test]
    fn a_method_is_written_in_capitals() {
        assert_eq!(read("'GET'", method), Ok(Method::GET));
        assert_eq!(
            read("'M-SEARCH'", method).map(|method| method.to_string()).as_deref(),
            Ok("M-SEARCH")
        );
        for text in ["'get'", "''", "'GET HEAD'", "'GÉT'", "7"] {
            assert!(read(text, method).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_one_line_whatever_the_value() {
        let message = read("\"a\\nb\"", parsed::<bool>).expect_err("no bool");
        assert!(message.starts_with("'a\\nb' "), "{message}");
        let message = read("'c'", |value| word(value, &[("a", 1), ("b", 2)]));
        assert_eq!(message, Err("'c' must be one of a, b".into()));
    }
}
