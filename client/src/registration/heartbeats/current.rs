//! The stream that a client's heartbeats use at present, if there is one.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tonic::Status;

use super::stream::{HeartbeatStream, StreamBreak, StreamPhase, lock};
use crate::registry::{RegistryLink, RequestFailure};

#[derive(Debug)]
pub(super) struct CurrentStream {
    pub(super) link: Arc<RegistryLink>,
    /// The one in use, unless it is broken.
    stream: Mutex<Option<Arc<HeartbeatStream>>>,
}

impl CurrentStream {
    pub(super) fn new(link: Arc<RegistryLink>) -> Arc<Self> {
        Arc::new(Self { link, stream: Mutex::default() })
    }

    /// Subscribes to the stream in use. Returns it, and whether it is a new one, which has to be opened.
    pub(super) fn attach(&self) -> Attached {
        let mut current = lock(&self.stream);
        let is_new = current.is_none();
        let stream = Arc::clone(current.get_or_insert_with(|| Arc::new(HeartbeatStream::new())));
        let phase = stream.phase.subscribe();
        Attached { stream, phase, is_new }
    }

    /// Ends `line` with what went wrong, unless it is broken already. All who live on it learn of it,
    /// and who joins from now on gets another one.
    pub(super) fn fail(&self, stream: &Arc<HeartbeatStream>, status: Status) {
        if stream.broken.is_cancelled() {
            return;
        }
        let peer = match stream.connection.get() {
            Some(connection) => {
                self.link.fail(connection);
                Arc::clone(&connection.peer)
            }
            None => Arc::default(),
        };
        self.close(stream, StreamBreak::failed(RequestFailure { peer, status }));
    }

    pub(super) fn close(&self, stream: &Arc<HeartbeatStream>, broken: StreamBreak) {
        lock(&self.stream).take_if(|current| Arc::ptr_eq(current, stream));
        stream.phase.send_if_modified(|phase| {
            let first = !matches!(phase, StreamPhase::Broken(_));
            if first {
                *phase = StreamPhase::Broken(broken);
            }
            first
        });
        stream.broken.cancel();
    }

    /// Waits until nobody sits on `line`, and retires it.
    pub(super) async fn wait_unused(&self, stream: &Arc<HeartbeatStream>) {
        loop {
            stream.phase.closed().await;
            let mut current = lock(&self.stream);
            // Nobody can join now; somebody may have before.
            if stream.phase.receiver_count() == 0 {
                current.take_if(|current| Arc::ptr_eq(current, stream));
                return;
            }
        }
    }
}

/// A stream, and a subscription to its phase.
pub(super) struct Attached {
    pub(super) stream: Arc<HeartbeatStream>,
    pub(super) phase: watch::Receiver<StreamPhase>,
    pub(super) is_new: bool,
}
