//! Attempts side by side: another one goes to another instance while the first one is slow (a hedge that
//! was asked for) or its instance is silent. The answer that comes first counts, and the others are
//! cancelled. Must not make more of them than the call has attempts, nor any that the budget does not pay
//! for.

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

/// What an attempt, or a call, came to.
type AttemptResult = Result<Response<Body>, AttemptFailure>;

impl<P: Protocol> BalancedChannel<P> {
    /// Sees a call through, for as long as its caller waits.
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
                if let Poll::Ready(answered) = race.poll(first.as_mut(), context) {
                    return Poll::Ready(answered);
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

/// The attempts of a call that are under way at once.
struct ParallelAttempts<'a, P> {
    channel: &'a BalancedChannel<P>,
    call: &'a Call,
    /// The silence of an instance after which another one is tried; none where the call may not overlap.
    silence_limit: Option<Duration>,
    is_first_done: bool,
    others: Vec<Pin<Box<dyn Future<Output = AttemptResult> + Send + 'a>>>,
    /// How many others there were.
    started: u32,
    /// No other is begun before.
    not_before: Instant,
    /// What those came to that are over.
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

    /// The first answer; or, once all attempts are over, how they failed.
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
                Ok(answer) => return Poll::Ready(Ok(answer)),
                Err(failure) => self.fail(failure),
            }
        }
        let mut next = 0;
        while let Some(other) = self.others.get_mut(next) {
            match other.as_mut().poll(context) {
                Poll::Pending => next += 1,
                Poll::Ready(Ok(answer)) => return Poll::Ready(Ok(answer)),
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

    /// When there is something to look after: the call's deadline, or an attempt that is due.
    fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let due = self.due(now).map(|(at, _)| at.max(self.not_before));
        self.call.deadline(now).into_iter().chain(due).min()
    }

    /// When another attempt is due, and how long the ones before may be silent; none where there is to be
    /// no other.
    fn due(&self, now: Instant) -> Option<(Instant, Duration)> {
        let options = &self.channel.options;
        if let Some(delay) = options.hedge_delay.filter(|_| self.started == 0) {
            return Some((self.call.quiet_since() + delay, delay));
        }
        let silence_limit = self.silence_limit?;
        let may = self.started + 1 < options.attempts && self.call.sent() < options.attempts;
        may.then(|| (self.call.silent_since(now) + silence_limit, silence_limit))
    }

    /// Begins another attempt where one is due.
    fn advance(&mut self, now: Instant) {
        let Some((at, delay)) = self.due(now) else { return };
        if at.max(self.not_before) > now {
            return;
        }
        self.not_before = now + delay.max(RECHECK_MIN);
        let Self { channel, call, .. } = *self;
        // Two at once both need all of the body.
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

/// The shortest time between two looks for an instance that there may not be.
const RECHECK_MIN: Duration = Duration::from_millis(1);
