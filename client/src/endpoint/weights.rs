//! Draws from a list in proportion to weights, in constant time. Pure. Never returns a place whose
//! weight is 0.

/// Consecutive shares of a line. The lookup is the guide-table method (H.-C. Chen and Y. Asau, "On
/// generating random variates from an empirical distribution", 1974): a table with as many cells as
/// there are shares names the first share of each cell, so that a lookup reads about two.
#[derive(Debug)]
pub(crate) enum Weights {
    /// All weights are equal.
    Equal { count: usize },
    /// The weights differ.
    Table {
        /// The end of each share. Strictly increases, as no weight is 0.
        ends: Box<[u64]>,
        /// The first share that reaches into each cell.
        guide: Box<[u32]>,
    },
}

impl Default for Weights {
    /// Creates an empty list.
    fn default() -> Self {
        Self::Equal { count: 0 }
    }
}

impl Weights {
    /// Creates the shares of `weights`, none of them 0.
    pub(crate) fn new(weights: impl ExactSizeIterator<Item = u32>) -> Self {
        let count = weights.len();
        let mut total = 0;
        let mut equal = true;
        let mut first = None;
        let ends: Box<[u64]> = weights
            .map(|weight| {
                equal &= *first.get_or_insert(weight) == weight;
                total += u64::from(weight);
                total
            })
            .collect();
        if equal {
            return Self::Equal { count };
        }
        let guide = guide(&ends, total);
        Self::Table { ends, guide }
    }

    /// Returns a weight; 1 if all are equal.
    pub(crate) fn of(&self, index: usize) -> u64 {
        match self {
            Self::Equal { .. } => 1,
            Self::Table { ends, .. } => {
                ends[index] - index.checked_sub(1).map_or(0, |before| ends[before])
            }
        }
    }

    /// Returns a weight, relative to the mean.
    pub(crate) fn relative(&self, index: usize) -> f32 {
        1.0 / self.inverse(index)
    }

    /// Returns the mean, relative to a weight: a factor instead of a division.
    #[inline]
    pub(crate) fn inverse(&self, index: usize) -> f32 {
        match self {
            Self::Equal { .. } => 1.0,
            Self::Table { ends, .. } => {
                let total = ends[ends.len() - 1];
                (total as f64 / (self.of(index) as f64 * ends.len() as f64)) as f32
            }
        }
    }

    /// Returns the number of shares.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Equal { count } => *count,
            Self::Table { ends, .. } => ends.len(),
        }
    }

    /// Returns the share at `fraction` / 2^64 of the line; 0 if there are none.
    #[inline]
    pub(crate) fn at(&self, fraction: u64) -> usize {
        match self {
            Self::Equal { count } => scale_index(fraction, *count),
            Self::Table { ends, guide } => look_up(ends, guide, fraction),
        }
    }
}

#[inline(never)]
fn look_up(ends: &[u64], guide: &[u32], fraction: u64) -> usize {
    let total = ends[ends.len() - 1];
    let point = scale(fraction, total);
    let cell = scale_down(point, guide.len(), total);
    let low = guide[cell] as usize;
    let high = guide.get(cell + 1).map_or(ends.len() - 1, |next| *next as usize);
    low + ends[low..=high].partition_point(|end| *end <= point)
}

/// Returns another place than `first` among `count`, which is at least two. All are equally likely,
/// by `fraction` / 2^64.
pub(crate) fn other_than(first: usize, count: usize, fraction: u64) -> usize {
    let drawn = scale_index(fraction, count - 1);
    if drawn < first { drawn } else { drawn + 1 }
}

fn guide(ends: &[u64], total: u64) -> Box<[u32]> {
    let cells = ends.len();
    let mut share = 0;
    (0..cells)
        .map(|cell| {
            let start = (u128::from(total) * cell as u128 / cells as u128) as u64;
            while ends[share] <= start {
                share += 1;
            }
            u32::try_from(share).expect("a view holds fewer than 2^32 instances")
        })
        .collect()
}

/// `fraction` / 2^64 of `whole`, rounded down: always less than `whole`, unless that is 0.
pub(crate) fn scale(fraction: u64, whole: u64) -> u64 {
    ((u128::from(fraction) * u128::from(whole)) >> 64) as u64
}

/// `fraction` / 2^64 of `count`, for a place in a list.
pub(crate) fn scale_index(fraction: u64, count: usize) -> usize {
    scale(fraction, count as u64) as usize
}

/// Returns the cell of `point`, of `cells` that cover `total`.
fn scale_down(point: u64, cells: usize, total: u64) -> usize {
    (u128::from(point) * cells as u128 / u128::from(total)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(weights: &[u32]) -> Weights {
        Weights::new(weights.iter().copied())
    }

    fn by_scan(weights: &[u32], fraction: u64) -> usize {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut point = scale(fraction, total);
        for (index, weight) in weights.iter().enumerate() {
            match point.checked_sub(u64::from(*weight)) {
                Some(rest) => point = rest,
                None => return index,
            }
        }
        unreachable!("the point is within the total")
    }

    #[test]
    fn equal_weights_need_no_table() {
        assert!(matches!(table(&[7, 7, 7]), Weights::Equal { count: 3 }));
        assert!(matches!(table(&[]), Weights::Equal { count: 0 }));
        assert_eq!(table(&[7, 7, 7]).at(u64::MAX), 2);
        assert_eq!(table(&[7, 7, 7]).at(0), 0);
    }

    #[test]
    fn a_relative_weight_is_1_on_average() {
        let relative: Vec<f32> = (0..3).map(|index| table(&[1, 2, 6]).relative(index)).collect();
        assert_eq!(relative, [1.0 / 3.0, 2.0 / 3.0, 2.0]);
        assert_eq!(table(&[7, 7]).relative(1), 1.0);
    }

    #[test]
    fn lookup_agrees_with_a_scan() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..500 {
            let count = random.usize(1..40);
            let top = [2, 100, u32::MAX][random.usize(0..3)];
            let weights: Vec<u32> = (0..count).map(|_| random.u32(1..=top)).collect();
            let lookup = table(&weights);
            assert_eq!(lookup.count(), count);
            for fraction in [0, 1, u64::MAX, u64::MAX / 2] {
                assert_eq!(lookup.at(fraction), by_scan(&weights, fraction), "{weights:?}");
            }
            for _ in 0..200 {
                let fraction = random.u64(..);
                assert_eq!(lookup.at(fraction), by_scan(&weights, fraction), "{weights:?}");
            }
        }
    }

    #[test]
    fn one_heavy_share_among_many_light_ones_is_found() {
        let mut weights = vec![1; 1000];
        weights[500] = 1_000_000;
        let lookup = table(&weights);
        assert_eq!(lookup.at(u64::MAX / 2), 500);
        assert_eq!(lookup.at(0), 0);
        assert_eq!(lookup.at(u64::MAX), 999);
    }
}
