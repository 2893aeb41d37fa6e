//! The heartbeats of all registrations of a client. Those that are due go out together, over one
//! stream. Decides no times: when a heartbeat is due, how long its response may take and when to
//! reconnect is up to each lease.

mod current;
mod drive;
mod stream;

use std::{sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};
use tonic::Status;

pub(crate) use self::stream::{Renewal, StreamBreak};
use self::{
    current::{Attached, CurrentStream},
    drive::StreamTask,
    stream::{HeartbeatStream, PendingHeartbeat, StreamPhase, broken, lock},
};
use crate::{
    registry::{REQUEST_TIMEOUT, RegistryLink},
    runtime::{clock, tasks},
};

/// Sends the heartbeats of a client. Opens a stream for the first registration; closes it with the
/// last.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeats {
    current: Arc<CurrentStream>,
}

/// A registration's subscription to a stream. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct StreamHandle {
    current: Arc<CurrentStream>,
    stream: Arc<HeartbeatStream>,
    phase: watch::Receiver<StreamPhase>,
    /// The response of the heartbeat that was not answered yet.
    response: Option<oneshot::Receiver<Renewal>>,
}

impl Heartbeats {
    pub(crate) fn new(link: Arc<RegistryLink>) -> Self {
        Self { current: CurrentStream::new(link) }
    }

    /// Attaches to the stream in use, or opens one. The heartbeat of `lease_id` goes out as soon as
    /// possible.
    pub(crate) fn join(&self, lease_id: u64) -> StreamHandle {
        let Attached { stream, phase, is_new } = self.current.attach();
        if is_new {
            // Created here: it fails the stream even if the runtime never runs the task.
            let task =
                StreamTask { current: Arc::clone(&self.current), stream: Arc::clone(&stream) };
            tasks::spawn("heartbeats", task.run());
        }
        let current = Arc::clone(&self.current);
        let mut handle = StreamHandle { current, stream, phase, response: None };
        handle.send(lease_id);
        handle
    }
}

impl StreamHandle {
    /// Waits until the stream is open. `limit` is for the registry's response: a registry that
    /// accepts a connection and does not respond fails the stream, for all. Cancel safe.
    pub(crate) async fn wait_open(&mut self, limit: Duration) -> Result<(), StreamBreak> {
        let connected = self.wait_phase(|phase| !matches!(phase, StreamPhase::Connecting));
        if clock::within(REQUEST_TIMEOUT, connected).await.is_none() {
            return Err(self.fail_timed_out());
        }
        let wait_open =
            self.wait_phase(|phase| matches!(phase, StreamPhase::Open | StreamPhase::Broken(_)));
        match clock::within(limit, wait_open).await {
            Some(StreamPhase::Broken(broken)) => Err(broken),
            Some(_) => Ok(()),
            None => Err(self.fail_timed_out()),
        }
    }

    /// Queues the heartbeat of `lease_id`, to be sent with all others that are due by then.
    pub(crate) fn send(&mut self, lease_id: u64) {
        let (result, response) = oneshot::channel();
        self.response = Some(response);
        lock(&self.stream.pending).push(PendingHeartbeat { lease_id, result });
        self.stream.added.notify_one();
    }

    /// Waits for the result of the heartbeat or the failure of the stream. Cancel safe.
    pub(crate) async fn result(&mut self) -> Result<Renewal, StreamBreak> {
        let response = async {
            let renewal = self.response.as_mut()?.await.ok();
            // Received once, even if the stream has ended and this is called again.
            self.response = None;
            renewal
        };
        tokio::select! {
            biased;
            Some(renewal) = response => Ok(renewal),
            broken = broken(&self.stream) => Err(broken),
        }
    }

    /// Fails the stream, for all registrations on it: no response came in time.
    pub(crate) fn fail_timed_out(&mut self) -> StreamBreak {
        self.current.fail(&self.stream, Status::deadline_exceeded("no response in time"));
        self.stream.break_reason().expect("it has failed now")
    }

    async fn wait_phase(&mut self, wanted: impl FnMut(&StreamPhase) -> bool) -> StreamPhase {
        let phase = self.phase.wait_for(wanted).await;
        phase.expect("the handle holds the stream, which holds the sender").clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use http::Uri;

    use super::*;
    use crate::{
        registry::AddressDialer,
        runtime::backoff::Backoff,
        transport::{Connector, Dialer},
    };

    /// Heartbeats to a registry that refuses connections, and the number of attempts.
    fn refused() -> (Heartbeats, Arc<AtomicUsize>) {
        let attempts = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&attempts);
        let connector = Connector::new(tower::service_fn(move |_: Uri| {
            count.fetch_add(1, Ordering::Relaxed);
            async {
                let refused: Result<hyper_util::rt::TokioIo<tokio::net::TcpStream>, _> =
                    Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                refused
            }
        }));
        let dialer = Dialer { connector, ..Dialer::default() };
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let address = Uri::from_static("http://registry:7510");
        (
            Heartbeats::new(RegistryLink::new(
                vec![AddressDialer { uri: address, dialer }],
                None,
                backoff,
                Duration::from_secs(15),
            )),
            attempts,
        )
    }

    #[tokio::test]
    async fn registrations_that_fail_together_reconnect_together() {
        let (heartbeats, attempts) = refused();
        for attempt in 1..4 {
            let mut handles: Vec<StreamHandle> =
                (1..=100).map(|lease_id| heartbeats.join(lease_id)).collect();
            let mut randoms = Vec::new();
            for handle in &mut handles {
                let broken = handle.wait_open(Duration::from_secs(5)).await.unwrap_err();
                let StreamBreak::Failed { failure, random } = broken else { panic!("it broke") };
                assert_eq!(&*failure.peer, "registry:7510");
                randoms.push(random);
            }
            randoms.dedup();
            assert_eq!((randoms.len(), attempts.load(Ordering::Relaxed)), (1, attempt));
        }
    }
}
