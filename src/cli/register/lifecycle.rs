//! The life cycle of a registered instance, from registering to deregistering, with its notices.
//!
//! Invariant: a stop request never waits for a reader of the output, nor without limit for the
//! registry.

use std::{pin::pin, time::Duration};

use serde::Serialize;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use waypost_client::{InFlight, RegisterError, Registered, Registration, RegistrationState};

use super::readiness::ReadinessCheck;
use crate::cli::{
    error::CommandError,
    escape::escape,
    output::{InstanceJson, OutputFormat, address, json_line, print_notice, write},
    remote::{REQUEST_TIMEOUT, RegistryAccess},
};

/// The time that an attempt to register may take after a stop request. Cutting it off at once could
/// leave an instance that nothing deregisters.
const LAST_ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// An instance to register, and how.
pub(crate) struct InstanceLifecycle {
    pub(crate) access: RegistryAccess,
    pub(crate) output: OutputFormat,
    pub(crate) namespace: String,
    pub(crate) registration: Registration,
    /// The check that turns STARTING into UP.
    pub(crate) ready: Option<ReadinessCheck>,
    /// The time that the instance is DRAINING before it is deregistered.
    pub(crate) drain_time: Duration,
}

/// Requests an instance to drain or to deregister.
#[derive(Debug)]
pub(crate) struct StopRequest {
    immediate: CancellationToken,
    /// A child of `immediate`: cancelled with it.
    requested: CancellationToken,
}

impl Default for StopRequest {
    fn default() -> Self {
        let immediate = CancellationToken::new();
        Self { requested: immediate.child_token(), immediate }
    }
}

impl StopRequest {
    /// Requests to drain, then deregister.
    pub(crate) fn drain(&self) {
        self.requested.cancel();
    }

    /// Requests to deregister now, ending a drain.
    pub(crate) fn stop_now(&self) {
        self.immediate.cancel();
    }
}

#[derive(Debug, Serialize)]
struct RegisteredJson<'a> {
    event: &'static str,
    lease_id: String,
    instance: InstanceJson<'a>,
}

impl InstanceLifecycle {
    /// Registers the instance, keeps it registered until a stop request, and deregisters it.
    /// Returns before that only if the registry refuses the instance.
    pub(crate) async fn run(&self, stop: &StopRequest) -> Result<(), CommandError> {
        let registered = self.register(&stop.requested).await?;
        stop.requested
            .run_until_cancelled(async {
                // A closed output does not stop the registration.
                let _ = self.print_registered(&registered).await;
                self.report_states(&registered).await;
            })
            .await;
        if stop.immediate.is_cancelled() || self.drain_time.is_zero() {
            return registered.deregister().await.map_err(CommandError::from);
        }
        // The command's calls can't be counted: they count as one, which takes the whole drain
        // time.
        let in_flight = InFlight::new();
        let calls = in_flight.begin();
        let mut draining = pin!(registered.drain_calls(&in_flight, self.drain_time));
        let drained = tokio::select! {
            drained = &mut draining => drained,
            () = stop.immediate.cancelled() => {
                drop(calls);
                draining.await
            }
        };
        drained.deregistered.map_err(CommandError::from)
    }

    async fn register(&self, stop: &CancellationToken) -> Result<Registered, CommandError> {
        let mut registering = pin!(self.attempt());
        let slow = async {
            sleep(REQUEST_TIMEOUT).await;
            print_notice(&format_args!(
                "the registry at {} does not respond; retrying",
                self.access
            ));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            registered = &mut registering => return Ok(registered?),
            () = slow => {}
            () = stop.cancelled() => {}
        }
        match timeout(LAST_ATTEMPT_MAX, registering).await {
            Ok(registered) => Ok(registered?),
            Err(_) => Err(CommandError::Stopped),
        }
    }

    async fn attempt(&self) -> Result<Registered, RegisterError> {
        let client = self.access.client(&self.namespace);
        let registration = self.registration.clone();
        match &self.ready {
            Some(check) => client.register(registration.ready_when(check.clone().success())).await,
            None => client.register(registration).await,
        }
    }

    async fn print_registered(&self, registered: &Registered) -> Result<(), CommandError> {
        let instance = registered.instance();
        let lease_id = registered.lease_id().expect("`register` returns once registered");
        let line = match self.output {
            OutputFormat::Json => json_line(&RegisteredJson {
                event: "registered",
                lease_id: lease_id.to_string(),
                instance: (&*instance).into(),
            })?,
            OutputFormat::Table => {
                let (service, id) = (escape(&instance.service), escape(&instance.id));
                let address = escape(&address(&instance));
                format!("registered {service}/{id} at {address}, lease {lease_id}\n")
            }
        };
        write(&line).await
    }

    /// Prints the registration's states that a user must know about. Returns once the registration
    /// has ended: deregistering returns the reason.
    async fn report_states(&self, registered: &Registered) {
        let mut states = registered.state();
        // Includes a state that was set before this point.
        states.mark_changed();
        let mut was_registered = true;
        while states.changed().await.is_ok() {
            let state = states.borrow_and_update().clone();
            let registered = matches!(state, RegistrationState::Registered { .. });
            match state {
                RegistrationState::Registered { lease_id } if !was_registered => {
                    print_notice(&format_args!("registered again, lease {lease_id}"));
                }
                RegistrationState::Retrying { .. } if was_registered => {
                    print_notice(&format_args!(
                        "can't reach the registry at {}; retrying",
                        self.access
                    ));
                }
                RegistrationState::Lost => {
                    print_notice(&"the lease is not active any more; registering again");
                }
                RegistrationState::Replaced { address } => {
                    let address = escape(&address);
                    print_notice(&format_args!(
                        "replaced by another process at {address} with the same id; registering again \
                         once it is gone; give each process its own --id"
                    ));
                }
                RegistrationState::Refused(refusal) => {
                    let refusal = CommandError::from(&refusal);
                    print_notice(&format_args!("the registry refused the instance: {refusal}"));
                }
                _ => {}
            }
            was_registered = registered;
        }
    }
}
