//! One watch: hears the bell, and tells what is new. It must never be silent for longer than a registry
//! may be.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{book::Book, state::Scope};
use crate::{
    proto::{Cursor, Idle, WatchRequest, WatchResponse, watch_response::Event},
    runtime::clock::{self, Instant},
};

/// The longest silence of a watch.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A watch that is open, and counted as such.
#[derive(Debug)]
pub(super) struct Telling {
    book: Arc<Book>,
    bell: watch::Receiver<()>,
    scope: Scope,
    position: Option<Cursor>,
    to_tell: VecDeque<WatchResponse>,
    /// When it last said something.
    told: Instant,
}

impl Telling {
    pub(super) fn begin(book: &Arc<Book>, request: WatchRequest) -> Self {
        book.alter(|state| state.watchers += 1);
        Self {
            book: Arc::clone(book),
            bell: book.bell(),
            scope: Scope::of(&request),
            position: request.resume,
            to_tell: VecDeque::new(),
            told: clock::now(),
        }
    }

    /// The next message. Cancel safe.
    pub(super) async fn next(&mut self) -> WatchResponse {
        loop {
            if let Some(message) = self.to_tell.pop_front() {
                self.told = clock::now();
                return message;
            }
            // Before the state is looked at: what changes from here on rings again.
            self.bell.mark_unchanged();
            let news = self.book.look(|state| state.tell(&self.scope, &mut self.position));
            self.to_tell.extend(news);
            if self.to_tell.is_empty() {
                self.wait().await;
            }
        }
    }

    /// Waits for the bell, or until there has to be a word.
    async fn wait(&mut self) {
        tokio::select! {
            biased;
            // It can't end: the book that rings it is held here.
            _ = self.bell.changed() => {}
            () = clock::sleep_until(self.told + SILENCE_MAX) => {
                let (cursor, event) = (self.position.clone(), Some(Event::Idle(Idle {})));
                self.to_tell.push_back(WatchResponse { cursor, event });
            }
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.book.alter(|state| state.watchers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::state::State;

    #[tokio::test(start_paused = true)]
    async fn a_quiet_watch_is_told_so_every_ten_seconds() {
        let book: Arc<Book> = Arc::default();
        let mut telling = Telling::begin(&book, WatchRequest::default());
        let began = clock::now();
        assert!(matches!(telling.next().await.event, Some(Event::Snapshot(_))));
        // However often others are served meanwhile.
        let busy = async {
            loop {
                clock::sleep(Duration::from_secs(3)).await;
                book.alter(|state| state.renew(&[]));
            }
        };
        let quiet = async {
            for quiet in 1..4 {
                let message = telling.next().await;
                assert_eq!(message.event, Some(Event::Idle(Idle {})));
                assert_eq!(message.cursor, Some(book.look(State::cursor)));
                assert_eq!(clock::now() - began, SILENCE_MAX * quiet);
            }
        };
        tokio::select! {
            () = quiet => {}
            () = busy => {}
        }
        assert_eq!(book.look(|state| state.watchers), 1);
        drop(telling);
        assert_eq!(book.look(|state| state.watchers), 0);
    }
}
