//! Maps the application's readiness stream to the instance's status, and keeps the registry up to
//! date. Never reports an outdated status.

use std::{future, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::{spec::Update, state::UpdateError, updater::Updater};
use crate::{
    proto::{Instance, Status},
    runtime::{backoff::Backoff, clock},
};

/// The readiness of the application.
#[derive(Debug, Default)]
struct Readiness {
    /// None before the first `true`.
    last: Option<bool>,
}

impl Readiness {
    /// Returns the status, if it changed. Until the application is ready for the first time, it is
    /// `STARTING`.
    fn status_for(&mut self, ready: bool) -> Option<Status> {
        let news = self.last.unwrap_or(false) != ready;
        if !news {
            return None;
        }
        self.last = Some(ready);
        Some(if ready { Status::Up } else { Status::Down })
    }
}

/// Sends the statuses that follow from `ready`, until `stop`: after it returns, none is on its way
/// any more.
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
                // When the stream has ended, the last status is still sent.
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

/// Sends `status` until the registry has confirmed it, or a newer one supersedes it.
async fn push_until_accepted(updater: &Updater, status: Status, superseded: &CancellationToken) {
    let update = Update::new().status(status);
    // From here on, a new registration has it, too.
    updater.set_desired(&update);
    let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));
    while let Some(Err(error)) = updater.push(&update, superseded).await {
        if let UpdateError::Stopped = error {
            return;
        }
        if backoff.is_fresh() {
            warn(&updater.shared.instance(), &error);
        }
        let pause = clock::sleep(backoff.delay(0.5 + fastrand::f64() / 2.0, None));
        superseded.run_until_cancelled(pause).await;
    }
}

fn warn(instance: &Instance, error: &UpdateError) {
    let Instance { namespace, service, id, .. } = instance;
    let what = "can't update the instance's readiness, retrying";
    tracing::warn!(namespace, service, instance = id, reason = %error, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_starting_until_it_is_ready_and_down_when_it_is_no_longer() {
        let mut readiness = Readiness::default();
        let values = [false, false, true, true, false, false, true];
        let statuses: Vec<_> =
            values.into_iter().map(|ready| readiness.status_for(ready)).collect();
        let (up, down) = (Some(Status::Up), Some(Status::Down));
        assert_eq!(statuses, [None, None, up, None, down, None, up]);
    }
}
