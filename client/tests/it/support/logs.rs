//! The log lines of a test.

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use tracing::Level;

/// The log lines of this thread.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logs {
    /// Logs of this thread, which the client works in, go here, at `info` and above.
    pub fn here() -> (Self, tracing::subscriber::DefaultGuard) {
        Self::at(Level::INFO)
    }

    /// The same, at `level` and above.
    pub fn at(level: Level) -> (Self, tracing::subscriber::DefaultGuard) {
        // With a single subscriber, a line that is logged first on a thread without one is disabled
        // everywhere.
        static SECOND: LazyLock<tracing::Dispatch> = LazyLock::new(|| {
            let subscriber = tracing_subscriber::fmt().with_writer(std::io::sink);
            subscriber.with_max_level(Level::TRACE).finish().into()
        });
        LazyLock::force(&SECOND);
        let logs = Self::default();
        let writer = logs.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(level)
            .with_writer(move || writer.clone())
            .finish();
        (logs, tracing::subscriber::set_default(subscriber))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The number of lines with all of these parts.
    pub fn with(&self, parts: &[&str]) -> usize {
        let logs = self.text();
        logs.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// Waits for a line with all of these parts.
    pub async fn until(&self, parts: &[&str]) {
        let logged = async {
            while self.with(parts) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), logged).await.expect("a line in the log");
    }
}
