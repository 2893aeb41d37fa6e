//! Calls at a steady rate, and what they came to.

use std::time::{Duration, Instant};

use http::{Request as HttpRequest, Response as HttpResponse};
use tokio::task::JoinSet;
use tonic::{Request, body::Body, client::GrpcService};

use crate::greeter::{GreetRequest, greeter_client::GreeterClient};

/// Calls begin at this rate, whatever became of those before.
pub(crate) const CALLS_A_SECOND: u32 = 400;
/// Each gives up after this.
pub(crate) const DEADLINE: Duration = Duration::from_millis(300);

/// What calls came to.
pub(crate) struct Tally {
    pub(crate) calls: usize,
    pub(crate) failed: usize,
    /// Of all calls, in order.
    took: Vec<Duration>,
}

impl Tally {
    fn quantile(&self, quantile: f64) -> f64 {
        let index = ((self.took.len() - 1) as f64 * quantile).round() as usize;
        self.took[index].as_secs_f64() * 1e3
    }
}

/// Makes calls at a steady rate.
pub(crate) async fn load<C>(channel: C, length: Duration) -> Tally
where
    C: GrpcService<Body> + Clone + Send + 'static,
    C: tower::Service<HttpRequest<Body>, Response = HttpResponse<C::ResponseBody>>,
    <C as GrpcService<Body>>::Future: Send,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut calls = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CALLS_A_SECOND);
    let began = Instant::now();
    while began.elapsed() < length {
        ticks.tick().await;
        let mut client = GreeterClient::new(channel.clone());
        calls.spawn(async move {
            let mut request = Request::new(GreetRequest::default());
            request.set_timeout(DEADLINE);
            let began = Instant::now();
            // A channel that never gets to its own timeout is given up as well.
            let answer = tokio::time::timeout(DEADLINE * 2, client.greet(request)).await;
            (matches!(answer, Ok(Ok(_))), began.elapsed())
        });
    }
    let answers = calls.join_all().await;
    let failed = answers.iter().filter(|(served, _)| !served).count();
    let mut took: Vec<_> = answers.into_iter().map(|(_, took)| took).collect();
    took.sort_unstable();
    Tally { calls: took.len(), failed, took }
}

/// Shows a tally.
pub(crate) fn tell(name: &str, tally: &Tally) {
    println!(
        "  {name:8} {:6} of {:6} calls failed ({:6.2} %)   p50 {:7.1} ms   p99 {:7.1} ms",
        tally.failed,
        tally.calls,
        tally.failed as f64 * 100.0 / tally.calls as f64,
        tally.quantile(0.5),
        tally.quantile(0.99)
    );
}
