//! The records of an audit file: one JSON object a line.
//!
//! Invariant: a line of any length takes bounded memory. Lines of other kinds are passed over;
//! those that are not JSON are counted, since the last one may be cut off.

use std::io::{self, BufRead, Read};

use serde::Deserialize;

/// The greatest length of a line, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// The fields of a record that decisions depend on.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct RecordedCall {
    pub(super) principal: String,
    pub(super) action: String,
    pub(super) namespace: Option<String>,
    pub(super) service: Option<String>,
    pub(super) outcome: String,
    pub(super) reason: Option<String>,
    /// The number of equal calls that the record stands for.
    pub(super) count: Option<u64>,
}

/// Reads the records of calls.
pub(super) struct AuditRecords<R> {
    lines: R,
    malformed: u64,
}

impl<R: BufRead> AuditRecords<R> {
    pub(super) fn new(lines: R) -> Self {
        Self { lines, malformed: 0 }
    }

    /// The number of lines that are not JSON, or too long.
    pub(super) fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Reads the next record of a decision.
    pub(super) fn next(&mut self) -> io::Result<Option<RecordedCall>> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = self.lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
                self.lines.skip_until(b'\n')?;
                self.malformed += 1;
                continue;
            }
            match serde_json::from_slice::<RecordedCall>(&line) {
                Ok(record) if !record.action.is_empty() => return Ok(Some(record)),
                Ok(_) => {}
                Err(_) => self.malformed += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use waypost_auth::policy::{Action, Principal};
    use waypost_serving::tasks::Tasks;

    use super::*;
    use crate::{
        auth::audit::{AuditDestination, AuditKind, AuditLog, AuditOutcome, AuditRecord},
        clock::Clock,
    };

    fn read(text: &[u8]) -> (Vec<RecordedCall>, u64) {
        let mut records = AuditRecords::new(text);
        let mut found = Vec::new();
        while let Some(record) = records.next().unwrap() {
            found.push(record);
        }
        (found, records.malformed())
    }

    #[test]
    fn records_of_decisions_are_read_and_malformed_lines_counted() {
        let text = concat!(
            r#"{"time":"2026-11-30T20:00:00Z","kind":"call","principal":"token/ci","via":"token","#,
            r#""action":"register","namespace":"shop","service":"orders","outcome":"denied","#,
            r#""reason":"NOT_ALLOWED","rule":null,"count":3}"#,
            "\n",
            r#"{"kind":"trust","epoch":2}"#,
            "\nhello\n\n",
            r#"{"principal":"dns/a","action":"status","outcome":"allowed","namespace":null}"#,
            "\n",
            r#"{"principal":"dns/a","act"#,
        );
        let (found, malformed) = read(text.as_bytes());
        assert_eq!((found.len(), malformed), (2, 3));
        assert_eq!((found[0].count, found[0].service.as_deref()), (Some(3), Some("orders")));
        assert_eq!(found[1].namespace, None);
    }

    #[test]
    fn long_lines_are_passed_over() {
        let record = r#"{"principal":"a","action":"probe","outcome":"allowed"}"#;
        let text = [&"x".repeat(1 << 20), record, &"[".repeat(1 << 17)].join("\n");
        let (found, malformed) = read(text.as_bytes());
        assert_eq!((found.len(), malformed), (1, 2));
        assert_eq!(read(b""), (Vec::new(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_the_server_writes_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let (path, tasks) = (directory.path().join("audit"), Tasks::default());
        let destination = AuditDestination::File(path.clone());
        let log = AuditLog::start(destination, &tasks, Clock::start()).unwrap();
        for outcome in [AuditOutcome::Allowed, AuditOutcome::Denied, AuditOutcome::Denied] {
            log.record(AuditRecord {
                principal: Some(Principal::parse("token/ci").unwrap()),
                action: Some(Action::Register),
                namespace: Some("shop".parse().unwrap()),
                service: Some("orders".parse().unwrap()),
                reason: (outcome == AuditOutcome::Denied).then_some("NOT_ALLOWED"),
                ..AuditRecord::new(AuditKind::Call, outcome)
            });
        }
        log.record(AuditRecord::new(AuditKind::Trust, AuditOutcome::Failed));
        assert!(tasks.join(Duration::from_secs(1)).await);
        let (found, malformed) = read(&std::fs::read(path).unwrap());
        let expected = |outcome: &str, reason: Option<&str>, count| RecordedCall {
            principal: "token/ci".to_owned(),
            action: "register".to_owned(),
            namespace: Some("shop".to_owned()),
            service: Some("orders".to_owned()),
            outcome: outcome.to_owned(),
            reason: reason.map(str::to_owned),
            count,
        };
        let denied = expected("denied", Some("NOT_ALLOWED"), Some(2));
        assert_eq!((found, malformed), (vec![expected("allowed", None, None), denied], 0));
    }
}
