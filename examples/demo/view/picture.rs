//! Output on a terminal: members with their load, drawn in place.
//!
//! Invariant: the picture fits the terminal, since a line that wraps or scrolls can't be redrawn.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use anstyle::{AnsiColor, Style};
use rustix::termios::tcgetwinsize;
use waypost_client::proto::Status;

use crate::{
    figures::{Figures, Tally},
    journal::{Entry, Journal},
    members::{self, Members, Statuses},
};

/// Two replicas beside each other.
const WIDTH: u16 = 80;
/// The widths of a bar, and of a replica with its figures, in characters.
const BAR: usize = 14;
/// The least number of lines for events, even where replicas fill the terminal.
const EVENTS_MIN: usize = 3;

const TITLE: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const LEAVING: Style = AnsiColor::Yellow.on_default();
const GONE: Style = Style::new().dimmed();
const BAD: Style = AnsiColor::Red.on_default();

pub(crate) struct Picture {
    head: Vec<String>,
    /// All members so far.
    seen: BTreeSet<String>,
    /// The number of lines of the last picture.
    height: usize,
}

/// Returns whether the terminal is wide enough.
pub(super) fn fits() -> bool {
    tcgetwinsize(io::stdout()).is_ok_and(|size| size.ws_col >= WIDTH)
}

/// The number of lines for the picture.
fn room() -> usize {
    let rows = tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_row);
    // The last line is the cursor's.
    usize::from(rows).saturating_sub(1)
}

impl Picture {
    pub(super) fn new(head: Vec<String>) -> Self {
        Self { head, seen: BTreeSet::new(), height: 0 }
    }

    pub(super) fn draw(
        &mut self,
        tally: &Tally,
        members: &Members,
        journal: &Journal,
    ) -> io::Result<()> {
        let room = room();
        let mut lines: Vec<String> = self.head.iter().map(|line| cut(line)).collect();
        let (_, latest) = tally.latest();
        for (service, statuses) in members.present() {
            lines.extend(self.service(service, &statuses, &latest));
        }
        lines.push(totals(&tally.total(), &latest, journal));
        lines.extend(events(journal, room.saturating_sub(lines.len()).max(EVENTS_MIN)));
        // What happened last matters most.
        lines.drain(..lines.len().saturating_sub(room));
        let mut frame = match self.height {
            0 => String::new(),
            height => format!("\u{1b}[{height}F"),
        };
        for line in &lines {
            frame += line;
            frame += "\u{1b}[K\n";
        }
        frame += "\u{1b}[J";
        self.height = lines.len();
        let mut output = io::stdout().lock();
        output.write_all(frame.as_bytes())?;
        output.flush()
    }

    /// A title, and two replicas a line.
    fn service(&mut self, service: &str, present: &Statuses, latest: &Figures) -> Vec<String> {
        self.seen.extend(present.keys().cloned());
        let prefix = format!("{service}-");
        let ids: Vec<&String> = self.seen.iter().filter(|id| id.starts_with(&prefix)).collect();
        let most = ids.iter().map(|id| latest.replica(id).answers).max().unwrap_or_default();
        let up = present.values().filter(|&&status| status == Status::Up).count();
        let title = format!("{TITLE}{service}{TITLE:#}  {up} take traffic, a second each:");
        let cells: Vec<String> =
            ids.iter().map(|id| cell(id, present.get(*id), latest, most)).collect();
        // The first half on the left.
        let (left, right) = cells.split_at(cells.len().div_ceil(2));
        let right = right.iter().map(String::as_str).chain([""]);
        let rows = left.iter().zip(right).map(|(left, right)| format!("{left}{right}"));
        [title].into_iter().chain(rows).collect()
    }
}

/// A replica, as wide as half a line.
fn cell(id: &str, status: Option<&Status>, latest: &Figures, most: u64) -> String {
    let figures = latest.replica(id);
    let (style, word) = match status {
        None => (GONE, "gone".to_owned()),
        _ if figures.errors > 0 => (BAD, format!("{} failed", figures.errors)),
        Some(Status::Up) => (GOOD, String::new()),
        Some(status) => (LEAVING, members::name(*status).to_lowercase()),
    };
    let length = (figures.answers * BAR as u64).checked_div(most).unwrap_or_default();
    let bar = "█".repeat(usize::try_from(length).unwrap_or(BAR));
    let answers = figures.answers;
    format!(" {id:<10}{style}{bar:<BAR$}{style:#}{answers:>4} {style}{word:<10}{style:#}")
}

fn totals(total: &Figures, latest: &Figures, journal: &Journal) -> String {
    let seconds = journal.elapsed().as_secs();
    let (requests, now) = (total.requests(), latest.requests());
    let (failed, others) = (total.failed_idempotent, total.failed_others);
    let style = if failed > 0 { BAD } else { GOOD };
    let [median, late] = [0.5, 0.99].map(|share| latest.quantile_ms(share));
    format!(
        "{TITLE}{seconds:2} s{TITLE:#}  {requests} requests, {now}/s  \
         {style}failed {failed}{style:#}, not idempotent {others}  \
         p50 {median:.0} ms, p99 {late:.0} ms"
    )
}

/// The latest, as many as there is room for.
fn events(journal: &Journal, room: usize) -> Vec<String> {
    let entries = journal.since(0);
    let latest = entries.iter().skip(entries.len().saturating_sub(room));
    let line = |entry: &Entry| {
        let text = format!("{:5.1} s {}", entry.at.as_secs_f64(), entry.event);
        cut(&text)
    };
    latest.map(line).collect()
}

/// The part of a line without styles that fits.
fn cut(line: &str) -> String {
    line.chars().take(usize::from(WIDTH) - 1).collect()
}
