//! How single values are shown to people. What came from peers must never reach a terminal without
//! passing through [`shown`].

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use waypost_client::{
    Instance,
    proto::{ChangeKind, ChangeReason, Status},
};

/// The text with everything escaped that a terminal would act on instead of showing it.
pub(super) fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_wild(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// JSON with the same escaped. Of those characters, only the ones inside of strings get here: the
/// others are escaped already, or line breaks between tokens.
pub(super) fn json_shown(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if is_wild(character) && character != '\n' {
            // Cannot fail, and all of them are in the basic plane.
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Control characters, and those that break a line or turn its direction.
fn is_wild(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Where an instance is reached: `host:port`, IPv6 in brackets.
pub(super) fn address(instance: &Instance) -> String {
    let (host, port) = (&instance.host, instance.port);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The name of a status, without what all of them begin with.
pub(super) fn status_name(status: i32) -> String {
    match Status::try_from(status) {
        Ok(status) => bare(status.as_str_name(), "STATUS_").to_owned(),
        Err(_) => format!("UNKNOWN_{status}"),
    }
}

/// The name of a change's reason, where it has one.
pub(super) fn reason_name(reason: i32) -> Option<String> {
    match ChangeReason::try_from(reason) {
        Ok(ChangeReason::Unspecified) => None,
        Ok(reason) => Some(bare(reason.as_str_name(), "CHANGE_REASON_").to_owned()),
        Err(_) => Some(format!("UNKNOWN_{reason}")),
    }
}

/// The name of a kind of change.
pub(super) fn kind_name(kind: ChangeKind) -> &'static str {
    bare(kind.as_str_name(), "CHANGE_KIND_")
}

/// The colour of a status.
pub(super) fn status_style(status: i32) -> Style {
    match Status::try_from(status) {
        Ok(Status::Up) => AnsiColor::Green.on_default(),
        Ok(Status::Starting | Status::Draining) => AnsiColor::Yellow.on_default(),
        Ok(Status::Down) => AnsiColor::Red.on_default(),
        Ok(Status::Suspect) => AnsiColor::Magenta.on_default(),
        Ok(Status::Unspecified) | Err(_) => Style::new(),
    }
}

fn bare(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_gets_through() {
        let wild = "a\u{1b}[31m\r\n\t\u{9b}0m\u{7f}\u{202e}z ä 漢";
        assert_eq!(shown(wild), r"a\u{1b}[31m\r\n\t\u{9b}0m\u{7f}\u{202e}z ä 漢");
    }

    #[test]
    fn json_stays_the_same_json() {
        let wild = "a\u{1b}\u{9b}\u{7f}\u{2028}\u{202e}\n\"\\ä";
        let json = serde_json::to_string_pretty(&[wild]).unwrap();
        let safe = json_shown(&json);
        assert!(safe.chars().all(|character| character == '\n' || !is_wild(character)));
        assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), [wild]);
    }

    #[test]
    fn ipv6_addresses_are_in_brackets() {
        let instance = Instance { host: "::1".into(), port: 80, ..Instance::default() };
        assert_eq!(address(&instance), "[::1]:80");
    }

    #[test]
    fn names_are_bare_and_unknown_values_are_shown() {
        assert_eq!(status_name(Status::Up.into()), "UP");
        assert_eq!(status_name(77), "UNKNOWN_77");
        assert_eq!(reason_name(ChangeReason::Expired.into()).as_deref(), Some("EXPIRED"));
        assert_eq!(reason_name(0), None);
        assert_eq!(kind_name(ChangeKind::Added), "ADDED");
    }
}
