//! The opened destination of audit records, and the losses that its next record mentions. Blocks.

use std::sync::Arc;

use tracing::{error, info};

use super::{Losses, file::AuditFile, line, repeats::Ready};

/// The destination.
#[derive(Debug)]
pub(super) struct Output {
    place: OpenPlace,
    losses: Arc<Losses>,
    /// The number of lost records that the next record mentions.
    lost: u64,
}

#[derive(Debug)]
enum OpenPlace {
    Log,
    File(Batches),
}

/// Lines on their way into a file.
#[derive(Debug)]
struct Batches {
    file: AuditFile,
    lines: Vec<u8>,
    /// The number of lines.
    records: u64,
    /// The losses that the lines mention.
    mentioned: u64,
    health: FileHealth,
}

/// The outcome of the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileHealth {
    Works,
    Fails,
}

impl Output {
    pub(super) fn log(losses: Arc<Losses>) -> Self {
        Self { place: OpenPlace::Log, losses, lost: 0 }
    }

    pub(super) fn file(file: AuditFile, losses: Arc<Losses>) -> Self {
        let (lines, health) = (Vec::new(), FileHealth::Works);
        let batches = Batches { file, lines, records: 0, mentioned: 0, health };
        Self { place: OpenPlace::File(batches), losses, lost: 0 }
    }

    /// Adds to the losses that the next record mentions.
    pub(super) fn mention(&mut self, lost: u64) {
        self.lost += lost;
    }

    /// Writes the records, and empties the list. Those that can't be written are lost.
    pub(super) fn write(&mut self, ready: &mut Vec<Ready>) {
        for each in ready.drain(..) {
            match &mut self.place {
                OpenPlace::Log => line::log(&each, std::mem::take(&mut self.lost)),
                OpenPlace::File(batches) => {
                    if !batches.append(&each, self.lost) {
                        self.lost += batches.write(&self.losses);
                        batches.append(&each, self.lost);
                    }
                    self.lost = 0;
                }
            }
        }
        if let OpenPlace::File(batches) = &mut self.place {
            self.lost += batches.write(&self.losses);
        }
    }
}

impl Batches {
    /// Appends a line. `false` where the lines have to be written before.
    fn append(&mut self, ready: &Ready, lost: u64) -> bool {
        let before = self.lines.len();
        line::append(ready, lost, &mut self.lines);
        if before > 0 && self.lines.len() > self.file.write_bytes_max() {
            self.lines.truncate(before);
            return false;
        }
        self.records += 1;
        self.mentioned += lost;
        true
    }

    /// Writes the lines. Returns the losses to mention: all of them, and those that they mention,
    /// if the file can't be written.
    fn write(&mut self, losses: &Losses) -> u64 {
        if self.lines.is_empty() {
            return 0;
        }
        let written = self.file.write(&self.lines);
        self.lines.clear();
        let (records, mentioned) = (self.records, self.mentioned);
        (self.records, self.mentioned) = (0, 0);
        let path = self.file.path().display();
        match (written, self.health) {
            (Ok(()), FileHealth::Works) => 0,
            (Ok(()), FileHealth::Fails) => {
                info!(%path, lost = mentioned, "audit file can be written again");
                self.health = FileHealth::Works;
                0
            }
            (Err(error), health) => {
                losses.count(records);
                if health == FileHealth::Works {
                    error!(%path, %error, "audit file can't be written, records are lost");
                }
                self.health = FileHealth::Fails;
                records + mentioned
            }
        }
    }
}
