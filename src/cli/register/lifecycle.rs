//! An instance's stay in the registry, from its registration to its leave. It tells its user how that
//! goes, and must never wait for a reader or the registry when told to stop.

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
    remote::{REQUEST_TIMEOUT, RegistryUrl},
};

/// How long an attempt to register may go on that is not wanted any more. What it would leave
/// behind is an instance that nobody takes back.
const LAST_ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// An instance's stay in the registry.
pub(crate) struct InstanceLifecycle {
    pub(crate) url: RegistryUrl,
    pub(crate) output: OutputFormat,
    pub(crate) namespace: String,
    pub(crate) registration: Registration,
    /// Whether it is ready to be called, where that has to be found out.
    pub(crate) ready: Option<ReadinessCheck>,
    /// How long it drains.
    pub(crate) drain_time: Duration,
}

/// Asks an instance to leave.
#[derive(Debug)]
pub(crate) struct StopRequest {
    immediate: CancellationToken,
    /// Cancelled by the other as well.
    requested: CancellationToken,
}

impl Default for StopRequest {
    fn default() -> Self {
        let immediate = CancellationToken::new();
        Self { requested: immediate.child_token(), immediate }
    }
}

impl StopRequest {
    /// The instance is to drain, and to leave after that.
    pub(crate) fn drain(&self) {
        self.requested.cancel();
    }

    /// The instance is to leave now, also where it drains.
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
    /// Registers the instance, keeps it registered until it is asked to leave, and deregisters it. Ends
    /// before only where the registry refuses.
    pub(crate) async fn run(&self, stop: &StopRequest) -> Result<(), CommandError> {
        let registered = self.register(&stop.requested).await?;
        stop.requested
            .run_until_cancelled(async {
                // A reader that is gone is no reason to stop.
                let _ = self.print_registered(&registered).await;
                self.report_states(&registered).await;
            })
            .await;
        if stop.immediate.is_cancelled() || self.drain_time.is_zero() {
            return registered.deregister().await.map_err(CommandError::from);
        }
        // There is no way to count the calls that the command works on: they count as one, which
        // takes all of the drain time.
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
            print_notice(&format_args!("the registry at {} does not answer; trying on", self.url));
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
        let client = self.url.client(&self.namespace);
        let registration = self.registration.clone();
        match &self.ready {
            Some(check) => client.register(registration.ready_when(check.clone().success())).await,
            None => client.register(registration).await,
        }
    }

    async fn print_registered(&self, registered: &Registered) -> Result<(), CommandError> {
        let instance = registered.instance();
        let lease_id = registered.lease_id().expect("it is registered when register returns");
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

    /// Says how the registration fares where that is not as it should be. Returns only where the
    /// task behind it has ended: closing will say why.
    async fn report_states(&self, registered: &Registered) {
        let mut states = registered.state();
        // What happened while others were told counts.
        states.mark_changed();
        let mut well = true;
        while states.changed().await.is_ok() {
            let state = states.borrow_and_update().clone();
            let registered = matches!(state, RegistrationState::Registered { .. });
            match state {
                RegistrationState::Registered { lease_id } if !well => {
                    print_notice(&format_args!("registered as before, lease {lease_id}"));
                }
                RegistrationState::Retrying { .. } if well => {
                    print_notice(&format_args!(
                        "can't reach the registry at {}; trying again",
                        self.url
                    ));
                }
                RegistrationState::Lost => {
                    print_notice(&"the registry does not know the lease any more");
                }
                RegistrationState::Replaced { address } => {
                    let address = escape(&address);
                    print_notice(&format_args!(
                        "another process, at {address}, has registered the same id: this one is not \
                         registered until that one is gone; give each process its own --id"
                    ));
                }
                RegistrationState::Refused(refusal) => {
                    let refusal = CommandError::from(&refusal);
                    print_notice(&format_args!("the registry refuses the instance: {refusal}"));
                }
                _ => {}
            }
            well = registered;
        }
    }
}
