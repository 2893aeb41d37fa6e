//! The stream that a client's heartbeats use at present, if there is one.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tonic::Status;

use super::stream::{HeartbeatStream, StreamBreak, StreamPhase, lock};
use crate::registry::{RegistryLink, RequestFailure};

#[derive(Debug)]
pub(super) struct CurrentStream {
    pub(super) link: Arc<RegistryLink>,
    /// The stream in use, unless it has failed.
    stream: Mutex<Option<Arc<HeartbeatStream>>>,
}

impl CurrentStream {
    pub(super) fn new(link: Arc<RegistryLink>) -> Arc<Self> {
        Arc::new(Self { link, stream: Mutex::default() })
    }

    /// Subscribes to the stream in use, or to a new one, which the caller has to open.
    pub(super) fn attach(&self) -> Attached {
        let mut current = lock(&self.stream);
        let is_new = current.is_none();
        let stream = Arc::clone(current.get_or_insert_with(|| Arc::new(HeartbeatStream::new())));
        let phase = stream.phase.subscribe();
        Attached { stream, phase, is_new }
    }

    /// Fails a stream with `status`, unless it has failed already. All registrations on it are
    /// notified; new ones get another stream.
    pub(super) fn fail(&self, stream: &Arc<HeartbeatStream>, status: Status) {
        if stream.broken.is_cancelled() {
            return;
        }
        let failure = match stream.connection.get() {
            Some(connection) => {
                self.link.report_stream_failure(connection, &status);
                connection.failure(status)
            }
            None => RequestFailure { peer: Arc::default(), status, credentials_version: 0 },
        };
        self.close(stream, StreamBreak::failed(failure));
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

    /// Waits until no registration is on the stream, and retires it.
    pub(super) async fn wait_unused(&self, stream: &Arc<HeartbeatStream>) {
        loop {
            stream.phase.closed().await;
            let mut current = lock(&self.stream);
            // No registration can attach now; one may have before.
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
