//! The audit log as a whole: what arrives, in which form, and what a full disk or queue costs.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::Mutex,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};
use waypost_auth::policy::Principal;

use super::*;
use crate::model::{Name, WallTime};

const SECOND: Duration = Duration::from_secs(1);

/// A log into a file of a directory, on simulated time.
struct Subject {
    directory: TempDir,
    tasks: Tasks,
    log: AuditLog,
}

impl Subject {
    fn start() -> Self {
        Self::with(Rotation::default())
    }

    fn with(rotation: Rotation) -> Self {
        let (directory, tasks) = (tempfile::tempdir().unwrap(), Tasks::default());
        let destination = AuditDestination::File(directory.path().join("audit"));
        let clock = Clock::simulated(WallTime(1_800_000_000_000));
        let log = AuditLog::start_with(destination, rotation, &tasks, clock).unwrap();
        Self { directory, tasks, log }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("audit")
    }

    fn lines(&self) -> Vec<Value> {
        lines(&self.path())
    }

    async fn stop(&self) {
        assert!(self.tasks.join(SECOND).await);
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A write that was allowed, with this number.
fn write(revision: u64) -> AuditRecord {
    AuditRecord {
        revision: Some(revision),
        ..AuditRecord::new(AuditKind::Call, AuditOutcome::Allowed)
    }
}

fn refusal(principal: &str) -> AuditRecord {
    let principal = Some(Principal::parse(principal).unwrap());
    AuditRecord { principal, ..AuditRecord::new(AuditKind::Call, AuditOutcome::Denied) }
}

fn stranger() -> AuditRecord {
    AuditRecord::new(AuditKind::Session, AuditOutcome::Unauthenticated)
}

#[tokio::test(start_paused = true)]
async fn records_are_lines_of_the_file_within_moments() {
    let subject = Subject::start();
    for revision in 0..3 {
        subject.log.record(write(revision));
    }
    sleep(Duration::from_millis(201)).await;
    let text = fs::read_to_string(subject.path()).unwrap();
    let line = |revision| {
        format!(
            "{{\"time\":\"2027-01-15T08:00:00.000Z\",\"kind\":\"call\",\"outcome\":\"allowed\",\
             \"revision\":{revision}}}\n"
        )
    };
    assert_eq!(text, [line(0), line(1), line(2)].concat());
    assert_eq!(subject.log.lost(), 0);
    subject.stop().await;
}

#[tokio::test(start_paused = true)]
async fn equal_refusals_are_one_line_when_their_window_ends() {
    let subject = Subject::start();
    for _ in 0..5 {
        subject.log.record(refusal("a"));
        sleep(SECOND).await;
    }
    subject.log.record(write(1));
    sleep(SECOND).await;
    assert_eq!(subject.lines().len(), 1, "the write does not wait for them");
    sleep(5 * SECOND).await;
    let lines = subject.lines();
    assert_eq!((&lines[1]["principal"], &lines[1]["count"]), (&"a".into(), &5.into()));
    assert_eq!(lines[1]["time"], "2027-01-15T08:00:00.000Z");
    // What is held is written at the end.
    subject.log.record(refusal("b"));
    subject.stop().await;
    assert_eq!(subject.lines()[2]["principal"], "b");
}

#[tokio::test(start_paused = true)]
async fn records_after_the_stop_are_counted() {
    let subject = Subject::start();
    subject.log.record(write(1));
    subject.stop().await;
    subject.log.record(write(2));
    assert_eq!((subject.lines().len(), subject.log.lost()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn task_stays_until_the_stop_without_handles() {
    let Subject { tasks, log, .. } = Subject::start();
    drop(log);
    sleep(SECOND).await;
    assert!(!tasks.stop().is_cancelled());
    assert!(tasks.join(SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn full_queue_loses_records_and_the_next_one_has_their_number() {
    let subject = Subject::start();
    // The task does not run meanwhile.
    for revision in 0..WAITING_MAX as u64 + 10 {
        subject.log.record(write(revision));
    }
    assert_eq!(subject.log.lost(), 10);
    sleep(SECOND).await;
    subject.log.record(write(77));
    subject.log.record(write(78));
    subject.stop().await;
    let lines = subject.lines();
    assert_eq!(lines.len(), WAITING_MAX + 2);
    let mentioned: Vec<_> = lines.iter().filter(|line| line["lost"] != Value::Null).collect();
    assert_eq!(mentioned.len(), 1);
    assert_eq!((&mentioned[0]["revision"], &mentioned[0]["lost"]), (&77.into(), &10.into()));
}

#[tokio::test(start_paused = true)]
async fn strangers_leave_room_in_the_queue() {
    let subject = Subject::start();
    for _ in 0..WAITING_MAX {
        subject.log.record(stranger());
    }
    assert_eq!(subject.log.lost(), (WAITING_MAX - STRANGERS_WAITING_MAX) as u64);
    for revision in 0..(WAITING_MAX - STRANGERS_WAITING_MAX) as u64 {
        subject.log.record(write(revision));
    }
    subject.stop().await;
    let lines = subject.lines();
    assert_eq!(lines.len(), WAITING_MAX - STRANGERS_WAITING_MAX + 1);
    assert_eq!(lines[0]["lost"], WAITING_MAX - STRANGERS_WAITING_MAX);
    assert_eq!(lines.last().unwrap()["count"], STRANGERS_WAITING_MAX);
}

#[tokio::test(start_paused = true)]
async fn files_are_rotated_and_hold_every_record_once() {
    let subject = Subject::with(Rotation { file_bytes_max: 2_000, files_max: 4 });
    for revision in 0..60 {
        subject.log.record(write(revision));
        if revision % 7 == 0 {
            sleep(SECOND).await;
        }
    }
    subject.stop().await;
    let mut revisions = Vec::new();
    for name in ["audit.3", "audit.2", "audit.1", "audit"] {
        let path = subject.directory.path().join(name);
        if let Ok(metadata) = fs::metadata(&path) {
            assert!(metadata.len() <= 2_000);
            revisions.extend(lines(&path).iter().map(|line| line["revision"].as_u64().unwrap()));
        }
    }
    assert!(revisions.into_iter().eq(0..60));
    assert_eq!(subject.log.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn full_disk_loses_records_until_there_is_room() {
    let subject = Subject::start();
    let moved = subject.directory.path().join("moved");
    // The path leads to a disk without room, then to one with room again.
    fs::rename(subject.path(), &moved).unwrap();
    std::os::unix::fs::symlink("/dev/full", subject.path()).unwrap();
    for revision in 0..5 {
        subject.log.record(write(revision));
    }
    sleep(SECOND).await;
    subject.log.record(write(5));
    sleep(SECOND).await;
    assert_eq!(subject.log.lost(), 6);
    fs::remove_file(subject.path()).unwrap();
    for revision in 6..8 {
        subject.log.record(write(revision));
    }
    sleep(SECOND).await;
    let lines = subject.lines();
    assert_eq!((&lines[0]["revision"], &lines[0]["lost"]), (&6.into(), &6.into()));
    assert_eq!((lines.len(), &lines[1]["lost"]), (2, &Value::Null));
    assert_eq!(subject.log.lost(), 6);
    subject.stop().await;
}

#[tokio::test]
async fn file_that_cannot_be_opened_is_an_error() {
    let (directory, tasks) = (tempfile::tempdir().unwrap(), Tasks::default());
    let destination = AuditDestination::File(directory.path().join("no/audit"));
    let error = AuditLog::start(destination, &tasks, Clock::start()).unwrap_err().to_string();
    assert!(error.starts_with("cannot open the audit file /"), "{error}");
    assert!(error.contains("no/audit: No such file"), "{error}");
    assert!(tasks.join(SECOND).await);
}

/// What a subscriber writes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn records_are_events_of_the_log_with_the_fields_of_lines() {
    let written = Written::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("waypost::audit=info"))
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_writer(written.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (tasks, clock) = (Tasks::default(), Clock::simulated(WallTime(1_800_000_000_000)));
    let log = AuditLog::start(AuditDestination::Log, &tasks, clock).unwrap();
    let peer = Some("[::1]:5000".parse().unwrap());
    log.record(AuditRecord { method: Some("Deregister"), peer, ..write(5) });
    log.record(refusal("a"));
    log.record(refusal("a"));
    assert!(tasks.join(SECOND).await);
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2, "{text}");
    for (event, fields) in events.iter().zip([
        "{\"time\":\"2027-01-15T08:00:00.000Z\",\"kind\":\"call\",\"peer\":\"[::1]:5000\",\
         \"method\":\"Deregister\",\"outcome\":\"allowed\",\"revision\":5}",
        "{\"time\":\"2027-01-15T08:00:00.000Z\",\"kind\":\"call\",\"principal\":\"a\",\
         \"outcome\":\"denied\",\"count\":2}",
    ]) {
        let Value::Object(fields) = serde_json::from_str(fields).unwrap() else {
            panic!("{fields}")
        };
        for (name, value) in &fields {
            assert_eq!(&event[name], value, "{name}");
        }
        let others = event.as_object().unwrap().keys().filter(|name| !fields.contains_key(*name));
        let others: Vec<_> = others.filter(|name| *name != "span").collect();
        assert_eq!(others, ["level", "message", "target", "timestamp"]);
        assert_eq!(event["target"], "waypost::audit");
    }
}

/// Prints the cost of a record for its caller, too: after a pause, and within a burst.
/// Longer with WAYPOST_SOAK_SECONDS.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn records_of_bursts_are_all_written() {
    let (directory, tasks) = (tempfile::tempdir().unwrap(), Tasks::default());
    let destination = AuditDestination::File(directory.path().join("audit"));
    let log = AuditLog::start(destination, &tasks, Clock::start()).unwrap();
    let rounds = if std::env::var_os("WAYPOST_SOAK_SECONDS").is_some() { 100 } else { 2 };
    let mut handed_in = 0;
    for burst in [1, 500] {
        let mut costs = Vec::new();
        for _ in 0..rounds {
            costs.push(cost_of_records(&log, burst).as_nanos() / u128::from(burst));
            handed_in += burst;
            sleep(Duration::from_millis(20)).await;
        }
        costs.sort_unstable();
        let median = costs[costs.len() / 2];
        println!("{median} ns for the caller of a record, in bursts of {burst} (median)");
    }
    assert!(tasks.join(10 * SECOND).await);
    let written = lines(&directory.path().join("audit")).len() as u64;
    assert_eq!(written + log.lost(), handed_in);
}

/// Hands in records as a handler makes them, and returns the time of all.
fn cost_of_records(log: &AuditLog, count: u64) -> Duration {
    let principal = Principal::parse("spiffe://prod.example/ns/shop/sa/orders").unwrap();
    let name: Name = "orders".parse().unwrap();
    let credential = Arc::from("9f2c0d53a1b4e7c8");
    #[expect(clippy::disallowed_methods, reason = "a measurement")]
    let start = std::time::Instant::now();
    for revision in 0..count {
        log.record(AuditRecord {
            principal: Some(Principal::clone(&principal)),
            credential: Some(Arc::clone(&credential)),
            service: Some(name.clone()),
            correlation_id: Some("0193b2c4-5d6e-7f80-9a1b-2c3d4e5f6071".into()),
            ..write(revision)
        });
    }
    start.elapsed()
}
