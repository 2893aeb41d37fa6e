//! The way of a call to an instance that takes a connection. It must never wait longer than it is told
//! to.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tonic::Status;

use super::{BalancedChannel, UNSENT_MAX, call::Call};
use crate::{
    balance::{NoInstance, Pick, PickContext},
    clock,
    connection::{ConnectError, Connection},
    endpoint::Endpoint,
    outlier::Sign,
    service::ReadyError,
    tasks,
};

/// Why there is no instance for an attempt.
enum Miss {
    None(NoInstance),
    /// None of those that are left takes a connection.
    Exhausted,
}

impl BalancedChannel {
    /// Picks an instance that takes a connection. Those that don't are noted in the call.
    pub(super) async fn connect(&self, call: &Call) -> Result<(Pick, Connection), Status> {
        if self.service.snapshot().is_none() {
            self.service.ready().await.map_err(|error| self.unready(&error))?;
        }
        loop {
            let pick = self.choose(call)?;
            let endpoint = pick.endpoint();
            if let Some(connection) = endpoint.slot().current() {
                return Ok((pick, connection));
            }
            // Half of the time that is left: the other half is for another instance.
            let limit = call.left(clock::now()).map_or(UNSENT_MAX, |left| left / 2);
            let dialed = clock::within(limit, self.dial(endpoint)).await;
            match dialed {
                Some(Ok(connection)) => return Ok((pick, connection)),
                Some(Err(error)) => call.tried().note(endpoint, error),
                None => {
                    endpoint.note(Sign::Unreached, Duration::ZERO);
                    let address = endpoint.address().into();
                    call.tried().note(endpoint, ConnectError::Late { address, limit });
                }
            }
        }
    }

    /// Connects to an instance. That goes on where the caller gives up: the next one finds the
    /// connection, or that there is none.
    async fn dial(&self, endpoint: &Arc<Endpoint>) -> Result<Connection, ConnectError> {
        let (task, dialer) = (Arc::clone(endpoint), self.service.dialer().clone());
        let (answer, dialed) = oneshot::channel();
        tasks::spawn("dial", async move {
            let connected = task.slot().connection(&dialer, task.address()).await;
            if connected.is_err() {
                task.note(Sign::Unreached, Duration::ZERO);
            }
            // Whoever waited may have given up.
            let _gone = answer.send(connected);
        });
        // The runtime may be on its way down.
        let gone = |_| Err(ConnectError::Closed { address: endpoint.address().into() });
        dialed.await.unwrap_or_else(gone)
    }

    /// An instance that takes connections, as far as is known.
    fn choose(&self, call: &Call) -> Result<Pick, Status> {
        let pick = self.pick(call).map_err(|miss| self.missed(call, &miss))?;
        call.tried().choose(pick.endpoint());
        Ok(pick)
    }

    /// An instance that has not refused the call a connection; where there is one, another than those
    /// that it was meant for before.
    fn pick(&self, call: &Call) -> Result<Pick, Miss> {
        let tried = call.tried();
        let suits = |endpoint: &Endpoint| !tried.contains(endpoint);
        let is_other = |endpoint: &Endpoint| !tried.was_chosen(endpoint) && suits(endpoint);
        let ways: [&dyn Fn(&Endpoint) -> bool; 2] = [&is_other, &suits];
        for way in ways {
            let pick = self.service.pick_where(&PickContext::new(), way).map_err(Miss::None)?;
            if let Some(pick) = pick {
                return Ok(pick);
            }
        }
        Err(Miss::Exhausted)
    }

    fn missed(&self, call: &Call, miss: &Miss) -> Status {
        match miss {
            Miss::None(reason) => self.none(*reason),
            Miss::Exhausted => self.exhausted(call),
        }
    }

    fn none(&self, reason: NoInstance) -> Status {
        Status::unavailable(format!("no instance of {}: {reason}", self.service.name()))
    }

    fn unready(&self, error: &ReadyError) -> Status {
        Status::unavailable(format!("no instance of {}: {error}", self.service.name()))
    }

    fn exhausted(&self, call: &Call) -> Status {
        let (service, tried) = (self.service.name(), call.tried());
        let count = tried.count();
        let last = tried.last().map(|error| format!(", the last one: {error}"));
        let last = last.unwrap_or_default();
        Status::unavailable(format!("none of {count} instances of {service} was reached{last}"))
    }

    /// Why a call was not sent in time.
    pub(super) fn too_late(&self, call: &Call) -> Status {
        let untried = call.tried().count() == 0;
        if untried && self.service.snapshot().is_none() {
            self.none(NoInstance::NotReady)
        } else {
            self.exhausted(call)
        }
    }
}
