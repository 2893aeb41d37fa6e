//! A call that was sent to an instance. Invariant: its endpoint records one outcome, or that the
//! call was abandoned. Never counts an act of the caller against the instance.

mod response;

use http::Response;
use tonic::{Code, Status, body::Body};

use self::response::{TrackedResponse, TrackedResponseBody, is_failure};
use crate::{
    balance::Pick,
    channel::{call::Call, failure::is_unavailable, http1::ResponseBody},
    endpoint::{Outcome, ResponseTime},
    runtime::clock::{self, Instant},
};

/// A timed-out call counts against an instance that had at least this part (a third) of its time.
const TIMEOUT_FRACTION: u32 = 3;

/// A sent call, until it gets a response or is abandoned.
pub(super) struct Attempt<'a> {
    /// Taken by the response.
    pick: Option<Pick>,
    call: &'a Call,
    began: Instant,
}

impl<'a> Attempt<'a> {
    pub(super) fn start(pick: Pick, call: &'a Call) -> Self {
        let began = clock::now();
        call.set_quiet_since(began);
        Self { pick: Some(pick), call, began }
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    fn end(mut self, now: Instant) -> (Pick, ResponseTime) {
        let took = self.took(now);
        (self.pick.take().expect("it is gone with the attempt alone"), took)
    }

    /// Returns the time since the instance has had all that the caller sent.
    fn took(&self, now: Instant) -> ResponseTime {
        let progress = self.call.progress();
        let took = now.saturating_duration_since(progress.latest_or(self.began));
        if progress.awaits_caller() {
            ResponseTime::Partial(took)
        } else {
            ResponseTime::Whole(took)
        }
    }

    pub(super) fn record_response(self, response: Response<ResponseBody>) -> Response<Body> {
        let request = self.call.source();
        let now = clock::now();
        let (pick, took) = self.end(now);
        pick.endpoint().record_response(now);
        // A response without a body has its status in the head.
        let failed = response.status().is_server_error()
            || is_unavailable(&response)
            || (is_failure(response.headers()) && !is_caller_timeout(&response, took));
        if failed {
            pick.endpoint().record(Outcome::Failure, took);
        }
        let call = TrackedResponse { pick, took: (!failed).then_some(took), request };
        response.map(|body| Body::new(TrackedResponseBody { body, call: Some(call) }))
    }

    pub(super) fn into_unsent(self) -> Pick {
        self.end(clock::now()).0
    }

    /// Records a call that was served, with a response that can't be passed on.
    pub(super) fn record_served(self) -> Pick {
        let now = clock::now();
        let (pick, took) = self.end(now);
        pick.endpoint().record_response(now);
        pick.endpoint().record(Outcome::Success, took);
        pick
    }

    /// Records a lost connection: the instance's failure, unless the caller's body broke off.
    pub(super) fn record_connection_lost(self) -> Pick {
        let is_callers = self.call.source().has_failed();
        let (pick, took) = self.end(clock::now());
        if !is_callers {
            pick.endpoint().record(Outcome::Failure, took);
        }
        pick
    }
}

/// Returns whether a server timed out a call whose caller was still sending.
fn is_caller_timeout<B>(response: &Response<B>, took: ResponseTime) -> bool {
    matches!(took, ResponseTime::Partial(_))
        && Status::from_header_map(response.headers())
            .is_some_and(|status| status.code() == Code::DeadlineExceeded)
}

impl Drop for Attempt<'_> {
    /// Records an abandoned call: it timed out, or its caller gave up.
    fn drop(&mut self) {
        let Some(pick) = &self.pick else { return };
        let now = clock::now();
        let ResponseTime::Whole(took) = self.took(now) else { return };
        let endpoint = pick.endpoint();
        let silence = endpoint.silence(now).map_or(took, |silence| silence.min(took));
        // An attempt with a small part of the call's time is no evidence.
        let was_late = || {
            self.call.is_timed_out(now)
                && took * TIMEOUT_FRACTION >= self.call.limit().unwrap_or_default()
        };
        if was_late() || self.call.is_overtaken(self.began, silence) {
            endpoint.record(Outcome::Failure, took);
        } else {
            endpoint.record_abandoned(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::Pin,
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use bytes::Bytes;
    use futures_util::stream;
    use http::Request;
    use http_body::{Body as _, Frame};
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        balance::PickContext,
        channel::{
            protocol::{Grpc, Http},
            timeout::CallTimeout,
        },
        proto::{Instance, Status::Up},
        service::Service,
    };

    type Feed = mpsc::Sender<Bytes>;

    /// Creates a call with a body from `Feed` and a timeout of 10 s.
    fn upload() -> (Call, Feed) {
        let (feed, mut fed) = mpsc::channel(8);
        let frames = stream::poll_fn(move |context| fed.poll_recv(context));
        let frames =
            futures_util::StreamExt::map(frames, |data| Ok::<_, Status>(Frame::data(data)));
        let mut request = Request::put("/").body(Body::new(StreamBody::new(frames))).unwrap();
        request.extensions_mut().insert(CallTimeout(Duration::from_secs(10)));
        (Call::new::<Http>(request, clock::now()), feed)
    }

    fn pick() -> Pick {
        let up = Instance { status: Up.into(), ..Instance::default() };
        Service::fixed([up]).pick(&PickContext::new()).unwrap()
    }

    /// Reads all that is available.
    fn take(body: &mut Body) {
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(_)) = Pin::new(&mut *body).poll_frame(&mut context) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_abandoned_during_its_upload_is_no_evidence() {
        let (call, feed) = upload();
        let pick = pick();
        let endpoint = std::sync::Arc::clone(pick.endpoint());
        let (request, _) = call.attempt::<Http>(clock::now()).unwrap();
        let mut body = request.into_body();
        let attempt = Attempt::start(pick, &call);
        for _ in 0..5 {
            feed.try_send(Bytes::from_static(b"piece")).unwrap();
            take(&mut body);
            clock::sleep(Duration::from_secs(7)).await;
        }
        assert_eq!(call.left(clock::now()), Some(Duration::from_secs(10)));
        drop(attempt);
        assert_eq!(endpoint.latency().nanos(1).to_bits(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn response_time_counts_from_the_end_of_the_upload() {
        for (seconds, given_up) in [(9, 9.0_f32), (11, 40.0)] {
            let (call, feed) = upload();
            let pick = pick();
            let endpoint = std::sync::Arc::clone(pick.endpoint());
            let (request, _) = call.attempt::<Http>(clock::now()).unwrap();
            let mut body = request.into_body();
            let attempt = Attempt::start(pick, &call);
            take(&mut body);
            clock::sleep(Duration::from_secs(60)).await;
            drop(feed);
            poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            clock::sleep(Duration::from_secs(seconds)).await;
            let left = Duration::from_secs(10_u64.saturating_sub(seconds));
            assert_eq!(call.left(clock::now()), Some(left));
            drop(attempt);
            // A failure counts for more, up to 10 s.
            let counted = endpoint.latency().nanos(1) / 1e9;
            assert!((counted - given_up.min(10.0)).abs() < 0.1, "{counted} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_during_the_upload_is_no_failure_of_the_instance() {
        for ends in [false, true] {
            let (call, feed) = upload();
            let mut request = call.attempt::<Http>(clock::now()).unwrap().0;
            request.headers_mut().insert("grpc-timeout", "10S".parse().unwrap());
            let call = Call::new::<Grpc>(request, clock::now());
            let pick = pick();
            let endpoint = std::sync::Arc::clone(pick.endpoint());
            let mut body = call.attempt::<Grpc>(clock::now()).unwrap().0.into_body();
            let attempt = Attempt::start(pick, &call);
            take(&mut body);
            clock::sleep(Duration::from_secs(5)).await;
            if ends {
                drop(feed);
                take(&mut body);
            }
            clock::sleep(Duration::from_secs(6)).await;
            assert!(call.is_timed_out(clock::now()), "it is absolute");
            drop(attempt);
            assert_eq!(endpoint.latency().nanos(1) > 0.0, ends);
        }
    }

    #[test]
    fn a_server_that_times_out_a_slow_caller_has_not_failed() {
        let response =
            |code: u32| Response::builder().header("grpc-status", code).body(()).unwrap();
        let (deadline_exceeded, internal) = (response(4), response(13));
        let took = Duration::from_secs(1);
        assert!(is_caller_timeout(&deadline_exceeded, ResponseTime::Partial(took)));
        assert!(!is_caller_timeout(&deadline_exceeded, ResponseTime::Whole(took)));
        assert!(!is_caller_timeout(&internal, ResponseTime::Partial(took)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_reads_nothing_times_out() {
        let (call, feed) = upload();
        let (request, _) = call.attempt::<Http>(clock::now()).unwrap();
        let mut body = request.into_body();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            feed.try_send(Bytes::from_static(b"piece")).unwrap();
        }
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
        clock::sleep(Duration::from_secs(8)).await;
        assert_eq!(call.left(clock::now()), Some(Duration::from_secs(2)));
    }
}
