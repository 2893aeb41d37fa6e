//! Connections of HTTP/1.1, each for one call at a time, kept for a while for the next one. A call must
//! never be sent twice that may have been received.

use std::{
    fmt,
    sync::{Arc, Once, Weak},
    time::Duration,
};

use dashmap::DashMap;
use http::{Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery};
use hyper::body::Incoming;
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
    /// Those that nobody uses, by address; the last one used is the last.
    idle: DashMap<Arc<str>, Vec<Idle>>,
    /// Somebody looks at them from time to time.
    sweep: Once,
}

struct Idle {
    connection: Box<Http1>,
    since: Instant,
}

impl Pool {
    pub(super) fn new(dialer: &Dialer) -> Self {
        let (dialer, idle) = (dialer.clone(), DashMap::new());
        Self { shared: Arc::new(Shared { dialer, idle, sweep: Once::new() }) }
    }

    /// Sends `request` to `address`. Cancel safe: dropping closes the connection.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        address: &str,
    ) -> Result<Response<Inflow>, SendError> {
        *request.uri_mut() = origin_form(request.uri());
        *request.version_mut() = Version::HTTP_11;
        loop {
            let idle = self.shared.take(address);
            let is_fresh = idle.is_none();
            let mut connection = match idle {
                Some(connection) => connection,
                None => Box::new(self.connect(address).await?),
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

    async fn connect(&self, address: &str) -> Result<Http1, SendError> {
        let sweeping = || tasks::spawn("idle connections", sweep(Arc::downgrade(&self.shared)));
        self.shared.sweep.call_once(sweeping);
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
            let address = Arc::clone(&connection.address);
            let idle = Idle { connection, since: clock::now() };
            self.shared.idle.entry(address).or_default().push(idle);
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
    fn take(&self, address: &str) -> Option<Box<Http1>> {
        let now = clock::now();
        let mut idle = self.idle.get_mut(address)?;
        while let Some(mut last) = idle.pop() {
            if last.is_of_use(now) {
                return Some(last.connection);
            }
        }
        None
    }

    fn drop_useless(&self) {
        let now = clock::now();
        self.idle.retain(|_, idle| {
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

/// Closes what nobody has used for long, and what its instance has closed, for as long as there is a pool.
async fn sweep(pool: Weak<Shared>) {
    loop {
        clock::sleep(SWEEP_INTERVAL).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.drop_useless();
    }
}
