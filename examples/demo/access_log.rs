//! Reads the gateway's access log: the instance and the attempts of each request.

use std::{io, process::ChildStdout};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process,
    task::JoinSet,
};

use crate::figures::Tally;

/// The fields of a line that count here.
#[derive(Deserialize)]
struct LogLine {
    status: u16,
    instance: Option<String>,
    attempts: u64,
}

/// Reads all of it, until what it returns is dropped.
pub(crate) fn follow(log: ChildStdout, tally: &Tally) -> io::Result<JoinSet<()>> {
    let log = process::ChildStdout::from_std(log)?;
    Ok([read(log, tally.clone())].into_iter().collect())
}

async fn read(log: process::ChildStdout, tally: Tally) {
    let mut lines = BufReader::new(log).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        // A line that can't be read is no failed request: callers count those.
        let Ok(LogLine { status, instance, attempts }) = serde_json::from_str(&text) else {
            continue;
        };
        tally.sent_again(attempts.saturating_sub(1));
        if let (500.., Some(id)) = (status, instance) {
            tally.blamed(&id);
        }
    }
}
