//! The output: on a terminal one picture that is redrawn, elsewhere a line a second and a line for
//! each event.

mod lines;
mod picture;
mod summary;

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};

use self::{lines::Lines, picture::Picture};
use crate::{figures::Tally, journal::Journal, members::Members};

/// One of the two, as standard output is.
pub(crate) enum View {
    Picture(Picture),
    Lines(Lines),
}

impl View {
    /// `head`: the first lines.
    pub(crate) fn new(head: Vec<String>) -> Self {
        let output = io::stdout();
        let is_plain = AutoStream::choice(&output) == ColorChoice::Never;
        if output.is_terminal() && !is_plain && picture::fits() {
            Self::Picture(Picture::new(head))
        } else {
            Self::Lines(Lines::new(head))
        }
    }

    /// Shows what is new.
    pub(crate) fn draw(
        &mut self,
        tally: &Tally,
        members: &Members,
        journal: &Journal,
    ) -> io::Result<()> {
        match self {
            Self::Picture(picture) => picture.draw(tally, members, journal),
            Self::Lines(lines) => lines.draw(tally, members, journal),
        }
    }

    /// Shows what it came to.
    pub(crate) fn sum_up(
        &self,
        tally: &Tally,
        members: &Members,
        journal: &Journal,
    ) -> io::Result<()> {
        let text = summary::text(&tally.total(), members, journal);
        write!(anstream::stdout(), "\n{text}")
    }
}
