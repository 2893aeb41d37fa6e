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
    connect::Scope,
    failure::Failure,
    protocol::Protocol,
};
use crate::{
    channel::retry::patience,
    runtime::clock::{self, Instant},
};

/// What an attempt, or a call, came to.
type Attempted = Result<Response<Body>, Failure>;

impl<P: Protocol> BalancedChannel<P> {
    /// Sees a call through, for as long as its caller waits.
    pub(super) async fn run(&self, call: &Call) -> Attempted {
        self.budget.deposit();
        let mut first = pin!(self.dispatch(call, Scope::All));
        let mut race = Race::new(self, call);
        if race.is_possible() {
            call.take_in().await;
        }
        let Some(at) = race.next_look(clock::now()) else { return first.await };
        let mut timer = pin!(clock::timer(at));
        poll_fn(|context| {
            loop {
                if let Poll::Ready(answered) = race.poll(first.as_mut(), context) {
                    return Poll::Ready(answered);
                }
                ready!(timer.as_mut().poll(context));
                let now = clock::now();
                if call.is_late(now) {
                    return Poll::Ready(Err(Failure::Late));
                }
                race.advance(now);
                let next = race.next_look(now).unwrap_or(now + FAR);
                timer.as_mut().reset(next);
            }
        })
        .await
    }
}

/// The attempts of a call that are under way at once.
struct Race<'a, P> {
    channel: &'a BalancedChannel<P>,
    call: &'a Call,
    /// The silence of an instance after which another one is tried; none where the call may not overlap.
    patience: Option<Duration>,
    is_first_over: bool,
    others: Vec<Pin<Box<dyn Future<Output = Attempted> + Send + 'a>>>,
    /// How many others there were.
    begun: u32,
    /// No other is begun before.
    not_before: Instant,
    /// What those came to that are over.
    failure: Option<Failure>,
}

impl<'a, P: Protocol> Race<'a, P> {
    fn new(channel: &'a BalancedChannel<P>, call: &'a Call) -> Self {
        let options = &channel.options;
        let overlaps = options.attempts > 1 && options.overlap == Overlap::Allowed;
        let limit = call.limit().filter(|_| overlaps);
        let slowest = || channel.service.slowest_answer();
        let patience = limit.map(|limit| patience(limit, options.attempts, slowest()));
        Self {
            channel,
            call,
            patience,
            is_first_over: false,
            others: Vec::new(),
            begun: 0,
            not_before: call.began(),
            failure: None,
        }
    }

    fn is_possible(&self) -> bool {
        self.patience.is_some() || self.channel.options.hedge_delay.is_some()
    }

    /// The first answer; or, once all attempts are over, how they failed.
    fn poll(
        &mut self,
        first: Pin<&mut impl Future<Output = Attempted>>,
        context: &mut Context<'_>,
    ) -> Poll<Attempted> {
        if !self.is_first_over
            && let Poll::Ready(attempted) = first.poll(context)
        {
            self.is_first_over = true;
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
            Some(failure) if self.is_first_over && self.others.is_empty() => {
                Poll::Ready(Err(failure))
            }
            failure => {
                self.failure = failure;
                Poll::Pending
            }
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure = Some(match self.failure.take() {
            Some(before) => before.or(failure),
            None => failure,
        });
    }

    /// When there is something to look after: the call's deadline, or an attempt that is due.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let due = self.due(now).map(|(at, _)| at.max(self.not_before));
        self.call.deadline(now).into_iter().chain(due).min()
    }

    /// When another attempt is due, and how long the ones before may be silent; none where there is to be
    /// no other.
    fn due(&self, now: Instant) -> Option<(Instant, Duration)> {
        let options = &self.channel.options;
        if let Some(delay) = options.hedge_delay.filter(|_| self.begun == 0) {
            return Some((self.call.quiet_since() + delay, delay));
        }
        let patience = self.patience?;
        let may = self.begun + 1 < options.attempts && self.call.sent() < options.attempts;
        may.then(|| (self.call.silent_since(now) + patience, patience))
    }

    /// Begins another attempt where one is due.
    fn advance(&mut self, now: Instant) {
        let Some((at, delay)) = self.due(now) else { return };
        if at.max(self.not_before) > now {
            return;
        }
        self.not_before = now + delay.max(LOOK_MIN);
        let Self { channel, call, .. } = *self;
        // Two at once both need all of the body.
        if !call.is_at_hand() || !channel.has_another(call) || !channel.budget.withdraw() {
            return;
        }
        channel.service.metrics().call_retried();
        if self.patience.is_some_and(|patience| delay >= patience) {
            call.note_silence(delay);
        }
        self.begun += 1;
        self.others.push(Box::pin(channel.dispatch(call, Scope::Others)));
    }
}

/// The shortest time between two looks for an instance that there may not be.
const LOOK_MIN: Duration = Duration::from_millis(1);
