//! The real server and the real client crate in a simulated world: hosts that stop, crash and lose
//! power, a network that loses, delays and holds, and an oracle that knows what has to be seen.

// What is planted is planted for the whole process, and would be found here as well.
#[cfg(not(feature = "failpoints"))]
mod scenarios;

use waypost_simulation::random_run;

#[cfg(not(feature = "failpoints"))]
/// As many as end soon without optimization. `examples/simulate.rs` runs as many as one likes.
const SEEDS: std::ops::Range<u64> = 0..3;

#[cfg(not(feature = "failpoints"))]
#[test]
fn random_runs_violate_nothing() {
    for seed in SEEDS {
        let violation = random_run::run(seed, 3).violation;
        assert!(violation.is_none(), "{}", violation.unwrap_or_default());
    }
}

/// Seeds that once found a violation, each with its cause.
#[cfg(not(feature = "failpoints"))]
#[test]
fn seeds_of_fixed_defects_violate_nothing() {
    for (seed, what) in [
        (5, "a lease had more left than its grace after a standstill that broke no stream"),
        (32, "a reader that started over was taken for one that went on"),
        (319, "a client that a standstill had driven away had no time to come back"),
    ] {
        let violation = random_run::run_open(seed, 22).violation;
        assert!(violation.is_none(), "{what}: {}", violation.unwrap_or_default());
    }
}

#[cfg(not(feature = "failpoints"))]
#[test]
fn seed_determines_the_run() {
    let [first, second] = [(), ()].map(|()| random_run::run(7, 3));
    assert_eq!(first.packets, second.packets);
    assert_eq!(first.checks, second.checks);
    assert_eq!(first.trace, second.trace);
    assert_ne!(random_run::run(8, 3).trace, first.trace);
}

#[cfg(feature = "failpoints")]
const DEFECTS: [&str; 10] = [
    "expire-early",
    "skip-change",
    "no-fence",
    "pause-unseen",
    "late-watcher-not-reset",
    "lease-of-anyone",
    "stream-outlives-right",
    "sight-not-narrowed",
    "cursor-of-old-policy",
    "refusal-breaks-stream",
];

/// Each has to be found soon, or the oracle is blind to it.
#[cfg(feature = "failpoints")]
#[test]
fn planted_defects_are_found() {
    for defect in DEFECTS {
        let _scenario = fail::FailScenario::setup();
        fail::cfg(defect, "return").unwrap();
        let found = (0..200).find(|seed| random_run::run(*seed, 22).violation.is_some());
        assert!(found.is_some(), "{defect} is not found");
    }
}
