//! Health and reflection, which are served before the engine runs.

use std::fmt;

use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};

use super::proto;
use crate::store::StoreError;

const REGISTRY: &str = "waypost.v1.Registry";
/// The services whose health is reported. The empty name stands for the whole server.
const SERVICES: [&str; 4] = ["", REGISTRY, "waypost.v1.Discovery", "waypost.v1.Admin"];

/// The services of health and reflection.
#[derive(Debug)]
pub struct EarlyServices(pub(super) Routes);

/// Sets the health that `grpc.health.v1` reports.
#[derive(Clone)]
pub struct HealthReport(HealthReporter);

impl fmt::Debug for HealthReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HealthReport").finish_non_exhaustive()
    }
}

impl HealthReport {
    /// Reports that every service serves.
    pub async fn serving(&self) {
        self.report(&SERVICES, ServingStatus::Serving).await;
    }

    /// Reports that no service serves, while the server starts or shuts down.
    pub async fn not_serving(&self) {
        self.report(&SERVICES, ServingStatus::NotServing).await;
    }

    /// Reports that writes fail while `failure` has a value. Ends with its sender.
    pub async fn follow(self, mut failure: watch::Receiver<Option<StoreError>>) {
        let mut failed = false;
        // Once, even if the reason changes.
        while failure.wait_for(|failure| failure.is_some() != failed).await.is_ok() {
            failed = !failed;
            let status = if failed { ServingStatus::NotServing } else { ServingStatus::Serving };
            self.report(&[REGISTRY], status).await;
        }
    }

    async fn report(&self, services: &[&'static str], status: ServingStatus) {
        for service in services {
            self.0.set_service_status(*service, status).await;
        }
    }
}

/// Makes reflection, and health that reports that no service serves.
pub async fn early_services() -> (EarlyServices, HealthReport) {
    let (reporter, health) = health_reporter();
    let reporter = HealthReport(reporter);
    reporter.not_serving().await;
    let mut routes = Routes::builder();
    routes.add_service(health);
    // The descriptors are compiled in, and a test reads them through both versions.
    if let Ok(reflection) = reflection().build_v1() {
        routes.add_service(reflection);
    }
    if let Ok(reflection) = reflection().build_v1alpha() {
        routes.add_service(reflection);
    }
    (EarlyServices(routes.routes()), reporter)
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // Generic clients need it to decode the details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
