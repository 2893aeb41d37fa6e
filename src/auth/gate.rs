//! The gate of the server: it identifies the caller of each request, once for a credential on a
//! connection.

use std::{
    fmt,
    future::pending,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, header::AUTHORIZATION};
use parking_lot::Mutex;
use tokio::{
    select,
    sync::{Notify, watch},
    time::sleep_until,
};
use tracing::debug;
use waypost_auth::{
    certificate::PeerCertificate,
    policy::{Unauthenticated, Via},
};

use super::{
    audit::{AuditLog, AuditRecord, AuditTrail},
    caller::Caller,
    error::AccessError,
    origin,
    session::{Credential, Session, refused_session},
    trust::TrustCell,
};
use crate::clock::Clock;

/// The credentials that a connection has sessions for: a proxy brings those of several callers.
/// Beyond, the oldest without an open call is judged again when it is used next. The others are as
/// many as the connection has streams.
const SESSIONS_MAX: usize = 64;

/// The gate of the server.
#[derive(Debug, Clone)]
pub struct Gate {
    clock: Clock,
    /// `None`: no policy, every caller may do everything.
    trust: Option<Arc<TrustCell>>,
    hosts: HostCheck,
    audit: Option<AuditLog>,
}

/// A request that the gate refuses.
#[derive(Debug)]
pub(crate) struct GateRefusal {
    caller: Caller,
    error: AccessError,
}

/// The requests that a listener takes, by the host that they name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostCheck {
    /// Those to this machine: clear text on loopback.
    Local,
    /// All.
    None,
}

/// The peer of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The address; `None` in a simulation.
    pub address: Option<SocketAddr>,
    /// The certificate that it proved in the handshake.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// The identities of one connection.
pub(crate) struct ConnectionGate {
    gate: Gate,
    peer: Peer,
    /// The caller without a token.
    base: Caller,
    /// An authority of this machine that a request had: most requests of a connection have the
    /// same.
    local_authority: OnceLock<Box<str>>,
    /// The callers by the values of `authorization`, the latest last.
    by_token: Mutex<Vec<(HeaderValue, Caller)>>,
    /// Notified when a caller is added, whose identity may end before all others.
    added: Notify,
}

impl Gate {
    /// A gate that lets every caller do everything.
    pub fn open(clock: Clock, hosts: HostCheck) -> Self {
        Self { clock, trust: None, hosts, audit: None }
    }

    /// A gate that judges callers.
    pub fn new(clock: Clock, trust: Arc<TrustCell>, hosts: HostCheck) -> Self {
        Self { clock, trust: Some(trust), hosts, audit: None }
    }

    /// Records into an audit log from here on.
    #[must_use]
    pub fn with_audit(self, audit: AuditLog) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// Returns the audit log.
    pub(crate) fn audit(&self) -> Option<&AuditLog> {
        self.audit.as_ref()
    }

    /// Returns what callers are judged by; `None` without a policy.
    pub fn trust(&self) -> Option<&Arc<TrustCell>> {
        self.trust.as_ref()
    }

    /// Returns whether callers from other machines may do what no policy allows.
    pub fn is_insecure(&self) -> bool {
        let is_enforced = |trust: &Arc<TrustCell>| trust.current().policy.is_enforced();
        self.hosts == HostCheck::None && !self.trust.as_ref().is_some_and(is_enforced)
    }

    /// Records that the certificate of a connection was refused in its handshake.
    pub(crate) fn record_handshake(&self, peer: Option<SocketAddr>, reason: Unauthenticated) {
        if let (Some(log), Some(trust)) = (&self.audit, &self.trust) {
            let record = refused_session(trust.epoch(), reason);
            log.record(AuditRecord { peer, via: Some(Via::Certificate), ..record });
        }
    }

    /// Makes the gate of one connection.
    pub(crate) fn connect(&self, peer: Peer) -> ConnectionGate {
        let trail = match &self.audit {
            None => AuditTrail::nothing(),
            Some(log) => AuditTrail::of_connection(log.clone(), peer.address),
        };
        let base = match &self.trust {
            None => Caller::unjudged(trail),
            Some(trust) => {
                let credential = match &peer.certificate {
                    Some(certificate) => Credential::Certificate(Arc::clone(certificate)),
                    None => Credential::Anonymous,
                };
                self.caller(trust, credential, &peer, trail)
            }
        };
        ConnectionGate {
            gate: self.clone(),
            peer,
            base,
            local_authority: OnceLock::new(),
            by_token: Mutex::default(),
            added: Notify::new(),
        }
    }

    fn caller(
        &self,
        trust: &Arc<TrustCell>,
        credential: Credential,
        peer: &Peer,
        trail: AuditTrail,
    ) -> Caller {
        let address = peer.address.map(|address| address.ip().to_canonical());
        let session = Session::start(Arc::clone(trust), self.clock, credential, address);
        Caller::new(session, trail)
    }
}

impl GateRefusal {
    /// Returns whether the caller did not prove who it is.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        matches!(self.error, AccessError::Unauthenticated(_))
    }

    /// Records the refusal of a call, by the method's name, and returns the reason.
    pub(crate) fn of_call(self, method: Option<&'static str>, headers: &HeaderMap) -> AccessError {
        self.caller.of_call(method, headers).record_refusal(&self.error);
        self.error
    }
}

impl ConnectionGate {
    /// Returns whether the certificate of the connection has proved an identity, and its
    /// connections are within their limit.
    pub(crate) fn has_certified_caller(&self) -> bool {
        self.peer.certificate.is_some()
            && self.base.is_known()
            && self.base.take_connection().is_ok()
    }

    /// Identifies the caller of a request.
    ///
    /// Errors: the request is not for this machine, or its credentials are invalid.
    pub(crate) fn identify<B>(&self, request: &Request<B>) -> Result<Caller, GateRefusal> {
        if self.gate.hosts == HostCheck::Local && !self.is_local(request) {
            return Err(self.unjudged(AccessError::WrongAuthority));
        }
        let Some(trust) = &self.gate.trust else { return Ok(self.base.clone()) };
        let mut tokens = request.headers().get_all(AUTHORIZATION).iter();
        let caller = match (tokens.next(), tokens.next()) {
            (None, _) => self.base.clone(),
            (Some(token), None) => self.with_token(trust, token),
            (Some(_), Some(_)) => self.given_twice(trust)?,
        };
        match caller.check().and_then(|()| caller.take_connection()) {
            Ok(()) => Ok(caller),
            Err(error) => Err(GateRefusal { caller, error }),
        }
    }

    fn is_local<B>(&self, request: &Request<B>) -> bool {
        let authority = request.uri().authority();
        if let (Some(authority), Some(local)) = (authority, self.local_authority.get())
            && authority.as_str() == &**local
        {
            return origin::has_local_fields(request.headers());
        }
        let is_local = origin::is_local(request);
        if let (true, Some(authority)) = (is_local, authority) {
            self.local_authority.get_or_init(|| authority.as_str().into());
        }
        is_local
    }

    /// The refusal of a request before its caller is judged.
    fn unjudged(&self, error: AccessError) -> GateRefusal {
        GateRefusal { caller: Caller::unjudged(self.base.trail().clone()), error }
    }

    /// Refuses two tokens. Where the policy is not enforced, they count as none.
    fn given_twice(&self, trust: &TrustCell) -> Result<Caller, GateRefusal> {
        if trust.current().policy.is_enforced() {
            return Err(self.unjudged(Unauthenticated::GivenTwice.into()));
        }
        debug!("policy not enforced, request with two tokens let through");
        Ok(self.base.clone())
    }

    fn with_token(&self, trust: &Arc<TrustCell>, token: &HeaderValue) -> Caller {
        let mut by_token = self.by_token.lock();
        let found = by_token.iter().rev().find(|(value, _)| value == token);
        if let Some((_, caller)) = found {
            return caller.clone();
        }
        let mut token = token.clone();
        token.set_sensitive(true);
        let credential = Credential::Token(token.clone(), self.peer.certificate.clone());
        let caller = self.gate.caller(trust, credential, &self.peer, self.base.trail().clone());
        if caller.is_identified() {
            if by_token.len() >= SESSIONS_MAX
                && let Some(unused) = by_token.iter().position(|(_, caller)| caller.is_unused())
            {
                by_token.remove(unused);
            }
            by_token.push((token, caller.clone()));
            self.added.notify_one();
        }
        caller
    }

    /// Returns whether the certificate of the connection is not accepted any more, so that its peer
    /// must connect anew.
    pub(crate) fn has_ended(&self) -> bool {
        let ended = Err(AccessError::Unauthenticated(Unauthenticated::CertificateNamesNobody));
        let checked = self.base.check();
        self.peer.certificate.is_some() && checked.is_err() && checked != ended
    }

    /// Returns the time until the next of the identities ends.
    fn next_deadline(&self) -> Option<Duration> {
        let base = self.base.time_left();
        let by_token = self.by_token.lock();
        by_token.iter().filter_map(|(_, caller)| caller.time_left()).chain(base).min()
    }

    /// Returns the changes of rights from here on.
    pub(crate) fn changes(&self) -> RightChanges<'_> {
        RightChanges { gate: self, epochs: self.gate.trust.as_ref().map(|trust| trust.epochs()) }
    }
}

/// The moments at which a caller of a connection may have lost its identity or a right.
pub(crate) struct RightChanges<'a> {
    gate: &'a ConnectionGate,
    /// `None` without a policy.
    epochs: Option<watch::Receiver<u64>>,
}

impl RightChanges<'_> {
    /// Waits for the next one: a new epoch, or the end of a credential. Cancel safe.
    pub(crate) async fn next(&mut self) {
        let Some(epochs) = &mut self.epochs else { return pending().await };
        loop {
            let next = self.gate.next_deadline();
            let deadline = async {
                match next {
                    Some(left) => sleep_until(self.gate.gate.clock.after(left)).await,
                    None => pending().await,
                }
            };
            select! {
                // The sender lives as long as the gate.
                _ = epochs.changed() => return,
                () = deadline => return,
                () = self.gate.added.notified() => {}
            }
        }
    }
}

impl fmt::Debug for ConnectionGate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectionGate").field("peer", &self.peer).finish_non_exhaustive()
    }
}
