//! A caller: picks and calls without a pause, on a thread of its own, and records its view over
//! time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::time::interval;
use tonic::{Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use waypost_client::{BalancedChannel, Builder, PickContext, Service, Snapshot};

use crate::{
    chaos::replica::{Incarnation, SERVICE, life},
    support::client,
};

const PICK_INTERVAL: Duration = Duration::from_millis(2);
/// Picks at a time.
const PICKS: usize = 8;
const CALL_INTERVAL: Duration = Duration::from_millis(20);
/// The timeout of calls to a replica that does not respond.
const CALL_MAX: Duration = Duration::from_secs(1);
/// Calls that are under way at the same time.
const CALLS: usize = 2;

/// The record of a caller.
#[derive(Default)]
pub(crate) struct Record {
    /// The incarnations in the view.
    pub(crate) present: BTreeSet<Incarnation>,
    /// The incarnations that left the view, with their times.
    pub(crate) left: Vec<(Instant, Incarnation)>,
    /// The time of the latest pick of each.
    pub(crate) picked: BTreeMap<Incarnation, Instant>,
    pub(crate) picks: u64,
    /// Picks that failed, with the reason.
    pub(crate) picks_failed: Vec<String>,
    pub(crate) calls: u64,
    pub(crate) calls_failed: Vec<FailedCall>,
}

pub(crate) struct FailedCall {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) status: Status,
}

/// A caller at work. It ends with this value.
pub(crate) struct Caller {
    stop: Arc<AtomicBool>,
    pub(crate) record: Arc<Mutex<Record>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Caller {
    /// A caller whose client is that of the registry but for what is `set`.
    pub(crate) fn start(port_file: &Path, set: impl FnOnce(Builder) -> Builder) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let record = Arc::new(Mutex::new(Record::default()));
        let client = set(client(port_file)).build().expect("a client");
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&record));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let service = client.service(SERVICE);
                service.ready().await.expect("the service is followed");
                for _ in 0..CALLS {
                    tokio::spawn(call(service.channel(), Arc::clone(&noted)));
                }
                pick(&service, &noted, &stopped).await;
            });
        });
        Self { stop, record, thread: Some(thread) }
    }

    /// The members of its view.
    pub(crate) fn present(&self) -> BTreeSet<Incarnation> {
        self.record.lock().expect("no panic").present.clone()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "a caller panicked");
    }
}

async fn pick(service: &Service, record: &Mutex<Record>, stop: &AtomicBool) {
    let mut pace = interval(PICK_INTERVAL);
    let mut shown: Option<Arc<Snapshot>> = None;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let mut record = record.lock().expect("no panic");
        let snapshot = service.snapshot().expect("what was shown once stays");
        if shown.as_ref().is_none_or(|shown| !Arc::ptr_eq(shown, &snapshot)) {
            let present: BTreeSet<Incarnation> = snapshot.instances().map(life).collect();
            let now = Instant::now();
            let left: Vec<_> =
                record.present.difference(&present).map(|life| (now, *life)).collect();
            record.left.extend(left);
            record.present = present;
            shown = Some(snapshot);
        }
        for _ in 0..PICKS {
            match service.pick(&PickContext::new()) {
                Ok(pick) => {
                    record.picks += 1;
                    record.picked.insert(life(pick.instance()), Instant::now());
                }
                // Before the first replica the view is empty.
                Err(_) if record.picks == 0 => {}
                Err(error) => record.picks_failed.push(error.to_string()),
            }
        }
    }
}

async fn call(channel: BalancedChannel, record: Arc<Mutex<Record>>) {
    let mut health = HealthClient::new(channel);
    let mut pace = interval(CALL_INTERVAL);
    loop {
        pace.tick().await;
        let begun = Instant::now();
        let mut request = Request::new(HealthCheckRequest::default());
        request.set_timeout(CALL_MAX);
        let answer = health.check(request).await;
        let mut record = record.lock().expect("no panic");
        match answer {
            Ok(_) => record.calls += 1,
            // Before the first replica the view is empty.
            Err(_) if record.calls == 0 => {}
            Err(status) => {
                record.calls_failed.push(FailedCall { begun, ended: Instant::now(), status });
            }
        }
    }
}
