//! Escapes text before it reaches a terminal. Pure.
//!
//! Invariant: all text of a peer passes through [`escape`] or [`escape_json`] before it is printed.

use std::fmt::Write;

/// Escapes every character that a terminal interprets instead of displaying it.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Escapes the same characters in JSON. They occur only inside strings: serde_json has escaped the
/// rest, and line breaks between tokens stay.
pub(crate) fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if is_unsafe(character) && character != '\n' {
            // Writing to a string cannot fail; all of them are in the basic multilingual plane.
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Returns whether a character is a control character, breaks a line or changes its direction.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_controls_are_escaped() {
        let wild = "a\u{1b}[31m\r\n\t\u{9b}0m\u{7f}\u{202e}z ä 漢";
        assert_eq!(escape(wild), r"a\u{1b}[31m\r\n\t\u{9b}0m\u{7f}\u{202e}z ä 漢");
    }

    #[test]
    fn escaped_json_parses_to_the_same_value() {
        let wild = "a\u{1b}\u{9b}\u{7f}\u{2028}\u{202e}\n\"\\ä";
        let json = serde_json::to_string_pretty(&[wild]).unwrap();
        let safe = escape_json(&json);
        assert!(safe.chars().all(|character| character == '\n' || !is_unsafe(character)));
        assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), [wild]);
    }
}
