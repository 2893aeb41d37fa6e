//! Readers of the values that HTTP defines.

use http::{HeaderName, Method};
use waypost_config::value::{Value, invalid, string};

/// Reads an HTTP method.
pub(super) fn method(value: Value<'_>) -> Result<Method, String> {
    let text = string(value)?;
    // Methods are case-sensitive: `get` would match no request.
    let is_upper = !text.bytes().any(|byte| byte.is_ascii_lowercase());
    let method = text.parse().ok().filter(|_| is_upper);
    method.ok_or_else(|| invalid(&text, &"must be a method in capital letters, such as GET"))
}

/// Reads the name of a header.
pub(super) fn header(value: Value<'_>) -> Result<HeaderName, String> {
    let text = string(value)?;
    text.parse().map_err(|_| invalid(&text, &"must be the name of a header, such as x-customer"))
}

#[cfg(test)]
mod tests {
    use toml::de::DeValue;

    use super::*;

    fn read<T>(text: &str, read: impl FnOnce(Value<'_>) -> T) -> T {
        let value = DeValue::parse(text).expect("a value of TOML");
        read(value.get_ref())
    }

    #[test]
    fn method_is_in_capital_letters() {
        assert_eq!(read("'GET'", method), Ok(Method::GET));
        assert_eq!(
            read("'M-SEARCH'", method).map(|method| method.to_string()).as_deref(),
            Ok("M-SEARCH")
        );
        for text in ["'get'", "''", "'GET HEAD'", "'GÉT'", "7"] {
            assert!(read(text, method).is_err(), "{text}");
        }
    }
}
