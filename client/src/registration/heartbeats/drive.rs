//! The task of a stream: opens it, sends what is due, and passes on the responses.

use std::{collections::HashSet, future, sync::Arc};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    current::CurrentStream,
    stream::{HeartbeatStream, PendingHeartbeat, Renewal, StreamBreak, StreamPhase},
};
use crate::{
    proto::{KeepAliveRequest, KeepAliveResponse, registry_client::RegistryClient},
    registry::{REQUEST_TIMEOUT, RegistryConnection, RegistryLink, RequestFailure},
    runtime::{
        clock::{self, Instant},
        tasks,
    },
};

/// What a line's task works with.
pub(super) struct StreamTask {
    pub(super) current: Arc<CurrentStream>,
    pub(super) stream: Arc<HeartbeatStream>,
}

impl StreamTask {
    /// Opens a stream and carries heartbeats over it until it breaks, or until nobody needs it.
    pub(super) async fn run(self) {
        let Self { current, stream } = &self;
        tokio::select! {
            biased;
            () = self.connect_and_drive() => {}
            () = stream.broken.cancelled() => {}
            () = current.wait_unused(stream) => {}
        }
    }

    async fn connect_and_drive(&self) {
        let Self { current, stream } = self;
        // From before an address is chosen: of a return after that it is told.
        let failbacks = current.link.failbacks();
        let connection = match current.link.connect().await {
            Ok(connection) => stream.connection.get_or_init(|| connection),
            Err(failure) => return current.close(stream, StreamBreak::failed(failure)),
        };
        stream.advance(StreamPhase::Opening);
        match Box::pin(drive(&current.link, connection, stream, failbacks)).await {
            DriveEnd::Failed(status) => current.fail(stream, status),
            DriveEnd::Failback(bidi) => {
                current.close(stream, StreamBreak::Moved);
                // Until all have renewed elsewhere: the end of this one is not to be theirs.
                tasks::spawn("heartbeats before", async move {
                    clock::sleep(REQUEST_TIMEOUT).await;
                    drop(bidi);
                });
            }
        }
    }
}

/// However it ends, with its runtime, say: nobody goes on living on it.
impl Drop for StreamTask {
    fn drop(&mut self) {
        let peer = Arc::default();
        let status = Status::unavailable("the stream has ended with its runtime");
        self.current.close(&self.stream, StreamBreak::failed(RequestFailure { peer, status }));
    }
}

/// Both directions of a stream, which ends with them.
type BidiStream = (mpsc::Sender<KeepAliveRequest>, Streaming<KeepAliveResponse>);

/// Why heartbeats don't go over a stream any more.
enum DriveEnd {
    Failed(Status),
    /// They return to the first registry.
    Failback(Box<BidiStream>),
}

/// What comes after an answer.
enum StreamEvent {
    Pending(Vec<PendingHeartbeat>),
    Failed(Status),
    Failback,
}

/// Sends what is due and hears the answers, one message at a time: what comes to be due while one is on
/// its way goes out with the next.
async fn drive(
    link: &RegistryLink,
    connection: &RegistryConnection,
    stream: &HeartbeatStream,
    mut failbacks: watch::Receiver<u64>,
) -> DriveEnd {
    let (requests, outgoing) = mpsc::channel(1);
    let mut sent = stream.take_pending();
    // Not lost where the registry answers the stream's head only after the first request.
    requests.try_send(request(&sent)).expect("a new channel has room");
    let mut registry = RegistryClient::new(connection.transport.clone());
    let mut responses = match registry.keep_alive(ReceiverStream::new(outgoing)).await {
        Ok(responses) => responses.into_inner(),
        Err(status) => return DriveEnd::Failed(status),
    };
    stream.advance(StreamPhase::Open);
    let mut move_at = None;
    loop {
        match receive(&mut responses).await {
            Ok(response) => dispatch_results(sent, response),
            Err(status) => return DriveEnd::Failed(status),
        }
        link.mark_connected(connection);
        let coming = async {
            loop {
                tokio::select! {
                    biased;
                    status = wait_end(&mut responses) => return StreamEvent::Failed(status),
                    due = stream.next_pending() => return StreamEvent::Pending(due),
                    Ok(()) = failbacks.changed(), if !connection.is_primary() => {
                        move_at = Some(clock::now() + link.failback_delay(fastrand::f64()));
                    }
                    () = sleep_until_some(move_at) => return StreamEvent::Failback,
                }
            }
        };
        sent = match coming.await {
            StreamEvent::Pending(due) => due,
            StreamEvent::Failed(status) => return DriveEnd::Failed(status),
            StreamEvent::Failback => return DriveEnd::Failback(Box::new((requests, responses))),
        };
        // The one before was answered, so there is room unless the stream is gone.
        if requests.try_send(request(&sent)).is_err() {
            return DriveEnd::Failed(Status::unavailable("the stream takes no heartbeat"));
        }
    }
}

/// Waits until then; for ever where there is no such time.
async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => clock::sleep_until(at).await,
        None => future::pending().await,
    }
}

fn request(due: &[PendingHeartbeat]) -> KeepAliveRequest {
    KeepAliveRequest { lease_ids: due.iter().map(|due| due.lease_id).collect() }
}

/// Tells each what its heartbeat came to.
fn dispatch_results(sent: Vec<PendingHeartbeat>, response: KeepAliveResponse) {
    let unknown: HashSet<u64> = response.unknown_lease_ids.into_iter().collect();
    for PendingHeartbeat { lease_id, result } in sent {
        let renewal = if unknown.contains(&lease_id) { Renewal::Unknown } else { Renewal::Renewed };
        // Nobody waits for it who has left meanwhile.
        let _ = result.send(renewal);
    }
}

async fn receive(
    responses: &mut Streaming<KeepAliveResponse>,
) -> Result<KeepAliveResponse, Status> {
    let ended = || Status::unavailable("the registry ended the stream");
    responses.message().await?.ok_or_else(ended)
}

/// Waits until the stream ends. What nobody asked for is passed over. Cancel safe.
async fn wait_end(responses: &mut Streaming<KeepAliveResponse>) -> Status {
    loop {
        if let Err(status) = receive(responses).await {
            return status;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn each_is_told_what_its_own_heartbeat_came_to() {
        let (result, known) = oneshot::channel();
        let (other, unknown) = oneshot::channel();
        let sent = vec![
            PendingHeartbeat { lease_id: 1, result },
            PendingHeartbeat { lease_id: 2, result: other },
        ];
        dispatch_results(sent, KeepAliveResponse { unknown_lease_ids: vec![2, 7] });
        assert_eq!(known.await.unwrap(), Renewal::Renewed);
        assert_eq!(unknown.await.unwrap(), Renewal::Unknown);
    }
}
