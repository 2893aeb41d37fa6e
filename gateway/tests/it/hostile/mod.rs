//! Hostile callers, as bytes on a socket: requests that are no HTTP, ambiguous, too large, or
//! endless. None may reach an instance. Beside them callers that are merely unusual: all of theirs
//! must.

mod bodies;
mod controls;
mod heads;
mod http2;
mod identities;
mod limits;
mod slow;
mod support;

use self::support::case::{Case, Expected};
use self::support::gateway::start;
use self::support::upstream::Upstream;
use waypost_gateway::Running;

/// Speaks all cases to a gateway without a configuration.
async fn run(cases: Vec<Case>) {
    let upstream = Upstream::start().await;
    let gateway = start(upstream.address()).await;
    judge(&gateway, &upstream, &cases).await;
}

/// Runs all cases, and returns those with an unexpected outcome.
async fn judge(gateway: &Running, upstream: &Upstream, cases: &[Case]) {
    let mut surprises = Vec::new();
    for case in cases {
        let before = upstream.counts();
        let outcome = support::caller::speak(gateway.address(), case).await;
        let after = upstream.counts();
        if !case.expected.covers(outcome) {
            surprises.push(format!("{}: {outcome:?} for {:?}", case.name, case.expected));
        }
        // An instance may receive the start of a body that turns out to be invalid.
        let begun = after.begun > before.begun && case.expected != Expected::BodyCut;
        if begun || after.whole > before.whole {
            surprises.push(format!("{}: the instance was asked", case.name));
        }
    }
    assert_eq!(upstream.counts().whole, 0, "{surprises:#?}");
    assert!(surprises.is_empty(), "{surprises:#?}");
}

#[tokio::test]
async fn no_hostile_head_reaches_an_instance() {
    run(heads::cases()).await;
}

#[tokio::test]
async fn no_hostile_body_reaches_an_instance_completely() {
    run(bodies::cases()).await;
}

#[tokio::test]
async fn no_hostile_stream_reaches_an_instance() {
    run(http2::cases()).await;
}
