//! The calls of one connection of HTTP/2, run by the task that runs the connection. A call is short
//! and talks to nobody but its connection, so that a task of its own costs more than the call does:
//! here all that arrived together is answered together, in one write. It must never hold up the
//! connection: whatever waits, waits beside it.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_util::{
    StreamExt,
    stream::FuturesUnordered,
    task::{self, ArcWake, AtomicWaker},
};
use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::task::coop::has_budget_remaining;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a connection puts the calls that begin. Bounded as its streams are.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<State>);

#[derive(Default)]
struct State {
    /// Those that nobody has looked at.
    begun: Mutex<Vec<Call>>,
    again: AtomicBool,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.0.begun.lock().push(Box::pin(call));
    }
}

impl Calls {
    /// Has all calls looked at once more, also those that nothing woke. For the connection.
    pub(crate) fn look_again(&self) {
        self.0.again.store(true, Ordering::Relaxed);
    }

    /// Runs a connection that puts its calls here, and these, until the connection ends; calls that
    /// still run then have nobody to answer, and are dropped. Cancel safe.
    pub(crate) async fn run<T>(self, connection: impl Future<Output = T>) -> T {
        let mut connection = pin!(connection);
        let mut waiting = FuturesUnordered::new();
        let bell = Arc::new(Bell::default());
        let waker = task::waker(Arc::clone(&bell));
        poll_fn(move |context| {
            bell.attend(context.waker());
            let mut rounds = rounds_of(waiting.len());
            loop {
                let mut context_of_calls = Context::from_waker(&waker);
                while let Poll::Ready(Some(())) = waiting.poll_next_unpin(&mut context_of_calls) {}
                rounds = rounds.saturating_sub(1);
                let goes_on = rounds > 0 && has_budget_remaining();
                let unheard = bell.take();
                if unheard && goes_on {
                    continue;
                }
                // After the calls: what they answered goes out at once.
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    return Poll::Ready(ended);
                }
                if self.0.again.swap(false, Ordering::Relaxed) {
                    waiting = mem::take(&mut waiting).into_iter().collect();
                    continue;
                }
                let begun = mem::take(&mut *self.0.begun.lock());
                if begun.is_empty() {
                    if !bell.leave() && !unheard {
                        return Poll::Pending;
                    }
                    if !goes_on {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    bell.attend(context.waker());
                    continue;
                }
                // Most are answered at once. Nobody is woken for those that are not before they are
                // among those that wait, which polls them again.
                let mut context = Context::from_waker(Waker::noop());
                waiting.extend(begun.into_iter().filter_map(|mut call| {
                    call.as_mut().poll(&mut context).is_pending().then_some(call)
                }));
                rounds = rounds_of(waiting.len());
            }
        })
        .await
    }
}

/// In how many rounds all of so many calls are looked at: each looks at two of those that were woken at
/// least.
fn rounds_of(calls: usize) -> usize {
    calls / 2 + 2
}

/// Rung by calls that want to be looked at. Whoever looks at them hears it; where nobody does, the task
/// is woken. So calls that are woken by their connection, or by themselves, as a stream is by each message
/// that it sends, are looked at before the task ends its turn: their answers go out together.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    attended: AtomicBool,
    task: AtomicWaker,
}

impl Bell {
    fn attend(&self, task: &Waker) {
        self.task.register(task);
        self.attended.store(true, Ordering::SeqCst);
    }

    /// Whether it was rung since the last time.
    fn take(&self) -> bool {
        self.rung.swap(false, Ordering::SeqCst)
    }

    /// Ends the attendance; says whether it was rung before, and nobody heard.
    fn leave(&self) -> bool {
        self.attended.store(false, Ordering::SeqCst);
        self.take()
    }
}

impl ArcWake for Bell {
    fn wake_by_ref(bell: &Arc<Self>) {
        bell.rung.store(true, Ordering::SeqCst);
        if !bell.attended.load(Ordering::SeqCst) {
            bell.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::AtomicUsize,
    };

    use futures_util::FutureExt;
    use tokio::{sync::oneshot, task::yield_now};

    use super::*;

    #[tokio::test]
    async fn calls_are_answered_before_the_connection_is_looked_at_again() {
        let (calls, answered) = (Calls::default(), Arc::new(AtomicUsize::new(0)));
        let (begin, count) = (calls.clone(), Arc::clone(&answered));
        let mut polls = 0;
        let connection = poll_fn(move |_| {
            polls += 1;
            if polls == 1 {
                for _ in 0..3 {
                    let count = Arc::clone(&count);
                    begin.execute(async move {
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                }
                return Poll::Pending;
            }
            Poll::Ready(count.load(Ordering::Relaxed))
        });
        assert_eq!(calls.run(connection).now_or_never(), Some(3));
    }

    #[tokio::test]
    async fn a_call_that_waits_holds_up_nobody_and_wakes_its_connection() {
        let calls = Calls::default();
        let (ask, asked) = oneshot::channel::<()>();
        let (answer, mut answered) = oneshot::channel();
        calls.execute(pending());
        calls.execute(async move {
            asked.await.unwrap();
            answer.send(()).unwrap();
        });
        calls.execute(ready(()));
        let connection = async move {
            yield_now().await;
            ask.send(()).unwrap();
            (&mut answered).await.unwrap();
        };
        calls.run(connection).await;
    }

    #[tokio::test]
    async fn calls_that_nothing_woke_are_looked_at_when_their_connection_says_so() {
        let (calls, told) = (Calls::default(), Arc::new(AtomicBool::new(false)));
        let (heard, hears) = (Arc::new(AtomicBool::new(false)), Arc::clone(&told));
        let hear = Arc::clone(&heard);
        calls.execute(poll_fn(move |_| {
            hear.store(hears.load(Ordering::Relaxed), Ordering::Relaxed);
            if hears.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        }));
        let again = calls.clone();
        let connection = async {
            yield_now().await;
            told.store(true, Ordering::Relaxed);
            yield_now().await;
            assert!(!heard.load(Ordering::Relaxed));
            again.look_again();
            yield_now().await;
            assert!(heard.load(Ordering::Relaxed));
        };
        calls.run(connection).await;
    }

    #[tokio::test]
    async fn calls_that_wake_themselves_are_all_looked_at_before_the_connection_is() {
        let (calls, looks) = (Calls::default(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..40 {
            let looks = Arc::clone(&looks);
            calls.execute(poll_fn(move |context| {
                looks.fetch_add(1, Ordering::Relaxed);
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            }));
        }
        let mut seen = Vec::new();
        let connection = poll_fn(move |_| {
            seen.push(looks.load(Ordering::Relaxed));
            if seen.len() < 3 { Poll::Pending } else { Poll::Ready(mem::take(&mut seen)) }
        });
        let seen = calls.run(connection).await;
        // Once as they begin, and each once more as it waits.
        assert_eq!(seen[0], 0);
        assert!(seen[1] >= 80 && seen[2] > seen[1] && seen[2] < 400, "{seen:?}");
    }

    #[tokio::test]
    async fn calls_end_with_their_connection() {
        let calls = Calls::default();
        let held = Arc::new(());
        let holds = Arc::clone(&held);
        calls.execute(async move {
            pending::<()>().await;
            drop(holds);
        });
        calls.run(yield_now()).await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
