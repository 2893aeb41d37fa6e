//! Connects a call to an instance. Never waits longer than its limit, and never exceeds the limit
//! of calls in flight.

use std::{cell::Cell, sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tonic::Status;

use super::{
    balanced::{BalancedChannel, SEND_WAIT_MAX},
    call::Call,
    protocol::Protocol,
    transport::Transport,
};
use crate::{
    balance::{NoInstance, Pick},
    endpoint::{Endpoint, Outcome},
    runtime::{clock, tasks},
    service::ReadyError,
    transport::{ConnectError, Connection},
};

/// The instances that an attempt may go to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InstanceScope {
    /// An instance that is not ejected and that no attempt went to; any if there is none.
    Any,
    /// An instance that is not ejected and that no attempt went to.
    Untried,
}

/// The number of picks for a call that loses the last place of an instance to others.
const RACES_MAX: usize = 4;

/// The connect limit from which a late connection ejects the instance, however short the call's
/// time was.
const CONNECT_LIMIT_MIN: Duration = Duration::from_millis(100);

/// The reason why there is no instance for an attempt.
enum PickFailure {
    NoInstance(NoInstance),
    /// None of the remaining instances takes a connection.
    AllUnreachable,
    /// The remaining instances have reached the limit of calls in flight.
    AllAtLimit,
}

impl<P: Protocol> BalancedChannel<P> {
    /// Picks an instance that takes a connection. The call records those that don't.
    pub(super) async fn connect(
        &self,
        call: &Call,
        scope: InstanceScope,
    ) -> Result<(Pick, Transport), Status> {
        if self.service.snapshot().is_none() {
            self.service.ready().await.map_err(|error| self.not_ready_status(&error))?;
        }
        loop {
            let pick = self.choose(call, scope).await?;
            if let Some(pool) = &self.pool {
                return Ok((pick, Transport::Pool(pool.clone())));
            }
            let endpoint = pick.endpoint();
            if let Some(connection) = endpoint.connection().current() {
                return Ok((pick, Transport::Connection(connection)));
            }
            // Half of the remaining time: the other half is for another instance.
            let limit = call.left(clock::now()).map_or(SEND_WAIT_MAX, |left| left / 2);
            let dialed = clock::within(limit, self.dial(endpoint)).await;
            match dialed {
                Some(Ok(connection)) => return Ok((pick, Transport::Connection(connection))),
                Some(Err(error)) => call.tried().record_unreachable(endpoint, error),
                None => {
                    // A shorter limit is no evidence against the instance.
                    if limit >= CONNECT_LIMIT_MIN {
                        endpoint.record(Outcome::Unreachable, Duration::ZERO);
                    }
                    let address = endpoint.address().into();
                    call.tried().record_unreachable(
                        endpoint,
                        ConnectError::CallDeadline { address, limit },
                    );
                }
            }
        }
    }

    /// Connects to an instance. Goes on if the caller gives up, so that the next call finds the
    /// result.
    async fn dial(&self, endpoint: &Arc<Endpoint>) -> Result<Connection, ConnectError> {
        let (task, dialer) = (Arc::clone(endpoint), self.service.dialer().clone());
        let (sender, dialed) = oneshot::channel();
        tasks::spawn("dial", async move {
            let connected = task.connection().connect(&dialer, task.address()).await;
            if connected.is_err() {
                task.record(Outcome::Unreachable, Duration::ZERO);
            }
            // The caller may have given up.
            let _gone = sender.send(connected);
        });
        // The runtime may be shutting down.
        let gone = |_| Err(ConnectError::Closed { address: endpoint.address().into() });
        dialed.await.unwrap_or_else(gone)
    }

    /// Picks an instance that may take connections; waits for one if the options allow it.
    async fn choose(&self, call: &Call, scope: InstanceScope) -> Result<Pick, Status> {
        let picked = match self.pick(call, scope) {
            Err(PickFailure::NoInstance(reason)) if !self.options.ready_wait.is_zero() => {
                self.wait_for_instance(call, scope, reason).await
            }
            picked => picked,
        };
        let pick = picked.map_err(|failure| self.pick_failure_status(call, &failure))?;
        call.tried().choose(pick.endpoint());
        Ok(pick)
    }

    /// Waits for a view with an instance. `reason` is why there is none now.
    async fn wait_for_instance(
        &self,
        call: &Call,
        scope: InstanceScope,
        mut reason: NoInstance,
    ) -> Result<Pick, PickFailure> {
        let mut changes = self.service.changes();
        let waiting = async {
            while changes.next().await.is_some() {
                match self.pick(call, scope) {
                    Err(PickFailure::NoInstance(still)) => reason = still,
                    picked => return Some(picked),
                }
            }
            // No view will follow.
            None
        };
        let picked = clock::within(self.options.ready_wait, waiting).await.flatten();
        picked.unwrap_or(Err(PickFailure::NoInstance(reason)))
    }

    /// Picks an instance that has not refused this call a connection, and is below the limit.
    fn pick(&self, call: &Call, scope: InstanceScope) -> Result<Pick, PickFailure> {
        let tried = call.tried();
        let limit = self.options.in_flight_max;
        let full = Cell::new(false);
        let accepts = |endpoint: &Endpoint| {
            let is_left = !tried.is_unreachable(endpoint);
            let has_room = endpoint.in_flight() < limit;
            full.set(full.get() || (is_left && !has_room));
            is_left && has_room
        };
        let is_other = |endpoint: &Endpoint| {
            !tried.was_chosen(endpoint) && endpoint.is_admitted() && accepts(endpoint)
        };
        let predicates: [&dyn Fn(&Endpoint) -> bool; 2] = [&is_other, &accepts];
        let predicates = match scope {
            InstanceScope::Untried => &predicates[..1],
            InstanceScope::Any if tried.has_chosen() => &predicates,
            InstanceScope::Any => &predicates[1..],
        };
        for accepts in predicates {
            for _ in 0..RACES_MAX {
                match self
                    .service
                    .pick_where(&call.context(), accepts)
                    .map_err(PickFailure::NoInstance)?
                {
                    // The pick counts already. Each of the competing calls sees all picks before
                    // it: more than the limit never pass. Two may both step back.
                    Some(pick) if pick.endpoint().in_flight() <= limit => return Ok(pick),
                    Some(_) => full.set(true),
                    None => break,
                }
            }
        }
        Err(if full.get() { PickFailure::AllAtLimit } else { PickFailure::AllUnreachable })
    }

    /// Returns whether there is an instance that is not ejected, was not chosen for the call and is
    /// below the limit.
    pub(super) fn has_another(&self, call: &Call) -> bool {
        let (tried, limit) = (call.tried(), self.options.in_flight_max);
        self.service.has(|endpoint| {
            !tried.was_chosen(endpoint) && endpoint.is_admitted() && endpoint.in_flight() < limit
        })
    }

    fn pick_failure_status(&self, call: &Call, failure: &PickFailure) -> Status {
        self.service.metrics().pick_failed();
        match failure {
            PickFailure::NoInstance(reason) => self.no_instance_status(*reason),
            PickFailure::AllUnreachable => self.all_unreachable_status(call),
            PickFailure::AllAtLimit => {
                let (service, limit) = (self.service.name(), self.options.in_flight_max);
                let all = format!("all reachable instances of {service}");
                Status::resource_exhausted(format!(
                    "{all} have {limit} calls in flight, their limit"
                ))
            }
        }
    }

    fn no_instance_status(&self, reason: NoInstance) -> Status {
        Status::unavailable(format!("no instance of {}: {reason}", self.service.name()))
    }

    fn not_ready_status(&self, error: &ReadyError) -> Status {
        Status::unavailable(format!("no instance of {}: {error}", self.service.name()))
    }

    fn all_unreachable_status(&self, call: &Call) -> Status {
        let (service, tried) = (self.service.name(), call.tried());
        let count = tried.unreachable_count();
        let last = tried.last_error().map(|error| format!("; last error: {error}"));
        let last = last.unwrap_or_default();
        Status::unavailable(format!(
            "could not connect to any of {count} instances of {service}{last}"
        ))
    }

    /// Returns the reason why a call was not sent in time.
    pub(super) fn send_timeout_status(&self, call: &Call) -> Status {
        match self.service.snapshot() {
            None => self.no_instance_status(NoInstance::NotReady),
            Some(_) => self.all_unreachable_status(call),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use http::Request;
    use tonic::body::Body;

    use super::*;
    use crate::{
        channel::protocol::Grpc,
        proto::{Instance, Status::Up},
        service::Service,
    };

    #[test]
    fn at_most_one_of_competing_calls_gets_the_last_place() {
        let up = Instance { status: Up.into(), ..Instance::default() };
        let channel = Service::fixed([up]).channel().concurrency_limit(1);
        let (holders, passed) = (AtomicU32::new(0), AtomicU32::new(0));
        let race = || {
            let call = Call::new::<Grpc>(Request::new(Body::empty()), clock::now());
            for _ in 0..20_000 {
                if let Ok(_pick) = channel.pick(&call, InstanceScope::Any) {
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                    passed.fetch_add(1, Ordering::SeqCst);
                    holders.fetch_sub(1, Ordering::SeqCst);
                }
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(race))));
        assert!(passed.into_inner() > 0);
    }
}
