//! Parallel attempts: a second instance gets the call while the first one is slow (a hedge, if
//! enabled) or silent. The first response counts, and the others are cancelled. Never makes more
//! attempts than the call has, nor any that the budget does not cover.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Response;
use tonic::body::Body;
use tower::retry::budget::Budget;

use super::{
    balanced::{BalancedChannel, FAR, Overlap},
    call::Call,
    connect::InstanceScope,
    failure::AttemptFailure,
    protocol::Protocol,
};
use crate::{
    channel::retry::silence_limit,
    runtime::clock::{self, Instant},
};

/// The result of an attempt, or a call.
type AttemptResult = Result<Response<Body>, AttemptFailure>;

impl<P: Protocol> BalancedChannel<P> {
    /// Runs a call to its result.
    pub(super) async fn run(&self, call: &Call) -> AttemptResult {
        self.budget.deposit();
        let mut first = pin!(self.dispatch(call, InstanceScope::Any));
        let mut race = ParallelAttempts::new(self, call);
        if race.is_possible() {
            call.buffer_available().await;
        }
        let Some(at) = race.next_wakeup(clock::now()) else { return first.await };
        let mut timer = pin!(clock::timer(at));
        poll_fn(|context| {
            loop {
                if let Poll::Ready(result) = race.poll(first.as_mut(), context) {
                    return Poll::Ready(result);
                }
                ready!(timer.as_mut().poll(context));
                let now = clock::now();
                if call.is_timed_out(now) {
                    return Poll::Ready(Err(AttemptFailure::TimedOut));
                }
                race.advance(now);
                let next = race.next_wakeup(now).unwrap_or(now + FAR);
                timer.as_mut().reset(next);
            }
        })
        .await
    }
}

/// The parallel attempts of a call.
struct ParallelAttempts<'a, P> {
    channel: &'a BalancedChannel<P>,
    call: &'a Call,
    /// The silence of an instance after which another one is tried; none if the call may not
    /// overlap.
    silence_limit: Option<Duration>,
    is_first_done: bool,
    others: Vec<Pin<Box<dyn Future<Output = AttemptResult> + Send + 'a>>>,
    /// The number of other attempts that were started.
    started: u32,
    /// The time before which no other attempt starts.
    not_before: Instant,
    /// The combined failure of the finished attempts.
    failure: Option<AttemptFailure>,
}

impl<'a, P: Protocol> ParallelAttempts<'a, P> {
    fn new(channel: &'a BalancedChannel<P>, call: &'a Call) -> Self {
        let options = &channel.options;
        let overlaps = options.attempts > 1 && options.overlap == Overlap::Allowed;
        let limit = call.limit().filter(|_| overlaps);
        let slowest = || channel.service.slowest_answer();
        let silence_limit = limit.map(|limit| silence_limit(limit, options.attempts, slowest()));
        Self {
            channel,
            call,
            silence_limit,
            is_first_done: false,
            others: Vec::new(),
            started: 0,
            not_before: call.began(),
            failure: None,
        }
    }

    fn is_possible(&self) -> bool {
        self.silence_limit.is_some() || self.channel.options.hedge_delay.is_some()
    }

    /// Returns the first response; or, once all attempts have failed, their failure.
    fn poll(
        &mut self,
        first: Pin<&mut impl Future<Output = AttemptResult>>,
        context: &mut Context<'_>,
    ) -> Poll<AttemptResult> {
        if !self.is_first_done
            && let Poll::Ready(attempted) = first.poll(context)
        {
            self.is_first_done = true;
            match attempted {
                Ok(response) => return Poll::Ready(Ok(response)),
                Err(failure) => self.fail(failure),
            }
        }
        let mut next = 0;
        while let Some(other) = self.others.get_mut(next) {
            match other.as_mut().poll(context) {
                Poll::Pending => next += 1,
                Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
                Poll::Ready(Err(failure)) => {
                    drop(self.others.swap_remove(next));
                    self.fail(failure);
                }
            }
        }
        match self.failure.take() {
            Some(failure) if self.is_first_done && self.others.is_empty() => {
                Poll::Ready(Err(failure))
            }
            failure => {
                self.failure = failure;
                Poll::Pending
            }
        }
    }

    fn fail(&mut self, failure: AttemptFailure) {
        self.failure = Some(match self.failure.take() {
            Some(before) => before.or_possibly_served(failure),
            None => failure,
        });
    }

    /// Returns the time of the next event: the call's deadline, or an attempt that is due.
    fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let due = self.due(now).map(|(at, _)| at.max(self.not_before));
        self.call.deadline(now).into_iter().chain(due).min()
    }

    /// Returns when another attempt is due, and the silence that it is due for; none if there is to
    /// be no other.
    fn due(&self, now: Instant) -> Option<(Instant, Duration)> {
        let options = &self.channel.options;
        if let Some(delay) = options.hedge_delay.filter(|_| self.started == 0) {
            return Some((self.call.quiet_since() + delay, delay));
        }
        let silence_limit = self.silence_limit?;
        let may = self.started + 1 < options.attempts && self.call.sent() < options.attempts;
        may.then(|| (self.call.silent_since(now) + silence_limit, silence_limit))
    }

    /// Starts another attempt if one is due.
    fn advance(&mut self, now: Instant) {
        let Some((at, delay)) = self.due(now) else { return };
        if at.max(self.not_before) > now {
            return;
        }
        self.not_before = now + delay.max(RECHECK_MIN);
        let Self { channel, call, .. } = *self;
        // Two parallel attempts need the whole body.
        if !call.is_buffered() || !channel.has_another(call) || !channel.budget.withdraw() {
            return;
        }
        channel.service.metrics().call_retried();
        if self.silence_limit.is_some_and(|silence_limit| delay >= silence_limit) {
            call.set_silence(delay);
        }
        self.started += 1;
        self.others.push(Box::pin(channel.dispatch(call, InstanceScope::Untried)));
    }
}

/// The shortest time between two searches for another instance.
const RECHECK_MIN: Duration = Duration::from_millis(1);
