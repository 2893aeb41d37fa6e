//! Shares of the calls of one zone between all zones. Pure.

/// Returns the share of each zone in the calls from zone `local`, for zones with these capacities.
///
/// Assumes that all zones send as many calls. A zone with its share of the capacity keeps its own
/// calls. One with less keeps as many as it can take; the others go to the zones with more, in
/// proportion to their excess, so that in the end all are loaded alike (as Envoy's zone-aware
/// routing).
pub(super) fn shares(capacities: &[u64], local: usize) -> Vec<f64> {
    let total: f64 = capacities.iter().map(|capacity| *capacity as f64).sum();
    let fair = total / capacities.len() as f64;
    let kept = (capacities[local] as f64 / fair).min(1.0);
    let over = |capacity: u64| (capacity as f64 - fair).max(0.0);
    let all_over: f64 = capacities.iter().map(|capacity| over(*capacity)).sum();
    let share = |(zone, capacity): (usize, &u64)| {
        if zone == local {
            kept
        } else if all_over > 0.0 {
            (1.0 - kept) * over(*capacity) / all_over
        } else {
            0.0
        }
    };
    capacities.iter().enumerate().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_with_its_share_keeps_its_calls() {
        assert_eq!(shares(&[100, 100, 100], 1), [0.0, 1.0, 0.0]);
        assert_eq!(shares(&[100, 700, 100], 1), [0.0, 1.0, 0.0]);
        assert_eq!(shares(&[100], 0), [1.0]);
    }

    #[test]
    fn the_excess_of_a_zone_goes_to_zones_with_more_capacity() {
        // A third would be 200: it has half of that.
        assert_eq!(shares(&[100, 200, 300], 0), [0.5, 0.0, 0.5]);
    }

    #[test]
    fn in_the_end_all_are_loaded_alike() {
        for capacities in [vec![1, 2, 3], vec![10, 400, 90, 500], vec![7, 7], vec![1, 0, 900]] {
            let zones = capacities.len();
            let mut load = vec![0.0; zones];
            for from in 0..zones {
                for (zone, share) in shares(&capacities, from).into_iter().enumerate() {
                    load[zone] += share / zones as f64;
                }
            }
            let total: u64 = capacities.iter().sum();
            for (load, capacity) in load.iter().zip(&capacities) {
                let due = *capacity as f64 / total as f64;
                assert!((load - due).abs() < 1e-9, "{load} for {due} in {capacities:?}");
            }
        }
    }
}
