//! gRPC: the three services of `waypost.v1`, health and reflection.

mod admin;
mod codec;
mod convert;
mod deadline;
mod discovery;
mod encoded;
mod error;
mod gate;
mod outlet;
mod page;
mod registry;
mod services;
mod violations;
mod watch_body;

use std::fmt;

pub use gate::Gate;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};

use crate::store::StoreError;

/// The stubs that `build.rs` makes of `proto/`.
pub(crate) mod proto {
    #![allow(
        dead_code,
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::wildcard_imports,
        reason = "generated"
    )]
    tonic::include_proto!("waypost.v1");

    /// What reflection serves.
    pub(crate) const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

const REGISTRY: &str = "waypost.v1.Registry";
/// The services whose health is told, besides that of the whole server.
const SERVICES: [&str; 4] = ["", REGISTRY, "waypost.v1.Discovery", "waypost.v1.Admin"];

/// Tells who asks whether the server serves.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl fmt::Debug for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Health {
    /// Says that every service serves.
    pub async fn serving(&self) {
        self.tell(&SERVICES, ServingStatus::Serving).await;
    }

    /// Says that no service does: not yet, or no more.
    pub async fn not_serving(&self) {
        self.tell(&SERVICES, ServingStatus::NotServing).await;
    }

    /// Says of the service that writes whether it does, for as long as it is told why not.
    pub async fn follow(self, mut failure: watch::Receiver<Option<StoreError>>) {
        let mut failed = false;
        // Said once, also where the store says why not in other words.
        while failure.wait_for(|failure| failure.is_some() != failed).await.is_ok() {
            failed = !failed;
            let status = if failed { ServingStatus::NotServing } else { ServingStatus::Serving };
            self.tell(&[REGISTRY], status).await;
        }
    }

    async fn tell(&self, services: &[&'static str], status: ServingStatus) {
        for service in services {
            self.0.set_service_status(*service, status).await;
        }
    }
}

/// What is served from the first moment: health, which says that nothing serves yet, and reflection.
pub async fn first_routes() -> (Routes, Health) {
    let (reporter, health) = health_reporter();
    let reporter = Health(reporter);
    reporter.not_serving().await;
    let mut routes = Routes::builder();
    routes.add_service(health);
    // The descriptors are compiled in, and a test asks both versions for them.
    if let Ok(reflection) = reflection().build_v1() {
        routes.add_service(reflection);
    }
    if let Ok(reflection) = reflection().build_v1alpha() {
        routes.add_service(reflection);
    }
    (routes.routes(), reporter)
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // Lets generic clients show the details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
