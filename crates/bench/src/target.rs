//! One server under load, with its protocol and instances.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    error::BenchCallError,
    error::BenchError,
    load::callers::{Callers, StopCondition},
    load::connection::BenchConnection,
    plan::InstancePlan,
    process::{Usage, usage},
    progress::RunProgress,
    protocol::SystemProtocol,
    server::BenchServer,
};

/// One server under load, with its protocol and instances.
#[derive(Debug)]
pub(crate) struct LoadTarget {
    pub(crate) name: &'static str,
    pub(crate) server: BenchServer,
    pub(crate) protocol: &'static dyn SystemProtocol,
    pub(crate) plan: InstancePlan,
    pub(crate) progress: RunProgress,
    /// Set for the limit, which has no registry.
    pub(crate) is_limit: bool,
    /// The leases to deregister from a server that others use as well.
    pub(crate) granted: Mutex<Vec<u64>>,
}

/// Callers that deregister.
const CALLERS: usize = 64;

impl LoadTarget {
    pub(crate) async fn connect(
        &self,
        connections: usize,
    ) -> Result<Arc<[BenchConnection]>, BenchError> {
        self.connect_counted(connections, &Arc::default()).await
    }

    /// Opens connections that count received bytes.
    pub(crate) async fn connect_counted(
        &self,
        connections: usize,
        received_bytes: &Arc<AtomicU64>,
    ) -> Result<Arc<[BenchConnection]>, BenchError> {
        let mut open = Vec::with_capacity(connections);
        for _ in 0..connections {
            open.push(self.server.connect(received_bytes).await?);
        }
        Ok(open.into())
    }

    /// Registers an instance, and returns its lease.
    pub(crate) async fn register(
        &self,
        connection: &BenchConnection,
        index: u64,
        number: u64,
        ttl: Duration,
    ) -> Result<u64, BenchCallError> {
        let instance = self.plan.instance(index, number);
        let answer = connection.call(self.protocol.register(&instance, ttl)).await?;
        let lease = self.protocol.lease(answer)?;
        if let Some(attach) = self.protocol.attach(&instance, lease) {
            connection.call(attach).await?;
        }
        if !self.server.is_own() {
            self.granted.lock().push(lease);
        }
        Ok(lease)
    }

    /// Deregisters the instances from a server that others use as well.
    pub(crate) async fn deregister_all(self: &Arc<Self>) -> Result<(), BenchError> {
        let leases: Arc<[u64]> = std::mem::take(&mut *self.granted.lock()).into();
        if leases.is_empty() {
            return Ok(());
        }
        self.progress.begin(format!("{}: deregistering", self.name));
        let connections = self.connect(1).await?;
        let callers = Callers {
            callers: CALLERS,
            rate: None,
            end: StopCondition::count(leases.len() as u64),
        };
        let protocol = self.protocol;
        // An expired or replaced lease needs no removal.
        let done = callers.call(&connections, &self.progress, move |connection, nth| {
            let call = protocol.deregister(leases[nth as usize]);
            async move {
                match connection.call(call).await {
                    Err(BenchCallError::Refused { .. }) | Ok(_) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        });
        done.await.expect_success("deregistering")
    }

    /// Looks up a service. Returns the number of its instances.
    pub(crate) async fn resolve(
        &self,
        connection: &BenchConnection,
        service: u64,
    ) -> Result<u64, BenchCallError> {
        let service = self.plan.service(service);
        let call = self.protocol.resolve(&self.plan.namespace, &service);
        self.protocol.found(connection.call(call).await?)
    }

    /// Reads the usage of the server and the load.
    pub(crate) fn usage(&self) -> (Option<Usage>, Usage) {
        let own = usage(std::process::id()).unwrap_or_default();
        (self.server.pid().and_then(usage), own)
    }

    /// Returns the usage of both since an earlier reading.
    pub(crate) fn spent(&self, earlier: (Option<Usage>, Usage)) -> (Option<Usage>, Usage) {
        let (server, load) = self.usage();
        let server = server.zip(earlier.0).map(|(now, earlier)| now.since(earlier));
        (server, load.since(earlier.1))
    }
}

/// Reads a counter.
pub(crate) fn counted(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
