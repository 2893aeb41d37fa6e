//! Figures that benchmarks print.

/// Shows the median of figures, the least and the most.
///
/// # Panics
/// If there are none.
pub fn spread(figures: impl Iterator<Item = f64>) -> String {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let show = |figure: f64| {
        if figure < 100.0 { format!("{figure:.2}") } else { format!("{figure:.0}") }
    };
    let median = figures[figures.len() / 2];
    format!("{} ({} to {})", show(median), show(figures[0]), show(figures[figures.len() - 1]))
}
