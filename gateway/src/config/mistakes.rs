//! What is wrong with a configuration: all of it, each with its place.

use std::fmt;

/// Everything that is wrong with a configuration, in the order of the file. Shown one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line of the file, from 1 on, where it is known.
    pub line: Option<usize>,
    /// What is wrong, such as `routes[3].timeout`, counted from 0. Empty: the file as a whole.
    pub path: String,
    /// How it is wrong, and what would be right.
    pub message: String,
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{mistake}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(formatter, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.message)
    }
}

/// The mistakes that were found so far.
#[derive(Debug)]
pub(super) struct Notes {
    /// Where each line of the file ends, in bytes.
    line_ends: Vec<usize>,
    mistakes: Vec<Mistake>,
}

/// A value is not as it should be, which has been noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted;

impl Notes {
    /// None yet of what is wrong with `text`.
    pub(super) fn new(text: &str) -> Self {
        let line_ends = text.match_indices('\n').map(|(end, _)| end).collect();
        Self { line_ends, mistakes: Vec::new() }
    }

    /// The line that holds a byte.
    pub(super) fn line(&self, byte: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < byte)
    }

    /// Notes a mistake.
    pub(super) fn note(
        &mut self,
        byte: Option<usize>,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Noted {
        let line = byte.map(|byte| self.line(byte));
        self.mistakes.push(Mistake { line, path: path.into(), message: message.into() });
        Noted
    }

    /// What was read, if there was no mistake.
    pub(super) fn finish<T>(self, read: Result<T, Noted>) -> Result<T, Mistakes> {
        let mut mistakes = self.mistakes;
        mistakes.sort_by_key(|mistake| mistake.line);
        match read {
            Ok(value) if mistakes.is_empty() => Ok(value),
            _ => Err(Mistakes(mistakes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_shown_one_a_line_in_order_of_the_file() {
        let mut notes = Notes::new("a\nb\n\nc");
        let _ = notes.note(Some(5), "routes[0].c", "must be a string");
        let _ = notes.note(Some(0), "", "is no file");
        let _ = notes.note(None, "d", "is missing");
        let mistakes = notes.finish(Ok(())).expect_err("three");
        let text = "d: is missing\nline 1: is no file\nline 4: routes[0].c: must be a string";
        assert_eq!(mistakes.to_string(), text);
    }

    #[test]
    fn a_byte_is_in_the_line_that_it_ends() {
        let notes = Notes::new("a\n\nbc\n");
        let lines: Vec<usize> = (0..7).map(|byte| notes.line(byte)).collect();
        assert_eq!(lines, [1, 1, 2, 3, 3, 3, 4]);
        assert_eq!(Notes::new("").line(0), 1);
    }
}
