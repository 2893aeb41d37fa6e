//! An instance's stay in the registry, from its registration to its leave. It tells its user how that
//! goes, and must never wait for a reader or the registry when told to stop.

use std::{pin::pin, time::Duration};

use serde::Serialize;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use waypost_client::{InFlight, RegisterError, Registered, Registration, RegistrationState};

use super::readiness::Check;
use crate::cli::{
    escape::shown,
    failure::Failure,
    output::{InstanceRecord, Output, address, json_line, say, write},
    remote::{RegistryUrl, WAIT_MAX},
};

/// How long an attempt to register may go on that is not wanted any more. What it would leave
/// behind is an instance that nobody takes back.
const LAST_ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// An instance's stay in the registry.
pub(crate) struct Presence {
    pub(crate) url: RegistryUrl,
    pub(crate) output: Output,
    pub(crate) namespace: String,
    pub(crate) registration: Registration,
    /// Whether it is ready to be called, where that has to be found out.
    pub(crate) ready: Option<Check>,
    /// How long it drains.
    pub(crate) drain_time: Duration,
}

/// Asks an instance to leave.
#[derive(Debug)]
pub(crate) struct Leaving {
    at_once: CancellationToken,
    /// Cancelled by the other as well.
    asked: CancellationToken,
}

impl Default for Leaving {
    fn default() -> Self {
        let at_once = CancellationToken::new();
        Self { asked: at_once.child_token(), at_once }
    }
}

impl Leaving {
    /// The instance is to drain, and to leave after that.
    pub(crate) fn drain(&self) {
        self.asked.cancel();
    }

    /// The instance is to leave now, also where it drains.
    pub(crate) fn at_once(&self) {
        self.at_once.cancel();
    }
}

#[derive(Debug, Serialize)]
struct RegisteredRecord<'a> {
    event: &'static str,
    lease_id: String,
    instance: InstanceRecord<'a>,
}

impl Presence {
    /// Registers the instance, keeps it registered until it is asked to leave, and deregisters it. Ends
    /// before only where the registry refuses.
    pub(crate) async fn keep(&self, leaving: &Leaving) -> Result<(), Failure> {
        let registered = self.register(&leaving.asked).await?;
        leaving
            .asked
            .run_until_cancelled(async {
                // A reader that is gone is no reason to stop.
                let _ = self.announce(&registered).await;
                self.report(&registered).await;
            })
            .await;
        if leaving.at_once.is_cancelled() || self.drain_time.is_zero() {
            return registered.deregister().await.map_err(Failure::from);
        }
        // There is no way to count the calls that the command works on: they count as one, which
        // takes all of the drain time.
        let in_flight = InFlight::new();
        let calls = in_flight.begin();
        let mut draining = pin!(registered.drain_calls(&in_flight, self.drain_time));
        let drained = tokio::select! {
            drained = &mut draining => drained,
            () = leaving.at_once.cancelled() => {
                drop(calls);
                draining.await
            }
        };
        drained.deregistered.map_err(Failure::from)
    }

    async fn register(&self, stop: &CancellationToken) -> Result<Registered, Failure> {
        let mut registering = pin!(self.attempt());
        let slow = async {
            sleep(WAIT_MAX).await;
            say(&format_args!("the registry at {} does not answer; trying on", self.url));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            registered = &mut registering => return Ok(registered?),
            () = slow => {}
            () = stop.cancelled() => {}
        }
        match timeout(LAST_ATTEMPT_MAX, registering).await {
            Ok(registered) => Ok(registered?),
            Err(_) => Err(Failure::Stopped),
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

    async fn announce(&self, registered: &Registered) -> Result<(), Failure> {
        let instance = registered.instance();
        let lease_id = registered.lease_id().expect("it is registered when register returns");
        let line = match self.output {
            Output::Json => json_line(&RegisteredRecord {
                event: "registered",
                lease_id: lease_id.to_string(),
                instance: (&*instance).into(),
            })?,
            Output::Table => {
                let (service, id) = (shown(&instance.service), shown(&instance.id));
                let address = shown(&address(&instance));
                format!("registered {service}/{id} at {address}, lease {lease_id}\n")
            }
        };
        write(&line).await
    }

    /// Says how the registration fares where that is not as it should be. Returns only where the
    /// task behind it has ended: closing will say why.
    async fn report(&self, registered: &Registered) {
        let mut states = registered.state();
        // What happened while others were told counts.
        states.mark_changed();
        let mut well = true;
        while states.changed().await.is_ok() {
            let state = states.borrow_and_update().clone();
            let registered = matches!(state, RegistrationState::Registered { .. });
            match state {
                RegistrationState::Registered { lease_id } if !well => {
                    say(&format_args!("registered as before, lease {lease_id}"));
                }
                RegistrationState::Retrying { .. } if well => {
                    say(&format_args!("can't reach the registry at {}; trying again", self.url));
                }
                RegistrationState::Lost => {
                    say(&"the registry does not know the lease any more");
                }
                RegistrationState::Replaced { address } => {
                    let address = shown(&address);
                    say(&format_args!(
                        "another process, at {address}, has registered the same id: this one is not \
                         registered until that one is gone; give each process its own --id"
                    ));
                }
                RegistrationState::Refused(refusal) => {
                    let refusal = Failure::from(&refusal);
                    say(&format_args!("the registry refuses the instance: {refusal}"));
                }
                _ => {}
            }
            well = registered;
        }
    }
}
