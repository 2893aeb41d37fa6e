//! The task of a stream: opens it, sends pending heartbeats, and distributes the responses.

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

/// The state of the task.
pub(super) struct StreamTask {
    pub(super) current: Arc<CurrentStream>,
    pub(super) stream: Arc<HeartbeatStream>,
}

impl StreamTask {
    /// Opens the stream and drives it until it fails or is unused.
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
        // Subscribed before an address is chosen, so that no move after that is missed.
        let moves = current.link.moves();
        let connection = match current.link.connect().await {
            Ok(connection) => stream.connection.get_or_init(|| connection),
            Err(failure) => return current.close(stream, StreamBreak::failed(failure)),
        };
        stream.advance(StreamPhase::Opening);
        match Box::pin(drive(&current.link, connection, stream, moves)).await {
            DriveEnd::Failed(status) => current.fail(stream, status),
            DriveEnd::Moved(bidi) => {
                current.close(stream, StreamBreak::Moved);
                // Until all have renewed over another stream: the registry must not take the end of
                // this one for theirs.
                tasks::spawn("heartbeats before", async move {
                    clock::sleep(REQUEST_TIMEOUT).await;
                    drop(bidi);
                });
            }
        }
    }
}

/// However the task ends, with its runtime for example: registrations must not wait for it.
impl Drop for StreamTask {
    fn drop(&mut self) {
        let peer = Arc::default();
        let status = Status::unavailable("the stream has ended with its runtime");
        let failure = RequestFailure { peer, status, credentials_version: 0 };
        self.current.close(&self.stream, StreamBreak::failed(failure));
    }
}

/// Both directions of a stream, which end when they are dropped.
type BidiStream = (mpsc::Sender<KeepAliveRequest>, Streaming<KeepAliveResponse>);

/// The end of a stream.
enum DriveEnd {
    Failed(Status),
    /// Heartbeats move to another connection.
    Moved(Box<BidiStream>),
}

/// The next event after a response.
enum StreamEvent {
    Pending(Vec<PendingHeartbeat>),
    Failed(Status),
    Move,
}

/// Sends pending heartbeats and receives the responses, one message at a time: heartbeats that
/// become due meanwhile go out with the next message.
async fn drive(
    link: &RegistryLink,
    connection: &RegistryConnection,
    stream: &HeartbeatStream,
    mut moves: watch::Receiver<u64>,
) -> DriveEnd {
    let (requests, outgoing) = mpsc::channel(1);
    let mut sent = stream.take_pending();
    // Before the call, because the registry may send the response's head only after the first
    // request.
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
                    Ok(()) = moves.changed() => {
                        let delay = link.move_delay(connection, fastrand::f64());
                        let at = delay.map(|delay| clock::now() + delay.of_heartbeats());
                        move_at = at.or(move_at);
                    }
                    () = sleep_until_some(move_at) => return StreamEvent::Move,
                }
            }
        };
        sent = match coming.await {
            StreamEvent::Pending(due) => due,
            StreamEvent::Failed(status) => return DriveEnd::Failed(status),
            StreamEvent::Move => return DriveEnd::Moved(Box::new((requests, responses))),
        };
        // The previous request was answered, so there is room unless the stream has ended.
        if requests.try_send(request(&sent)).is_err() {
            return DriveEnd::Failed(Status::unavailable("the stream accepts no heartbeat"));
        }
    }
}

/// Waits until `at`; forever if there is none.
async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => clock::sleep_until(at).await,
        None => future::pending().await,
    }
}

fn request(due: &[PendingHeartbeat]) -> KeepAliveRequest {
    KeepAliveRequest { lease_ids: due.iter().map(|due| due.lease_id).collect() }
}

/// Sends each registration the result of its heartbeat.
fn dispatch_results(sent: Vec<PendingHeartbeat>, response: KeepAliveResponse) {
    let unknown: HashSet<u64> = response.unknown_lease_ids.into_iter().collect();
    for PendingHeartbeat { lease_id, result } in sent {
        let renewal = if unknown.contains(&lease_id) { Renewal::Unknown } else { Renewal::Renewed };
        // The registration may be gone.
        let _ = result.send(renewal);
    }
}

async fn receive(
    responses: &mut Streaming<KeepAliveResponse>,
) -> Result<KeepAliveResponse, Status> {
    let ended = || Status::unavailable("the registry ended the stream");
    responses.message().await?.ok_or_else(ended)
}

/// Waits until the stream ends. Ignores unexpected responses. Cancel safe.
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
    async fn each_registration_gets_the_result_of_its_own_heartbeat() {
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
