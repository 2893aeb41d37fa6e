//! The connection to one address, opened on first use and shared by all calls. Invariant: callers
//! that wait for the same attempt to connect fail with it; they never try one after the other.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use http::Uri;
use tokio::sync::OnceCell;

use super::connection::{ConnectError, Connection, Dialer};

/// A connection, or the place for one.
#[derive(Debug, Default)]
pub(crate) struct SharedConnection {
    connection: ArcSwap<OnceCell<Connection>>,
    /// The error of the last attempt.
    failure: ArcSwapOption<ConnectError>,
}

impl SharedConnection {
    /// Returns the connection. Connects if none is open. Cancel safe: another waiting caller takes
    /// over the attempt.
    pub(crate) async fn connect(
        &self,
        dialer: &Dialer,
        address: &str,
    ) -> Result<Connection, ConnectError> {
        let before = self.failure.load_full();
        let cell = self.usable();
        let attempt = || self.attempt(dialer, address, before.as_ref());
        cell.get_or_try_init(attempt).await.cloned()
    }

    /// Returns the connection if it is open.
    pub(crate) fn current(&self) -> Option<Connection> {
        self.connection.load().get().filter(|connection| !connection.is_closed()).cloned()
    }

    /// Discards `broken`, so that the next caller connects again. Calls on it go on.
    pub(crate) fn discard(&self, broken: &Connection) {
        let current = self.connection.load_full();
        if current.get().is_some_and(|connection| connection.is(broken)) {
            self.connection.compare_and_swap(&current, Arc::new(OnceCell::new()));
        }
    }

    /// Opens another connection in place of the present one. Calls on that go on.
    pub(crate) async fn replace(&self, dialer: &Dialer, address: &str) -> Result<(), ConnectError> {
        let fresh = dial(dialer, address).await?;
        self.connection.store(Arc::new(OnceCell::new_with(Some(fresh))));
        Ok(())
    }

    async fn attempt(
        &self,
        dialer: &Dialer,
        address: &str,
        before: Option<&Arc<ConnectError>>,
    ) -> Result<Connection, ConnectError> {
        // The attempt that this caller waited for has failed: it starts none of its own.
        if let Some(failure) = self.failure.load_full()
            && before.is_none_or(|before| !Arc::ptr_eq(before, &failure))
        {
            return Err(ConnectError::clone(&failure));
        }
        match dial(dialer, address).await {
            Ok(connection) => {
                self.failure.store(None);
                Ok(connection)
            }
            Err(error) => {
                tracing::debug!(peer = address, %error, "connecting failed");
                self.failure.store(Some(Arc::new(error.clone())));
                Err(error)
            }
        }
    }

    fn usable(&self) -> Arc<OnceCell<Connection>> {
        let current = self.connection.load_full();
        if !current.get().is_some_and(Connection::is_closed) {
            return current;
        }
        let fresh = Arc::new(OnceCell::new());
        let found = self.connection.compare_and_swap(&current, Arc::clone(&fresh));
        // If another caller replaced it first, all use that one.
        if Arc::ptr_eq(&found, &current) { fresh } else { Guard::into_inner(found) }
    }
}

async fn dial(dialer: &Dialer, address: &str) -> Result<Connection, ConnectError> {
    dialer.open(address_uri(dialer, address)?).await
}

/// The URI of an address, with the scheme of its connections.
pub(crate) fn address_uri(dialer: &Dialer, address: &str) -> Result<Uri, ConnectError> {
    let uri = format!("{}://{address}", dialer.scheme);
    uri.parse().map_err(|source| ConnectError::Address {
        address: address.into(),
        source: Arc::new(source),
    })
}
