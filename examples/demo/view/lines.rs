//! Output without a terminal: a line for each second, and one for each event.

use std::io::{self, Write};

use waypost_client::proto::Status;

use crate::{figures::Tally, journal::Journal, members::Members};

pub(crate) struct Lines {
    /// The first lines, until they are printed.
    head: Vec<String>,
    /// The number of events printed.
    told: usize,
    /// The number of the latest reading printed.
    reading: u64,
}

impl Lines {
    pub(super) fn new(head: Vec<String>) -> Self {
        Self { head, told: 0, reading: 0 }
    }

    pub(super) fn draw(
        &mut self,
        tally: &Tally,
        members: &Members,
        journal: &Journal,
    ) -> io::Result<()> {
        let mut output = anstream::stdout().lock();
        for line in self.head.drain(..) {
            writeln!(output, "{line}")?;
        }
        for entry in journal.since(self.told) {
            writeln!(output, "      {}", entry.event)?;
            self.told += 1;
        }
        let (reading, figures) = tally.latest();
        if reading == self.reading {
            return output.flush();
        }
        self.reading = reading;
        write!(output, "{reading:2} s  {:4} requests", figures.requests())?;
        for (service, statuses) in members.present() {
            let up = statuses.iter().filter(|&(_, &status)| status == Status::Up);
            let answers: Vec<u64> = up.map(|(id, _)| figures.replica(id).answers).collect();
            let least = answers.iter().min().copied().unwrap_or_default();
            let most = answers.iter().max().copied().unwrap_or_default();
            write!(output, "   {service} {:2}, {least:3} to {most:3} each", answers.len())?;
        }
        let failed = figures.failed_idempotent + figures.failed_others;
        writeln!(output, "   failed {failed}   p99 {:.0} ms", figures.quantile_ms(0.99))?;
        output.flush()
    }
}
