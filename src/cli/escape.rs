//! How single values are shown to people. What came from peers must never reach a terminal without
//! passing through [`escape`].

use std::fmt::Write;

/// The text with everything escaped that a terminal would act on instead of showing it.
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

/// JSON with the same escaped. Of those characters, only the ones inside of strings get here: the
/// others are escaped already, or line breaks between tokens.
pub(crate) fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if is_unsafe(character) && character != '\n' {
            // Cannot fail, and all of them are in the basic plane.
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Control characters, and those that break a line or turn its direction.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_gets_through() {
        let wild = "a\u{1b}[31m\r\n\t\u{9b}0m\u{7f}\u{202e}z ä 漢";
        assert_eq!(escape(wild), r"a\u{1b}[31m\r\n\t\u{9b}0m\u{7f}\u{202e}z ä 漢");
    }

    #[test]
    fn json_stays_the_same_json() {
        let wild = "a\u{1b}\u{9b}\u{7f}\u{2028}\u{202e}\n\"\\ä";
        let json = serde_json::to_string_pretty(&[wild]).unwrap();
        let safe = escape_json(&json);
        assert!(safe.chars().all(|character| character == '\n' || !is_unsafe(character)));
        assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), [wild]);
    }
}
