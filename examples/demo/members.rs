//! The members of the registry, as a client sees them.

use std::collections::BTreeMap;

use tokio::{task::JoinSet, time::timeout};
use waypost_client::{Client, Service, Snapshot, proto::Status};

use crate::{
    Outcome,
    deployment::START_MAX,
    journal::{Event, Journal},
    orders, prices,
};

/// The instances of both services.
pub(crate) struct Members {
    services: [Service; 2],
}

/// Each instance's status, by its id.
pub(crate) type Statuses = BTreeMap<String, Status>;

impl Members {
    pub(crate) fn new(client: &Client) -> Self {
        Self { services: [orders::SERVICE, prices::SERVICE].map(|name| client.service(name)) }
    }

    /// Waits until this number of instances of a service is in traffic.
    pub(crate) async fn wait_for(&self, service: &str, count: usize) -> Outcome<()> {
        let service = self.services.iter().find(|known| known.name() == service);
        let mut changes = service.ok_or("no such service")?.changes();
        let there = async {
            while let Some(snapshot) = changes.next().await {
                if statuses(&snapshot).values().filter(|&&status| status == Status::Up).count()
                    >= count
                {
                    return Ok(());
                }
            }
            Err("nobody follows the service any more".into())
        };
        timeout(START_MAX, there).await?
    }

    /// The present members, by service.
    pub(crate) fn present(&self) -> impl Iterator<Item = (&str, Statuses)> {
        self.services.iter().map(|service| {
            let snapshot = service.snapshot();
            (service.name(), snapshot.as_deref().map(statuses).unwrap_or_default())
        })
    }

    /// Logs members that come and go, until the result is dropped.
    pub(crate) fn follow(&self, journal: &Journal) -> JoinSet<()> {
        self.services.iter().map(|service| follow(service.clone(), journal.clone())).collect()
    }
}

async fn follow(service: Service, journal: Journal) {
    let mut changes = service.changes();
    let mut known: Option<Statuses> = None;
    while let Some(snapshot) = changes.next().await {
        let present = statuses(&snapshot);
        if let Some(known) = &known {
            tell(known, &present, &journal);
        }
        known = Some(present);
    }
}

/// Notes what is different.
fn tell(known: &Statuses, present: &Statuses, journal: &Journal) {
    for (id, status) in present {
        match known.get(id) {
            None => journal.note(Event::Joined(id.clone())),
            Some(before) if before == status => {}
            Some(_) => journal.note(Event::Changed { id: id.clone(), status: name(*status) }),
        }
    }
    for id in known.keys().filter(|id| !present.contains_key(*id)) {
        journal.note(Event::Left(id.clone()));
    }
}

/// The name of a status on a terminal.
pub(crate) fn name(status: Status) -> &'static str {
    status.as_str_name().trim_start_matches("STATUS_")
}

fn statuses(snapshot: &Snapshot) -> Statuses {
    snapshot.instances().map(|instance| (instance.id.clone(), instance.status())).collect()
}
