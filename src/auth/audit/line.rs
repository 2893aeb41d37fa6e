//! The written form of a record: a JSON object on a line of a file, or an event of the log.
//! Pure, but for the event.
//!
//! Invariant: fields are in the order of the documentation; the text of a line has no newline but
//! at its end.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tracing::info;

use super::repeats::Ready;

/// The last time that can be written, the end of the year 9999, in milliseconds.
const WALL_MAX: u64 = 253_402_300_799_999;

#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

/// Appends the line of a record. `lost`: the number of records before it that were not written.
pub(super) fn append(ready: &Ready, lost: u64, lines: &mut Vec<u8>) {
    let time = time(ready);
    let line = line(ready, &time, lost);
    serde_json::to_writer(&mut *lines, &line).expect("texts and numbers are JSON");
    lines.push(b'\n');
}

/// Logs a record, with the fields of its line.
pub(super) fn log(ready: &Ready, lost: u64) {
    let time = time(ready);
    let line = line(ready, &time, lost);
    info!(
        target: "waypost::audit",
        time = line.time,
        kind = line.kind,
        principal = line.principal,
        via = line.via,
        credential = line.credential,
        peer = line.peer.map(tracing::field::display),
        method = line.method,
        action = line.action,
        namespace = line.namespace,
        service = line.service,
        instance = line.instance,
        outcome = line.outcome,
        code = line.code,
        reason = line.reason,
        rule = line.rule,
        epoch = line.epoch,
        revision = line.revision,
        correlation_id = line.correlation_id,
        count = line.count,
        lost = line.lost,
        "audit"
    );
}

fn line<'a>(ready: &'a Ready, time: &'a str, lost: u64) -> Line<'a> {
    let record = &ready.record;
    Line {
        time,
        kind: record.kind.name(),
        principal: record.principal.as_ref().map(|principal| principal.as_str()),
        via: record.via.map(|via| via.name()),
        credential: record.credential.as_deref(),
        peer: record.peer,
        method: record.method,
        action: record.action.map(|action| action.name()),
        namespace: record.namespace.as_ref().map(|name| name.as_str()),
        service: record.service.as_ref().map(|name| name.as_str()),
        instance: record.instance.as_ref().map(|id| id.as_str()),
        outcome: record.outcome.name(),
        code: record.code,
        reason: record.reason,
        rule: record.rule.map(|line| line.0),
        epoch: record.epoch,
        revision: record.revision,
        correlation_id: record.correlation_id.as_deref(),
        count: Some(ready.count).filter(|count| *count > 1),
        lost: Some(lost).filter(|lost| *lost > 0),
    }
}

fn time(ready: &Ready) -> String {
    let since_epoch = Duration::from_millis(ready.wall.0.min(WALL_MAX));
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since_epoch).to_string()
}

#[cfg(test)]
mod tests {
    use waypost_auth::policy::{Action, Principal, RuleLine, Via};

    use super::*;
    use crate::{
        auth::audit::{AuditKind, AuditOutcome, AuditRecord},
        model::{InstanceId, WallTime},
    };

    fn line_of(record: AuditRecord, count: u64, lost: u64) -> String {
        let mut lines = Vec::new();
        append(&Ready { record, wall: WallTime(1_800_000_000_012), count }, lost, &mut lines);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn line_has_all_fields_in_their_order() {
        let record = AuditRecord {
            kind: AuditKind::Call,
            principal: Some(Principal::parse("spiffe://prod.example/ns/shop/sa/orders").unwrap()),
            via: Some(Via::Certificate),
            credential: Some("9f2c0d53a1b4e7c8".into()),
            peer: Some("10.1.2.3:40312".parse().unwrap()),
            method: Some("Register"),
            action: Some(Action::Register),
            namespace: Some("shop".parse().unwrap()),
            service: Some("orders".parse().unwrap()),
            instance: Some(InstanceId::parse("orders-1", 128).unwrap()),
            outcome: AuditOutcome::Denied,
            code: Some("PERMISSION_DENIED"),
            reason: Some("NOT_ALLOWED"),
            rule: Some(RuleLine(12)),
            epoch: Some(7),
            revision: Some(41),
            correlation_id: Some("0193-a".into()),
        };
        assert_eq!(
            line_of(record, 3, 5),
            "{\"time\":\"2027-01-15T08:00:00.012Z\",\"kind\":\"call\",\
             \"principal\":\"spiffe://prod.example/ns/shop/sa/orders\",\"via\":\"certificate\",\
             \"credential\":\"9f2c0d53a1b4e7c8\",\"peer\":\"10.1.2.3:40312\",\
             \"method\":\"Register\",\"action\":\"register\",\"namespace\":\"shop\",\
             \"service\":\"orders\",\"instance\":\"orders-1\",\"outcome\":\"denied\",\
             \"code\":\"PERMISSION_DENIED\",\"reason\":\"NOT_ALLOWED\",\"rule\":12,\"epoch\":7,\
             \"revision\":41,\"correlation_id\":\"0193-a\",\"count\":3,\"lost\":5}\n"
        );
    }

    #[test]
    fn fields_without_a_value_are_omitted() {
        for (kind, outcome, line) in [
            (AuditKind::Session, AuditOutcome::Unauthenticated, "session\",\"outcome\":\"unauth"),
            (AuditKind::Trust, AuditOutcome::Failed, "trust\",\"outcome\":\"failed\"}\n"),
            (AuditKind::Call, AuditOutcome::Limited, "call\",\"outcome\":\"limited\"}\n"),
            (AuditKind::Call, AuditOutcome::Allowed, "call\",\"outcome\":\"allowed\"}\n"),
        ] {
            let start = format!("{{\"time\":\"2027-01-15T08:00:00.012Z\",\"kind\":\"{line}");
            let written = line_of(AuditRecord::new(kind, outcome), 1, 0);
            assert!(written.starts_with(&start), "{written}");
        }
    }

    #[test]
    fn text_from_outside_stays_on_its_line() {
        let record = AuditRecord {
            instance: Some(InstanceId::parse("a\"\\\u{2028}\u{e9}", 128).unwrap()),
            credential: Some("\n\0\u{1b}\u{e9}".repeat(40).into()),
            correlation_id: Some("\r\u{85}".into()),
            ..AuditRecord::new(AuditKind::Call, AuditOutcome::Allowed)
        };
        let line = line_of(record, 1, 0);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        assert!(line.bytes().all(|byte| byte == b'\n' || byte >= b' '));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["instance"], "a\"\\\u{2028}\u{e9}");
        assert_eq!(read["correlation_id"], "\r\u{85}");
    }

    #[test]
    fn every_wall_time_is_written() {
        for (wall, time) in
            [(0, "1970-01-01T00:00:00.000Z"), (u64::MAX, "9999-12-31T23:59:59.999Z")]
        {
            let record = AuditRecord::new(AuditKind::Call, AuditOutcome::Allowed);
            let mut lines = Vec::new();
            append(&Ready { record, wall: WallTime(wall), count: 1 }, 0, &mut lines);
            assert!(String::from_utf8(lines).unwrap().contains(time));
        }
    }
}
