//! An open watch: waits for changes and converts them to messages, at least one every ten seconds.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::watch;
use tonic::Status;

use super::{shared::SharedState, state::WatchSubjects};
use crate::{
    proto::{Cursor, Idle, WatchRequest, WatchResponse, watch_response::Event},
    runtime::clock::{self, Instant},
};

/// The longest silence of a watch.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

/// An open watch, counted until it is dropped.
#[derive(Debug)]
pub(super) struct OpenWatch {
    shared: Arc<SharedState>,
    changed: watch::Receiver<()>,
    subjects: WatchSubjects,
    position: Option<Cursor>,
    messages: VecDeque<WatchResponse>,
    /// The time of the last message.
    sent_at: Instant,
}

impl OpenWatch {
    /// Opens a watch. Errors: `INVALID_ARGUMENT`.
    pub(super) fn open(shared: &Arc<SharedState>, request: WatchRequest) -> Result<Self, Status> {
        let subjects = shared.read(|state| state.subjects(&request))?;
        let mut position = request.resume;
        let changed = shared.subscribe();
        let mut messages = shared.read(|state| state.messages(&subjects, &mut position));
        if messages.is_empty() {
            // It resumed: confirm that at once.
            messages.push(idle(position.clone()));
        }
        shared.change(|state| state.watchers += 1);
        Ok(Self {
            shared: Arc::clone(shared),
            changed,
            subjects,
            position,
            messages: messages.into(),
            sent_at: clock::now(),
        })
    }

    /// Returns the next message. Cancel safe.
    pub(super) async fn next(&mut self) -> WatchResponse {
        loop {
            if let Some(message) = self.messages.pop_front() {
                self.sent_at = clock::now();
                return message;
            }
            // Before the state is read: a change from here on signals again.
            self.changed.mark_unchanged();
            let (subjects, position) = (&self.subjects, &mut self.position);
            let messages = self.shared.read(|state| state.messages(subjects, position));
            self.messages.extend(messages);
            if self.messages.is_empty() {
                self.wait().await;
            }
        }
    }

    /// Waits for a change, or until an idle message is due.
    async fn wait(&mut self) {
        tokio::select! {
            biased;
            // Never an error: the sender is held here.
            _ = self.changed.changed() => {}
            () = clock::sleep_until(self.sent_at + IDLE_INTERVAL) => {
                self.messages.push_back(idle(self.position.clone()));
            }
        }
    }
}

fn idle(cursor: Option<Cursor>) -> WatchResponse {
    WatchResponse { cursor, event: Some(Event::Idle(Idle {})) }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.shared.change(|state| state.watchers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::state::FakeState;

    #[tokio::test(start_paused = true)]
    async fn a_quiet_watch_sends_an_idle_message_every_ten_seconds() {
        let shared: Arc<SharedState> = Arc::default();
        let mut watch = OpenWatch::open(&shared, WatchRequest::default()).unwrap();
        let start = clock::now();
        assert!(matches!(watch.next().await.event, Some(Event::Snapshot(_))));
        // Other requests do not delay it.
        let busy = async {
            loop {
                clock::sleep(Duration::from_secs(3)).await;
                shared.change(|state| state.renew(&[]));
            }
        };
        let quiet = async {
            for quiet in 1..4 {
                let message = watch.next().await;
                assert_eq!(message.event, Some(Event::Idle(Idle {})));
                assert_eq!(message.cursor, Some(shared.read(FakeState::cursor)));
                assert_eq!(clock::now() - start, IDLE_INTERVAL * quiet);
            }
        };
        tokio::select! {
            () = quiet => {}
            () = busy => {}
        }
        assert_eq!(shared.read(|state| state.watchers), 1);
        drop(watch);
        assert_eq!(shared.read(|state| state.watchers), 0);
    }
}
