//! What a run found, beside its limit: as a table for people, and as data.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::figures::Figures;

/// What a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was put under load.
    pub system: &'static str,
    /// How.
    pub workload: &'static str,
    /// The load, in words.
    pub load: String,
    /// How often it was measured.
    pub rounds: usize,
    /// The figures, in the order in which they are shown.
    pub figures: Vec<Row>,
    /// What else there is to know, such as the first error.
    pub notes: Vec<String>,
}

/// One figure over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What it tells.
    pub name: &'static str,
    /// In what; empty: it is a count.
    pub unit: &'static str,
    /// Over all rounds.
    pub measured: Spread,
    /// The same of the limit, where it has it.
    pub limit: Option<Spread>,
    /// The median of the rounds' ratios to the limit's round beside them.
    pub ratio: Option<f64>,
}

/// A figure over several rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the rounds were not above it.
    pub median: f64,
    /// The least of all rounds.
    pub least: f64,
    /// The most of all rounds.
    pub most: f64,
}

impl Spread {
    /// Nothing where there are no figures.
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

    /// Whether something went wrong that a figure tells: calls that failed, changes that were missed,
    /// instances that were lost.
    #[must_use]
    pub fn is_flawed(&self) -> bool {
        const FLAWS: [&str; 6] =
            ["errors", "missed", "repeated", "wrongly expired", "too early", "lost"];
        self.figures.iter().any(|row| FLAWS.contains(&row.name) && row.measured.most > 0.0)
    }
}

/// The figure of this name, of each round.
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
            let ratio = row.ratio.map_or_else(String::new, shown);
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
        formatter.write_str(&shown(*median))?;
        if least != most {
            write!(formatter, " ({} to {})", shown(*least), shown(*most))?;
        }
        Ok(())
    }
}

/// So many digits as mean something; thousands apart.
fn shown(figure: f64) -> String {
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
    fn a_row_has_the_median_the_spread_and_the_limit_beside_it() {
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
    fn what_went_wrong_is_said() {
        let mut flawed = figures(1.0, 2.0);
        flawed.notes.push("the first error: no".into());
        let report = Report::new("waypost", "register", String::new(), &[flawed], &[]);
        assert!(report.is_flawed());
        assert!(report.to_string().contains("the first error: no"));
    }
}
