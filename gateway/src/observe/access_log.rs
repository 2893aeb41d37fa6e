//! The access log: a JSON line for each request, once its response was sent to its end or
//! abandoned.
//! Invariant: no request waits for the log.

use std::{
    io::Write,
    mem,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Method, StatusCode, Version};
use serde::Serialize;
use tokio::time;
use waypost_core::model::Name;
use waypost_serving::correlation::TraceId;

use super::{
    logged_body::SentBody,
    record::{RequestOutcome, RequestRecord},
};

/// A line. Times are in milliseconds.
#[derive(Serialize)]
struct LogLine<'a> {
    time: String,
    request_id: &'a str,
    trace_id: TraceId,
    client: IpAddr,
    method: &'a str,
    path: &'a str,
    protocol: &'static str,
    route: Option<&'a str>,
    service: Option<&'a str>,
    instance: Option<&'a str>,
    status: u16,
    attempts: u32,
    upstream_ms: Option<f64>,
    total_ms: f64,
    bytes: u64,
    /// True where the response was sent to its end.
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
}

/// The interval at which lines are flushed.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// The size of a buffer that is flushed at once.
const FLUSH_BYTES: usize = 32 << 10;
/// Room for the line that fills a buffer.
const LINE_BYTES: usize = 2 << 10;

/// The writer of all lines. It writes them in batches: to wake the writer's thread for each line
/// would cost more than the line, and a batch without a bound would hold up requests.
pub(crate) struct AccessLog {
    buffer: Mutex<Vec<u8>>,
    to: Mutex<Box<dyn Write + Send>>,
}

impl AccessLog {
    /// A log that writes to `to`, which must not block.
    pub(crate) fn new(to: Box<dyn Write + Send>) -> Self {
        Self { buffer: Mutex::default(), to: Mutex::new(to) }
    }

    /// Logs a request.
    pub(crate) fn log(
        &self,
        record: &RequestRecord,
        outcome: &RequestOutcome,
        status: StatusCode,
        sent: SentBody,
    ) {
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        self.append(&LogLine {
            time: humantime::format_rfc3339_millis(record.started_at).to_string(),
            request_id: record.correlation.request_id_text(),
            trace_id: record.correlation.trace_id(),
            client: record.peer,
            method: record.method.as_ref().map_or("", Method::as_str),
            path: &record.path,
            protocol: match record.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            },
            route: outcome.route.as_ref().map(Name::as_str),
            service: outcome.service.as_ref().map(Name::as_str),
            instance: outcome.instance.as_deref(),
            status: status.as_u16(),
            attempts: outcome.attempts,
            upstream_ms: outcome.upstream_time.map(millis),
            total_ms: millis(record.elapsed()),
            bytes: sent.bytes,
            complete: sent.complete,
            problem: outcome.problem.as_deref(),
        });
    }

    fn append(&self, line: &LogLine<'_>) {
        let mut buffer = lock(&self.buffer);
        // Writing to memory can't fail.
        let _written = serde_json::to_writer(&mut *buffer, line);
        buffer.push(b'\n');
        if buffer.len() >= FLUSH_BYTES {
            self.flush_buffer(buffer);
        }
    }

    /// Writes the lines so far.
    pub(crate) fn flush(&self) {
        let buffer = lock(&self.buffer);
        if !buffer.is_empty() {
            self.flush_buffer(buffer);
        }
    }

    fn flush_buffer(&self, mut buffer: MutexGuard<'_, Vec<u8>>) {
        let next = Vec::with_capacity(FLUSH_BYTES + LINE_BYTES);
        // Locked before others may append: lines stay in order.
        let mut to = lock(&self.to);
        let lines = mem::replace(&mut *buffer, next);
        drop(buffer);
        // There is nowhere to report an error of the log itself.
        let _written = to.write_all(&lines);
    }

    /// Flushes at intervals. Never ends.
    pub(crate) async fn run(&self) {
        loop {
            time::sleep(FLUSH_INTERVAL).await;
            self.flush();
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves half a line behind, at worst.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AccessLog")
    }
}
