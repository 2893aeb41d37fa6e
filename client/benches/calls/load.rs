//! Calls at a steady rate, and what they came to.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::{Request, transport::Channel};
use waypost_client::BalancedChannel;

use waypost_testing::greeter::{GreetRequest, greeter_client::GreeterClient};

/// Calls begin at this rate, whatever became of those before.
pub(crate) const CALLS_A_SECOND: u32 = 400;
/// Each gives up after this.
pub(crate) const DEADLINE: Duration = Duration::from_millis(300);

/// What calls came to.
struct Tally {
    calls: usize,
    failed: usize,
    /// Of all calls, in order.
    took: Vec<Duration>,
}

impl Tally {
    fn quantile(&self, quantile: f64) -> f64 {
        let index = ((self.took.len() - 1) as f64 * quantile).round() as usize;
        self.took[index].as_secs_f64() * 1e3
    }
}

/// What calls go through.
#[derive(Clone)]
pub(crate) enum Way {
    Ours(BalancedChannel),
    Tonics(Channel),
}

impl Way {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) => "waypost",
            Self::Tonics(_) => "tonic",
        }
    }

    /// Whether a call is served.
    pub(crate) async fn call(self) -> bool {
        let mut request = Request::new(GreetRequest::default());
        request.set_timeout(DEADLINE);
        match self {
            Self::Ours(channel) => GreeterClient::new(channel).greet(request).await.is_ok(),
            Self::Tonics(channel) => GreeterClient::new(channel).greet(request).await.is_ok(),
        }
    }
}

/// Makes calls at a steady rate until `end`, and shows what they came to.
pub(crate) async fn load(way: Way, end: impl Future) {
    let mut calls = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CALLS_A_SECOND);
    let mut end = pin!(end);
    loop {
        tokio::select! {
            _ = &mut end => break,
            _ = ticks.tick() => {}
        }
        let way = way.clone();
        calls.spawn(async move {
            let began = Instant::now();
            // A channel that never gets to its own timeout is given up as well.
            let served = tokio::time::timeout(DEADLINE * 2, way.call()).await;
            (served.unwrap_or(false), began.elapsed())
        });
    }
    let answers = calls.join_all().await;
    let failed = answers.iter().filter(|(served, _)| !served).count();
    let mut took: Vec<_> = answers.into_iter().map(|(_, took)| took).collect();
    took.sort_unstable();
    tell(way.name(), &Tally { calls: took.len(), failed, took });
}

fn tell(name: &str, tally: &Tally) {
    println!(
        "  {name:8} {:6} of {:6} calls failed ({:6.2} %)   p50 {:7.1} ms   p99 {:7.1} ms",
        tally.failed,
        tally.calls,
        tally.failed as f64 * 100.0 / tally.calls as f64,
        tally.quantile(0.5),
        tally.quantile(0.99)
    );
}
