//! Connections of HTTP/1.1, each for one call at a time, kept for a while for the next one. A call must
//! never be sent twice that may have been received.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use dashmap::{DashMap, Entry};
use http::{Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery};
use hyper::body::Incoming;
use tokio::runtime::{Handle, Id};
use tonic::body::Body;

use super::{http1::Http1, inflow::Inflow};
use crate::{
    clock::{self, Instant},
    connection::{Dialer, SendError},
    tasks,
};

/// How long a connection that nobody uses is kept: less than servers do, most of which keep one for
/// 5 s and more, so that no call is sent while its instance closes.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// How often those that nobody uses are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The connections to the instances of a service.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    /// Those that nobody uses, by the runtime that moves their bytes: another one would have to be woken
    /// by it for each answer, and may outlive it.
    homes: DashMap<Id, Home>,
}

/// By address; the last one used is the last.
type Home = HashMap<Arc<str>, Vec<Idle>>;

struct Idle {
    connection: Box<Http1>,
    since: Instant,
}

impl Pool {
    pub(super) fn new(dialer: &Dialer) -> Self {
        Self { shared: Arc::new(Shared { dialer: dialer.clone(), homes: DashMap::new() }) }
    }

    /// Sends `request` to `address`. Cancel safe: dropping closes the connection.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        address: &str,
    ) -> Result<Response<Inflow>, SendError> {
        *request.uri_mut() = origin_form(request.uri());
        *request.version_mut() = Version::HTTP_11;
        let runtime = Handle::current().id();
        loop {
            let idle = self.shared.take(runtime, address);
            let is_fresh = idle.is_none();
            let mut connection = match idle {
                Some(connection) => connection,
                None => Box::new(self.connect(runtime, address).await?),
            };
            let host = &connection.host;
            request.headers_mut().entry(header::HOST).or_insert_with(|| host.clone());
            match connection.send(request).await {
                Ok(answer) => return Ok(self.lend(answer, connection)),
                Err(failed) => match failed.request {
                    // It was closed while nobody used it.
                    Some(unsent) if !is_fresh => request = unsent,
                    Some(_) => return Err(SendError::Unsent),
                    None => return Err(SendError::Lost(failed.error.into())),
                },
            }
        }
    }

    async fn connect(&self, runtime: Id, address: &str) -> Result<Http1, SendError> {
        if let Entry::Vacant(home) = self.shared.homes.entry(runtime) {
            home.insert(Home::default());
            let keeper = Keeper { pool: Arc::downgrade(&self.shared), runtime };
            tasks::spawn("idle connections", keeper.sweep());
        }
        Http1::open(&self.shared.dialer, address).await.map_err(SendError::Unreached)
    }

    fn lend(&self, answer: Response<Incoming>, connection: Box<Http1>) -> Response<Inflow> {
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            connection.detach();
            return answer.map(Inflow::shared);
        }
        answer.map(|body| Inflow::own(body, connection, self.clone()))
    }

    /// Takes a connection back, where it can have another call.
    pub(super) fn give_back(&self, mut connection: Box<Http1>) {
        if connection.is_ready() {
            // Where its runtime has ended, it is of no use.
            let Some(mut home) = self.shared.homes.get_mut(&connection.runtime) else { return };
            let address = Arc::clone(&connection.address);
            let idle = Idle { connection, since: clock::now() };
            home.entry(address).or_default().push(idle);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pool")
    }
}

/// Of a URI what one instance is asked.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.unwrap_or_else(|| PathAndQuery::from_static("/")).into()
}

impl Shared {
    /// One to `address` that is open, as far as is known.
    fn take(&self, runtime: Id, address: &str) -> Option<Box<Http1>> {
        let now = clock::now();
        let mut home = self.homes.get_mut(&runtime)?;
        let idle = home.get_mut(address)?;
        while let Some(mut last) = idle.pop() {
            if last.is_of_use(now) {
                return Some(last.connection);
            }
        }
        None
    }

    fn drop_useless(&self, runtime: Id) {
        let now = clock::now();
        let Some(mut home) = self.homes.get_mut(&runtime) else { return };
        home.retain(|_, idle| {
            idle.retain_mut(|one| one.is_of_use(now));
            !idle.is_empty()
        });
    }
}

impl Idle {
    fn is_of_use(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < IDLE_MAX && self.connection.is_ready()
    }
}

/// Looks after the idle connections of a runtime, and lets go of them with it.
struct Keeper {
    pool: Weak<Shared>,
    runtime: Id,
}

impl Keeper {
    /// Closes what nobody has used for long, and what its instance has closed, for as long as there is a
    /// pool.
    async fn sweep(self) {
        loop {
            clock::sleep(SWEEP_INTERVAL).await;
            let Some(pool) = self.pool.upgrade() else { return };
            pool.drop_useless(self.runtime);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.homes.remove(&self.runtime);
        }
    }
}
