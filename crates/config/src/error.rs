//! The errors of a configuration: all of them, each with its place.

use std::fmt;

/// The errors of a configuration, in the order of the file: all, or the first that were found, and
/// the number of the others. Displayed one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One error of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The line of the file, counted from 1, where it is known.
    pub line: Option<usize>,
    /// The key, such as `routes[3].timeout`, counted from 0; empty for the file as a whole.
    pub path: String,
    /// The reason, and what is valid.
    pub message: String,
}

/// A value is invalid, and its error is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// An error of the file as a whole.
    #[must_use]
    pub fn of_file(message: impl Into<String>) -> Self {
        Self { line: None, path: String::new(), message: message.into() }
    }
}

impl fmt::Display for ConfigError {
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

/// The greatest number of errors that are reported of one file.
const ERRORS_MAX: usize = 1_000;

/// Collects the errors of one file.
#[derive(Debug)]
pub(crate) struct ErrorCollector {
    /// The offset of each line's end, in bytes.
    line_ends: Vec<usize>,
    /// At most [`ERRORS_MAX`].
    errors: Vec<ConfigError>,
    /// The number of errors after these.
    omitted: usize,
}

impl ErrorCollector {
    pub(crate) fn new(text: &str) -> Self {
        let line_ends = text.match_indices('\n').map(|(end, _)| end).collect();
        Self { line_ends, errors: Vec::new(), omitted: 0 }
    }

    /// Returns the line that contains an offset.
    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < offset)
    }

    pub(crate) fn record(
        &mut self,
        offset: Option<usize>,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Invalid {
        if self.errors.len() < ERRORS_MAX {
            let line = offset.map(|offset| self.line(offset));
            self.errors.push(ConfigError { line, path: path.into(), message: message.into() });
        } else {
            self.omitted += 1;
        }
        Invalid
    }

    /// Returns the value, unless an error was recorded.
    pub(crate) fn finish<T>(self, read: Result<T, Invalid>) -> Result<T, ConfigErrors> {
        let mut errors = self.errors;
        errors.sort_by_key(|error| error.line);
        if self.omitted > 0 {
            errors.push(ConfigError::of_file(format!("and {} more errors", self.omitted)));
        }
        match read {
            Ok(value) if errors.is_empty() => Ok(value),
            _ => Err(ConfigErrors(errors)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_displayed_one_a_line_in_the_order_of_the_file() {
        let mut errors = ErrorCollector::new("a\nb\n\nc");
        let _ = errors.record(Some(5), "routes[0].c", "must be a string");
        let _ = errors.record(Some(0), "", "is no file");
        let _ = errors.record(None, "d", "is missing");
        let errors = errors.finish(Ok(())).expect_err("three");
        let text = "d: is missing\nline 1: is no file\nline 4: routes[0].c: must be a string";
        assert_eq!(errors.to_string(), text);
    }

    #[test]
    fn errors_are_bounded() {
        let mut errors = ErrorCollector::new("");
        for _ in 0..ERRORS_MAX + 7 {
            let _ = errors.record(Some(0), "a", "is no known key");
        }
        let ConfigErrors(errors) = errors.finish(Ok(())).expect_err("many");
        assert_eq!(errors.len(), ERRORS_MAX + 1);
        assert_eq!(errors[ERRORS_MAX].to_string(), "and 7 more errors");
    }

    #[test]
    fn newline_belongs_to_the_line_that_it_ends() {
        let errors = ErrorCollector::new("a\n\nbc\n");
        let lines: Vec<usize> = (0..7).map(|offset| errors.line(offset)).collect();
        assert_eq!(lines, [1, 1, 2, 3, 3, 3, 4]);
        assert_eq!(ErrorCollector::new("").line(0), 1);
    }
}
