//! The protocol's values as text and colours. Pure.

use anstyle::{AnsiColor, Style};
use waypost_client::{
    Instance,
    proto::{ChangeKind, ChangeReason, Status},
};

/// Returns an instance's address as `host:port`, IPv6 in brackets.
pub(crate) fn address(instance: &Instance) -> String {
    let (host, port) = (&instance.host, instance.port);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Returns the name of a status without the prefix `STATUS_`.
pub(crate) fn status_name(status: i32) -> String {
    match Status::try_from(status) {
        Ok(status) => without_prefix(status.as_str_name(), "STATUS_").to_owned(),
        Err(_) => format!("UNKNOWN_{status}"),
    }
}

/// Returns the name of a change's reason, if it has one.
pub(crate) fn reason_name(reason: i32) -> Option<String> {
    match ChangeReason::try_from(reason) {
        Ok(ChangeReason::Unspecified) => None,
        Ok(reason) => Some(without_prefix(reason.as_str_name(), "CHANGE_REASON_").to_owned()),
        Err(_) => Some(format!("UNKNOWN_{reason}")),
    }
}

/// Returns the name of a kind of change.
pub(crate) fn kind_name(kind: ChangeKind) -> &'static str {
    without_prefix(kind.as_str_name(), "CHANGE_KIND_")
}

/// Returns the colour of a status.
pub(crate) fn status_style(status: i32) -> Style {
    match Status::try_from(status) {
        Ok(Status::Up) => AnsiColor::Green.on_default(),
        Ok(Status::Starting | Status::Draining) => AnsiColor::Yellow.on_default(),
        Ok(Status::Down) => AnsiColor::Red.on_default(),
        Ok(Status::Suspect) => AnsiColor::Magenta.on_default(),
        Ok(Status::Unspecified) | Err(_) => Style::new(),
    }
}

fn without_prefix(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_are_in_brackets() {
        let instance = Instance { host: "::1".into(), port: 80, ..Instance::default() };
        assert_eq!(address(&instance), "[::1]:80");
    }

    #[test]
    fn names_lose_their_prefix_and_unknown_values_are_shown() {
        assert_eq!(status_name(Status::Up.into()), "UP");
        assert_eq!(status_name(77), "UNKNOWN_77");
        assert_eq!(reason_name(ChangeReason::Expired.into()).as_deref(), Some("EXPIRED"));
        assert_eq!(reason_name(0), None);
        assert_eq!(kind_name(ChangeKind::Added), "ADDED");
    }
}
