//! Calls at a steady rate through a channel, and their outcomes.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::{Request, transport::Channel};
use waypost_client::BalancedChannel;

use crate::greeter::{GreetRequest, greeter_client::GreeterClient};

/// Calls started in a second, whatever the outcomes of earlier ones.
pub const CALLS_A_SECOND: u32 = 400;
/// Deadline of each call.
pub const DEADLINE: Duration = Duration::from_millis(300);

/// A channel under load.
#[derive(Clone, Debug)]
pub enum LoadedChannel {
    /// The channel of the client crate.
    Waypost(BalancedChannel),
    /// The channel of tonic, which this one is compared with.
    Tonic(Channel),
}

impl LoadedChannel {
    /// Returns the name that results are printed with.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waypost(_) => "waypost",
            Self::Tonic(_) => "tonic",
        }
    }

    /// Makes a call and returns whether it succeeds.
    pub async fn call(self) -> bool {
        let mut request = Request::new(GreetRequest::default());
        request.set_timeout(DEADLINE);
        match self {
            Self::Waypost(channel) => GreeterClient::new(channel).greet(request).await.is_ok(),
            Self::Tonic(channel) => GreeterClient::new(channel).greet(request).await.is_ok(),
        }
    }
}

/// Makes calls at a steady rate until `end` and prints how many failed and how long all took.
///
/// # Panics
/// If `end` comes before the first call.
pub async fn load(channel: LoadedChannel, end: impl Future) {
    let mut calls = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CALLS_A_SECOND);
    let mut end = pin!(end);
    loop {
        tokio::select! {
            _ = &mut end => break,
            _ = ticks.tick() => {}
        }
        let channel = channel.clone();
        calls.spawn(async move {
            let started = Instant::now();
            // A channel may not reach its own timeout.
            let succeeded = tokio::time::timeout(DEADLINE * 2, channel.call()).await;
            (succeeded.unwrap_or(false), started.elapsed())
        });
    }
    let outcomes = calls.join_all().await;
    let failed = outcomes.iter().filter(|(succeeded, _)| !succeeded).count();
    let mut times: Vec<_> = outcomes.into_iter().map(|(_, time)| time).collect();
    times.sort_unstable();
    println!(
        "  {:8} {failed:6} of {:6} calls failed ({:6.2} %)   p50 {:7.1} ms   p99 {:7.1} ms",
        channel.name(),
        times.len(),
        failed as f64 * 100.0 / times.len() as f64,
        quantile_ms(&times, 0.5),
        quantile_ms(&times, 0.99)
    );
}

fn quantile_ms(sorted: &[Duration], quantile: f64) -> f64 {
    let index = ((sorted.len() - 1) as f64 * quantile).round() as usize;
    sorted[index].as_secs_f64() * 1e3
}
