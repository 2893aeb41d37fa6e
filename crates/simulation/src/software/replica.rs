//! A process that keeps an instance registered with the real client.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::AbortHandle,
};
use waypost_client::{Client, Registration, RegistrationState, Update, UpdateError, proto::Status};

use crate::{
    journal::Identity,
    network::socket::Process,
    time::{HostClock, Millis},
};

/// The terms of a lease.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTerms {
    pub ttl_ms: Millis,
    pub grace_ms: Millis,
}

/// The content of an instance, as far as it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub status: Status,
    pub weight: u32,
    pub zone: String,
    pub note: String,
}

enum Order {
    /// With its number, and the content after it.
    Update(Update, u64, Content),
    Close,
}

/// The state of a process.
#[derive(Debug, Default)]
struct Report {
    state: Option<watch::Receiver<RegistrationState>>,
    /// The time of the deregistration, and whether a response came.
    left: Option<(Millis, bool)>,
    refused: Option<String>,
    /// The number of the last update that was refused, and the content that the client keeps.
    undone: Option<(u64, Content)>,
}

/// A process.
pub struct Replica {
    pub identity: Identity,
    pub(crate) node: usize,
    /// The time of its start.
    pub(crate) born_at: Millis,
    /// The latest content that it registers.
    pub(crate) content: Content,
    /// True once it shall deregister.
    pub(crate) leaving: bool,
    /// The leases that it had, the present one last.
    pub leases: Vec<u64>,
    process: Process,
    /// The number of updates.
    updates: u64,
    orders: mpsc::Sender<Order>,
    task: AbortHandle,
    report: Arc<Mutex<Report>>,
}

impl Replica {
    /// Starts one on a node.
    pub(crate) fn start(
        (runtime, clock): (&Handle, HostClock),
        identity: Identity,
        node: usize,
        terms: LeaseTerms,
        content: Content,
        process: Process,
    ) -> Self {
        let client =
            process.client().namespace(&identity.namespace).build().expect("the URL is good");
        let registration = Registration::new(&identity.service, "10.0.0.1", 80)
            .id(&identity.id)
            .ttl(Duration::from_millis(terms.ttl_ms))
            .disconnect_grace(Duration::from_millis(terms.grace_ms))
            .status(content.status)
            .weight(content.weight)
            .zone(&content.zone)
            .metadata("note", &content.note);
        let report = Arc::new(Mutex::new(Report::default()));
        let (orders, received) = mpsc::channel(64);
        let born_at = clock.now();
        let task = runtime.spawn(live(
            client,
            registration,
            content.clone(),
            received,
            Arc::clone(&report),
            clock,
        ));
        Self {
            identity,
            node,
            born_at,
            content,
            leaving: false,
            leases: Vec::new(),
            process,
            updates: 0,
            orders,
            task: task.abort_handle(),
            report,
        }
    }

    /// Changes what it is; the client makes it so when it can.
    pub(crate) fn update(&mut self, content: Content) {
        let update = Update::new()
            .status(content.status)
            .weight(content.weight)
            .zone(&content.zone)
            .metadata([("note", &content.note)]);
        // A process that waits long for the registry accepts no more orders.
        let order = Order::Update(update, self.updates + 1, content.clone());
        if self.orders.try_send(order).is_ok() {
            self.updates += 1;
            self.content = content;
        }
    }

    /// Lets it deregister and end.
    pub(crate) fn close(&mut self) {
        self.leaving |= self.orders.try_send(Order::Close).is_ok();
    }

    /// Ends it with `kill -9`: its kernel closes its connections.
    pub(crate) fn kill(&self) {
        self.process.kill();
        self.task.abort();
    }

    /// The time of the deregistration, and whether a response came.
    pub(crate) fn left(&self) -> Option<(Millis, bool)> {
        self.report().left
    }

    /// The registry's refusal, which must not happen while its service may register.
    pub(crate) fn refused(&self) -> Option<String> {
        self.report().refused.clone()
    }

    /// Accepts a refusal. Returns whether the process goes on: the client retries what was refused
    /// after the first registration.
    pub(crate) fn accept_refusal(&mut self) -> bool {
        let mut report = self.report();
        report.refused = None;
        let (undone, goes_on) = (report.undone.take(), report.state.is_some());
        drop(report);
        // A client takes a refused update back.
        if let Some((_, content)) = undone.filter(|(number, _)| *number == self.updates) {
            self.content = content;
        }
        goes_on
    }

    /// Notes the lease that it has. Returns the one before, if it is another.
    pub(crate) fn look_at_lease(&mut self) -> Option<u64> {
        let lease = match &*self.report().state.as_ref()?.borrow() {
            RegistrationState::Registered { lease_id } => *lease_id,
            _ => return None,
        };
        let before = self.leases.last().copied();
        if before == Some(lease) {
            return None;
        }
        self.leases.push(lease);
        before
    }

    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().expect("no process panics")
    }
}

async fn live(
    client: Client,
    registration: Registration,
    mut content: Content,
    mut orders: mpsc::Receiver<Order>,
    report: Arc<Mutex<Report>>,
    clock: HostClock,
) {
    let change = |change: &dyn Fn(&mut Report)| change(&mut report.lock().expect("none panics"));
    let mut registered = match client.register(registration).await {
        Ok(registered) => registered,
        Err(error) => return change(&|report| report.refused = Some(error.to_string())),
    };
    change(&|report| report.state = Some(registered.state()));
    while let Some(order) = orders.recv().await {
        match order {
            Order::Update(update, number, next) => {
                let updated = registered.update(update).await;
                if let Err(error) = &updated {
                    change(&|report| report.refused = Some(error.to_string()));
                }
                if let Err(UpdateError::Invalid(_) | UpdateError::Refused(_)) = updated {
                    change(&|report| report.undone = Some((number, content.clone())));
                } else {
                    content = next;
                }
            }
            Order::Close => {
                let said = registered.deregister().await.is_ok();
                let now = clock.now();
                return change(&|report| report.left = Some((now, said)));
            }
        }
    }
}
