//! Readers of single values. Each returns the value, or a message about what is valid.

use std::{
    fmt::Display,
    num::NonZeroU32,
    ops::{Bound, RangeBounds},
    str::FromStr,
    time::{Duration, SystemTime},
};

use toml::de::DeValue;

/// A value of the file.
pub type Value<'a> = &'a DeValue<'a>;

/// The greatest value of [`positive_duration`].
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a string.
///
/// # Errors
/// The value is not a string.
pub fn string(value: Value<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| type_error("a string", value))
}

/// Reads a string that is not empty.
///
/// # Errors
/// The value is not such a string.
pub fn nonempty_string(value: Value<'_>) -> Result<String, String> {
    let text = string(value)?;
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) }
}

/// Reads `true` or `false`.
///
/// # Errors
/// The value is not a boolean.
pub fn boolean(value: Value<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| type_error("true or false", value))
}

/// Reads a string by its type's [`FromStr`], whose error must describe valid values.
///
/// # Errors
/// The value is not a string, or not one of the type.
pub fn from_str<T: FromStr<Err: Display>>(value: Value<'_>) -> Result<T, String> {
    let text = string(value)?;
    text.parse().map_err(|reason| invalid(&text, &reason))
}

/// Reads a string that is one of the given words.
///
/// # Errors
/// The value is not a string, or none of the words.
pub fn one_of<T: Copy>(value: Value<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let text = string(value)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        invalid(&text, &format_args!("must be one of {}", words.join(", ")))
    })
}

/// Reads an integer within a range.
///
/// # Errors
/// The value is not an integer, or not within the range.
pub fn integer<N: TryFrom<u64> + PartialOrd + Display>(
    value: Value<'_>,
    range: impl RangeBounds<N>,
) -> Result<N, String> {
    let integer = value.as_integer().ok_or_else(|| type_error("an integer", value))?;
    let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
    number
        .and_then(|number| number.try_into().ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            let valid = match (range.start_bound(), range.end_bound()) {
                (Bound::Included(min), Bound::Included(max)) => format!("must be {min} to {max}"),
                (Bound::Included(min), _) => format!("must be {min} or more"),
                _ => "is out of range".to_owned(),
            };
            invalid(&integer.to_string(), &valid)
        })
}

/// Reads a number of things: at least one.
///
/// # Errors
/// The value is not an integer, or not 1 to 2^32 - 1.
pub fn count(value: Value<'_>) -> Result<NonZeroU32, String> {
    let count = integer(value, 1..=u32::MAX)?;
    NonZeroU32::new(count).ok_or_else(|| type_error("1 or more", value))
}

/// Reads a duration, such as `1m 30s`.
///
/// # Errors
/// The value is not a string, or not a duration with its unit.
pub fn duration(value: Value<'_>) -> Result<Duration, String> {
    let text = string(value)?;
    humantime::parse_duration(&text)
        .map_err(|_| invalid(&text, &"must be a time with its unit, such as 30s or 1m 30s"))
}

/// Reads a duration of more than 0 s and at most 24 h, such as a timeout.
///
/// # Errors
/// The value is not such a duration.
pub fn positive_duration(value: Value<'_>) -> Result<Duration, String> {
    let duration = duration(value)?;
    if duration.is_zero() || duration > DURATION_MAX {
        let text = humantime::format_duration(duration).to_string();
        return Err(invalid(&text, &"must be more than 0s, and at most 24h"));
    }
    Ok(duration)
}

/// Reads a time in UTC, as TOML or a string has it.
///
/// # Errors
/// The value is not such a time.
pub fn utc_time(value: Value<'_>) -> Result<SystemTime, String> {
    let text = value.as_datetime().map(ToString::to_string);
    let text = text.or_else(|| value.as_str().map(str::to_owned)).unwrap_or_default();
    let time = humantime::parse_rfc3339(&text);
    time.map_err(|_| "must be a time in UTC, such as 2027-01-01T00:00:00Z".to_owned())
}

/// Reads a number of bytes: an integer, or a string with a unit.
///
/// # Errors
/// The value is neither.
pub fn byte_size(value: Value<'_>) -> Result<u64, String> {
    if value.is_integer() {
        return integer(value, 0..=i64::MAX.unsigned_abs());
    }
    let Some(text) = value.as_str() else { return Err(type_error("a number of bytes", value)) };
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let with_unit = |(unit, size): (&str, u64)| {
        let digits = text.strip_suffix(unit)?.trim_end();
        let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| whole)?.checked_mul(size)
    };
    let valid = "must be a number of bytes, or a string with a unit such as 64KiB, 10MiB or 1GiB";
    units.into_iter().find_map(with_unit).ok_or_else(|| invalid(text, &valid))
}

/// The message for an invalid text: on one line, whatever the text is.
#[must_use]
pub fn invalid(text: &str, reason: &dyn Display) -> String {
    format!("'{}' {reason}", text.escape_debug())
}

/// The message for a value of another type.
#[must_use]
pub fn type_error(expected: &str, value: Value<'_>) -> String {
    format!("must be {expected}, and is of type {}", value.type_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(text: &str, read: impl FnOnce(Value<'_>) -> T) -> T {
        let value = DeValue::parse(text).expect("a value of TOML");
        read(value.get_ref())
    }

    #[test]
    fn byte_size_is_an_integer_or_has_a_unit() {
        for (text, size) in [
            ("0", 0),
            ("1_000", 1000),
            ("0x10", 16),
            ("'64KiB'", 64 << 10),
            ("'10 MiB'", 10 << 20),
            ("'1GiB'", 1 << 30),
        ] {
            assert_eq!(read(text, byte_size), Ok(size), "{text}");
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
            let message = read(text, byte_size).expect_err(text);
            assert!(message.contains("must be"), "{message}");
        }
    }

    #[test]
    fn integer_is_within_its_range() {
        assert_eq!(read("10", |value| integer(value, 0..=10)), Ok(10));
        assert_eq!(
            read("'7'", |value| integer(value, 0..=10)),
            Err("must be an integer, and is of type string".into())
        );
        for text in ["11", "-1", "9223372036854775808", "1_1"] {
            let message = read(text, |value| integer(value, 0..=10)).expect_err(text);
            assert!(message.ends_with("must be 0 to 10"), "{message}");
        }
        assert_eq!(read("7", |value| integer(value, 1_u64..)), Ok(7));
        let message = read("0", |value| integer(value, 1_u64..));
        assert_eq!(message, Err("'0' must be 1 or more".into()));
        assert_eq!(read("1", count), Ok(NonZeroU32::MIN));
        assert_eq!(read("4294967295", count), Ok(NonZeroU32::MAX));
        assert!(read("0", count).is_err());
        assert!(read("4294967296", count).is_err());
    }

    #[test]
    fn duration_has_a_unit_and_a_positive_one_a_bound() {
        assert_eq!(read("'1m 30s'", positive_duration), Ok(Duration::from_secs(90)));
        assert_eq!(read("'24h'", positive_duration), Ok(DURATION_MAX));
        assert_eq!(read("'0s'", duration), Ok(Duration::ZERO));
        for text in
            ["'0s'", "'25h'", "'5'", "'soon'", "''", "'-1s'", "30", "'99999999999999999years'"]
        {
            let message = read(text, positive_duration).expect_err(text);
            assert!(message.contains("must be"), "{message}");
        }
    }

    #[test]
    fn time_is_in_utc() {
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_761_600);
        for text in ["2027-01-01T00:00:00Z", "'2027-01-01T00:00:00Z'"] {
            assert_eq!(read(text, utc_time), Ok(expected), "{text}");
        }
        for text in ["2027-01-01", "2027-01-01T00:00:00", "2027-01-01T00:00:00+01:00", "1", "''"] {
            let message = read(text, utc_time).expect_err(text);
            assert_eq!(message, "must be a time in UTC, such as 2027-01-01T00:00:00Z");
        }
    }

    #[test]
    fn message_is_one_line_whatever_the_value() {
        let message = read("\"a\\nb\"", from_str::<bool>).expect_err("no bool");
        assert!(message.starts_with("'a\\nb' "), "{message}");
        let message = read("'c'", |value| one_of(value, &[("a", 1), ("b", 2)]));
        assert_eq!(message, Err("'c' must be one of a, b".into()));
    }
}
