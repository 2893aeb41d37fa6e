//! The credentials of a client at work: what its next connection and request carry, and a number
//! that grows with each change of them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, header::AUTHORIZATION};
use tokio::sync::watch;

#[cfg(feature = "tls")]
use super::tls::{FollowedFolder, InvalidServerId, ServerId, TlsIdentity};
use super::{
    settings::Credentials,
    token::{Token, TokenError, TokenSource},
};
#[cfg(feature = "tls")]
use crate::runtime::clock;

/// The time left of credentials without a certificate when they are replaced: their end is unknown.
const UNKNOWN_LEFT: Duration = Duration::from_secs(180);

/// The credentials in force. Shared by a client's connections to the registry.
pub(crate) struct ActiveCredentials {
    #[cfg(feature = "tls")]
    folder: Option<Arc<FollowedFolder>>,
    #[cfg(feature = "tls")]
    server_id: Option<ServerId>,
    token: Option<Arc<dyn TokenSource>>,
    seen: Mutex<SeenCredentials>,
    /// Counts the changes.
    version: watch::Sender<u64>,
}

/// The credentials at the last comparison.
#[derive(PartialEq, Eq)]
struct SeenCredentials {
    #[cfg(feature = "tls")]
    identity: Option<SeenIdentity>,
    token: Option<Token>,
}

/// An identity, compared by its allocation: folders keep it while their content is the same.
#[cfg(feature = "tls")]
struct SeenIdentity(Arc<TlsIdentity>);

#[cfg(feature = "tls")]
impl PartialEq for SeenIdentity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(feature = "tls")]
impl Eq for SeenIdentity {}

impl ActiveCredentials {
    /// Puts credentials in force. Returns an invalid id of the server with its error.
    #[cfg(feature = "tls")]
    pub(crate) fn new(settings: Credentials) -> Result<Arc<Self>, (String, InvalidServerId)> {
        let Credentials { folder, server_id, token } = settings;
        let parse = |id: String| ServerId::parse(&id).map_err(|error| (id, error));
        let server_id = server_id.map(parse).transpose()?;
        let identity = folder.as_ref().map(|folder| SeenIdentity(folder.current()));
        let seen = SeenCredentials { identity, token: current_token(&token) };
        let (seen, version) = (Mutex::new(seen), watch::Sender::new(0));
        Ok(Arc::new(Self { folder, server_id, token, seen, version }))
    }

    /// Puts credentials in force.
    #[cfg(not(feature = "tls"))]
    pub(crate) fn new(settings: Credentials) -> Arc<Self> {
        let Credentials { token } = settings;
        let seen = Mutex::new(SeenCredentials { token: current_token(&token) });
        Arc::new(Self { token, seen, version: watch::Sender::new(0) })
    }

    /// The number of changes, and a notification of further ones.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn current_version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Adds the token to the headers of a request.
    pub(crate) fn authorize(&self, headers: &mut HeaderMap) -> Result<(), TokenError> {
        if let Some(source) = &self.token {
            headers.insert(AUTHORIZATION, source.token()?.authorization());
        }
        Ok(())
    }

    /// The settings of the next TLS connection; `None` without an identity folder.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<tokio_rustls::rustls::ClientConfig> {
        Some(self.folder.as_ref()?.current().config(self.server_id.as_ref()))
    }

    /// The SPIFFE ID that the registry proves, if it is not the host.
    #[cfg(feature = "tls")]
    pub(crate) fn server_id(&self) -> Option<&ServerId> {
        self.server_id.as_ref()
    }

    /// Reads the files, and compares as [`refresh`](Self::refresh) does. Cancel safe.
    #[cfg_attr(not(feature = "tls"), expect(clippy::unused_async, reason = "no files to read"))]
    pub(crate) async fn poll(&self) -> Option<Duration> {
        #[cfg(feature = "tls")]
        if let Some(folder) = &self.folder {
            folder.poll().await;
        }
        self.refresh()
    }

    /// Compares the credentials with those of the last time. After a change, returns how long those
    /// before would have lasted.
    pub(crate) fn refresh(&self) -> Option<Duration> {
        let mut seen = self.seen();
        let now = SeenCredentials {
            #[cfg(feature = "tls")]
            identity: self.folder.as_ref().map(|folder| SeenIdentity(folder.current())),
            // A source that fails keeps the last token: that is no change.
            token: current_token(&self.token).or_else(|| seen.token.clone()),
        };
        if *seen == now {
            return None;
        }
        let left = seen.left(&now);
        *seen = now;
        drop(seen);
        self.version.send_modify(|version| *version += 1);
        Some(left)
    }

    fn seen(&self) -> MutexGuard<'_, SeenCredentials> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeenCredentials {
    /// The time that the credentials would have lasted which `next` replaces.
    fn left(&self, next: &Self) -> Duration {
        let token = (self.token != next.token).then_some(UNKNOWN_LEFT);
        #[cfg(feature = "tls")]
        let token = {
            let replaced = self.identity.as_ref().filter(|_| self.identity != next.identity);
            let ends_at = replaced.and_then(|identity| identity.0.ends_at());
            let left = ends_at.map(|at| at.duration_since(clock::wall_now()).unwrap_or_default());
            left.into_iter().chain(token).min()
        };
        token.unwrap_or(UNKNOWN_LEFT)
    }
}

fn current_token(source: &Option<Arc<dyn TokenSource>>) -> Option<Token> {
    source.as_ref()?.token().ok()
}

impl fmt::Debug for ActiveCredentials {
    /// Leaves out all that is secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.current_version();
        formatter.debug_struct("ActiveCredentials").field("version", &version).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that a test changes.
    #[derive(Clone)]
    struct Changing(Arc<Mutex<Result<Token, TokenError>>>);

    impl Changing {
        fn new(text: &str) -> Self {
            Self(Arc::new(Mutex::new(Token::new(text))))
        }

        fn set(&self, token: Result<Token, TokenError>) {
            *self.0.lock().unwrap() = token;
        }
    }

    impl TokenSource for Changing {
        fn token(&self) -> Result<Token, TokenError> {
            self.0.lock().unwrap().clone()
        }
    }

    fn active(settings: Credentials) -> Arc<ActiveCredentials> {
        #[cfg(feature = "tls")]
        return ActiveCredentials::new(settings).unwrap();
        #[cfg(not(feature = "tls"))]
        ActiveCredentials::new(settings)
    }

    #[test]
    fn each_change_of_the_token_counts_once() {
        let source = Changing::new("s3cret");
        let active = active(Credentials::default().token(source.clone()));
        assert_eq!((active.refresh(), active.current_version()), (None, 0));
        source.set(Token::new("s3cret2"));
        assert_eq!((active.refresh(), active.current_version()), (Some(UNKNOWN_LEFT), 1));
        assert_eq!((active.refresh(), active.current_version()), (None, 1));
        source.set(Err(TokenError::unavailable("not now")));
        assert_eq!((active.refresh(), active.current_version()), (None, 1));
        source.set(Token::new("s3cret2"));
        assert_eq!((active.refresh(), active.current_version()), (None, 1));
    }

    #[test]
    fn a_request_carries_the_present_token_and_shows_none() {
        let source = Changing::new("s3cret");
        let settings = Credentials::default().token(source.clone());
        let active = active(settings.clone());
        let mut headers = HeaderMap::new();
        active.authorize(&mut headers).unwrap();
        source.set(Token::new("s3cret2"));
        active.authorize(&mut headers).unwrap();
        assert_eq!(headers[AUTHORIZATION], "Bearer s3cret2");
        assert!(!format!("{active:?} {settings:?} {headers:?}").contains("s3cret"));
        source.set(Err(TokenError::unavailable("not now")));
        assert_eq!(active.authorize(&mut headers), Err(TokenError::unavailable("not now")));
    }
}
