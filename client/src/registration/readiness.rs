//! Whether an instance is ready, as its own process says it: which status that makes, and that the
//! registry hears of it. It must never say what is not true any more.

use std::{future, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::{spec::Update, state::UpdateError, updater::Updater};
use crate::{
    proto::{Instance, Status},
    runtime::{backoff::Backoff, clock},
};

/// What a process has said of its readiness.
#[derive(Debug, Default)]
struct Readiness {
    /// From its first `true` on.
    last: Option<bool>,
}

impl Readiness {
    /// The status that it makes, where that is news. Until the process is ready for the first time it
    /// is starting.
    fn status_for(&mut self, ready: bool) -> Option<Status> {
        let news = self.last.unwrap_or(false) != ready;
        if !news {
            return None;
        }
        self.last = Some(ready);
        Some(if ready { Status::Up } else { Status::Down })
    }
}

/// Passes on what `ready` says, until `stop`: then nothing of it is on its way any more.
pub(crate) async fn follow(
    updater: Updater,
    ready: impl Stream<Item = bool>,
    stop: CancellationToken,
) {
    let mut readiness = Readiness::default();
    let statuses = ready.filter_map(|ready| future::ready(readiness.status_for(ready)));
    let mut statuses = pin!(statuses);
    let mut next = stop.run_until_cancelled(statuses.next()).await.flatten();
    while let Some(status) = next {
        let superseded = stop.child_token();
        let mut pushing = pin!(push_until_accepted(&updater, status, &superseded));
        next = tokio::select! {
            biased;
            newer = stop.run_until_cancelled(statuses.next()) => {
                // After the last word, it is said to the end.
                if newer != Some(None) {
                    superseded.cancel();
                }
                pushing.await;
                newer.flatten()
            }
            () = &mut pushing => stop.run_until_cancelled(statuses.next()).await.flatten(),
        };
    }
}

/// Tells the registry until it holds the instance with `status`, or until there is something newer.
async fn push_until_accepted(updater: &Updater, status: Status, superseded: &CancellationToken) {
    let update = Update::new().status(status);
    // From here on, what is registered again has it.
    updater.set_desired(&update);
    let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));
    while let Some(Err(refused)) = updater.push(&update, superseded).await {
        if let UpdateError::Stopped = refused {
            return;
        }
        if backoff.is_fresh() {
            warn(&updater.shared.instance(), &refused);
        }
        let pause = clock::sleep(backoff.delay(0.5 + fastrand::f64() / 2.0, None));
        superseded.run_until_cancelled(pause).await;
    }
}

fn warn(instance: &Instance, refused: &UpdateError) {
    let Instance { namespace, service, id, .. } = instance;
    let what = "the registry is not told whether the instance is ready, trying again";
    tracing::warn!(namespace, service, instance = id, reason = %refused, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_starts_until_it_is_ready_and_is_down_when_it_is_not_any_more() {
        let mut readiness = Readiness::default();
        let words = [false, false, true, true, false, false, true];
        let statuses: Vec<_> = words.into_iter().map(|ready| readiness.status_for(ready)).collect();
        let (up, down) = (Some(Status::Up), Some(Status::Down));
        assert_eq!(statuses, [None, None, up, None, down, None, up]);
    }
}
