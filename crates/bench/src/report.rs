//! The report of a run beside its limit, as a table and as data. Pure.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::figures::Figures;

/// The report of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The measured system.
    pub system: &'static str,
    /// The name of the workload.
    pub workload: &'static str,
    /// A description of the load.
    pub load: String,
    /// The number of rounds.
    pub rounds: usize,
    /// The figures, in the order of the table.
    pub figures: Vec<Row>,
    /// Notes, such as the first error.
    pub notes: Vec<String>,
}

/// One figure over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The name of the figure.
    pub name: &'static str,
    /// The unit; empty for a count.
    pub unit: &'static str,
    /// The measured system, over all rounds.
    pub measured: Spread,
    /// The limit, if it has this figure.
    pub limit: Option<Spread>,
    /// The median of the ratios of each round to the limit's adjacent round.
    pub ratio: Option<f64>,
}

/// A figure over several rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median round.
    pub median: f64,
    /// The smallest value.
    pub least: f64,
    /// The largest value.
    pub most: f64,
}

impl Spread {
    /// Returns `None` without figures.
    fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        Some(Self { median: figures[figures.len() / 2], least, most })
    }
}

impl Report {
    pub(crate) fn new(
        system: &'static str,
        workload: &'static str,
        load: String,
        measured: &[Figures],
        limits: &[Figures],
    ) -> Self {
        let figures = measured.first().map(|first| {
            let row = |figure: &crate::figures::Figure| {
                let (own, limit) = (of(figure.name, measured), of(figure.name, limits));
                let ratios = own.iter().zip(&limit).map(|(own, limit)| own / limit);
                let ratios = ratios.filter(|ratio| ratio.is_finite()).collect();
                Some(Row {
                    name: figure.name,
                    unit: figure.unit,
                    measured: Spread::of(own)?,
                    ratio: Spread::of(ratios).map(|ratios| ratios.median),
                    limit: Spread::of(limit),
                })
            };
            first.figures.iter().filter_map(row).collect()
        });
        let notes = measured.iter().flat_map(|figures| figures.notes.iter().cloned());
        let limit_notes = limits.iter().flat_map(|figures| &figures.notes);
        let notes = notes.chain(limit_notes.map(|note| format!("limit: {note}"))).collect();
        Self {
            system,
            workload,
            load,
            rounds: measured.len(),
            figures: figures.unwrap_or_default(),
            notes,
        }
    }

    /// Returns whether a figure shows an error: failed calls, missed changes, lost instances.
    #[must_use]
    pub fn is_flawed(&self) -> bool {
        const FLAWS: [&str; 6] =
            ["errors", "missed", "repeated", "wrongly expired", "too early", "lost"];
        self.figures.iter().any(|row| FLAWS.contains(&row.name) && row.measured.most > 0.0)
    }
}

/// Returns the figure of this name of each round.
fn of(name: &str, rounds: &[Figures]) -> Vec<f64> {
    let figures = rounds.iter().flat_map(|round| &round.figures);
    figures.filter(|figure| figure.name == name).map(|figure| figure.value).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system, workload, load, rounds, .. } = self;
        let rounds = match rounds {
            1 => "1 round".to_owned(),
            rounds => format!("{rounds} rounds: median (least to most)"),
        };
        writeln!(formatter, "{workload}: {load}; {rounds}")?;
        let head = ["".to_owned(), (*system).to_owned(), "limit".to_owned(), "ratio".to_owned()];
        let mut lines = vec![head];
        for row in &self.figures {
            let name = match row.unit {
                "" => row.name.to_owned(),
                unit => format!("{}, {unit}", row.name),
            };
            let ratio = row.ratio.map_or_else(String::new, format_figure);
            let limit = row.limit.as_ref().map_or_else(String::new, Spread::to_string);
            lines.push([name, row.measured.to_string(), limit, ratio]);
        }
        let width = |column: usize| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
        };
        let widths = [0, 1, 2, 3].map(width);
        for [name, measured, limit, ratio] in &lines {
            let [a, b, c, d] = widths;
            let line = format!("  {name:a$}  {measured:>b$}  {limit:>c$}  {ratio:>d$}");
            writeln!(formatter, "{}", line.trim_end())?;
        }
        let mut notes = BTreeMap::<&str, usize>::new();
        for note in &self.notes {
            *notes.entry(note).or_default() += 1;
        }
        notes.into_iter().try_for_each(|(note, _)| writeln!(formatter, "  {note}"))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, least, most } = self;
        formatter.write_str(&format_figure(*median))?;
        if least != most {
            write!(formatter, " ({} to {})", format_figure(*least), format_figure(*most))?;
        }
        Ok(())
    }
}

/// Formats a figure with its significant digits and thousands separators.
fn format_figure(figure: f64) -> String {
    if figure.fract() != 0.0 && figure < 100.0 {
        return format!("{figure:.2}");
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rate: f64, errors: f64) -> Figures {
        let mut figures = Figures::default();
        figures.push("throughput", "/s", rate);
        figures.push("errors", "", errors);
        figures
    }

    #[test]
    fn row_has_the_median_the_spread_and_the_limit() {
        let measured = [figures(1_000.0, 0.0), figures(3_000.0, 0.0), figures(2_000.0, 0.0)];
        let limits = [figures(4_000.0, 0.0), figures(4_000.0, 0.0), figures(8_000.0, 0.0)];
        let report = Report::new("waypost", "register", "64 callers".into(), &measured, &limits);
        let row = &report.figures[0];
        assert_eq!(row.measured, Spread { median: 2_000.0, least: 1_000.0, most: 3_000.0 });
        // Of 0.25, 0.75 and 0.25.
        assert_eq!(row.ratio, Some(0.25));
        let text = report.to_string();
        assert!(text.contains("throughput, /s  2,000 (1,000 to 3,000)"), "{text}");
        assert!(!report.is_flawed());
    }

    #[test]
    fn errors_flaw_the_report_and_are_noted() {
        let mut flawed = figures(1.0, 2.0);
        flawed.notes.push("the first error: no".into());
        let report = Report::new("waypost", "register", String::new(), &[flawed], &[]);
        assert!(report.is_flawed());
        assert!(report.to_string().contains("the first error: no"));
    }
}
