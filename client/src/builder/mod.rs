//! The builder of a client: its settings, their defaults and bounds. Building does no I/O and needs
//! no runtime.

mod addresses;
mod error;

use std::{error::Error, path::PathBuf, sync::Arc, time::Duration};

use http::Uri;
use tower::Service as TowerService;

use self::addresses::{active, address_dialer};
pub use self::error::BuildError;

#[cfg(feature = "tls")]
use crate::transport::Tls;
use crate::{
    client::{Client, Inner},
    credentials::Credentials,
    registration::Heartbeats,
    registry::RegistryLink,
    runtime::backoff::Backoff,
    transport::{Connector, Dialer},
    view::ViewDir,
};

/// The default address of the registry.
const REGISTRY_DEFAULT: &str = "http://127.0.0.1:7510";

/// Longer than any wait of a client, and short enough to be added to any time.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The shortest backoff; without one, clients would flood the registry.
const BACKOFF_MIN: Duration = Duration::from_millis(1);

impl Client {
    /// Creates a client of the registry at `registry`, with all defaults.
    ///
    /// # Errors
    /// [`BuildError::BadUrl`] for anything but `http://host:port`. A registry at
    /// `https://host:port` needs [credentials](Builder::credentials).
    ///
    /// ```
    /// use waypost_client::Client;
    ///
    /// assert!(Client::new("http://127.0.0.1:7510").is_ok());
    /// assert!(Client::new("127.0.0.1:7510").is_err());
    /// ```
    pub fn new(registry: impl Into<String>) -> Result<Self, BuildError> {
        Self::builder().registry(registry).build()
    }

    /// Starts to build a client with other settings.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waypost_client::Client;
    ///
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::builder()
    ///     .registry("http://10.0.0.1:7510")
    ///     .registry("http://10.0.0.2:7510")
    ///     .namespace("shop")
    ///     .connect_timeout(Duration::from_millis(500))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder {
            registries: Vec::new(),
            namespace: String::new(),
            dialer: Dialer::default(),
            credentials: None,
            #[cfg(feature = "tls")]
            tls: None,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
            keep_missing_for: Duration::from_secs(15),
            failback_interval: Duration::from_secs(15),
            view_dir: None,
        }
    }
}

/// Builds a [`Client`]. Every setting has a default. Times over a year count as a year.
///
/// ```
/// use std::time::Duration;
/// use waypost_client::Client;
///
/// # fn main() -> Result<(), waypost_client::BuildError> {
/// // All defaults, written out.
/// let client = Client::builder()
///     .registry("http://127.0.0.1:7510")
///     .namespace("default")
///     .connect_timeout(Duration::from_secs(1))
///     .keep_alive(Duration::from_secs(5), Duration::from_secs(2))
///     .backoff(Duration::from_millis(50), Duration::from_secs(5))
///     .keep_missing_for(Duration::from_secs(15))
///     .failback_interval(Duration::from_secs(15))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder builds nothing by itself"]
pub struct Builder {
    registries: Vec<String>,
    namespace: String,
    dialer: Dialer,
    credentials: Option<Credentials>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    backoff: Backoff,
    keep_missing_for: Duration,
    failback_interval: Duration,
    view_dir: Option<PathBuf>,
}

impl Builder {
    /// Adds an address of the registry, `https://host:port`, or `http://host:port` for one without
    /// TLS. Each client starts with a random one,
    /// its primary. If one fails, the client uses the next one, until the primary responds again
    /// ([`Self::failback_interval`]). The host is an IP address (IPv6 in brackets) or a DNS name,
    /// which is resolved for each connection. Default: `http://127.0.0.1:7510` only.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::Client;
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::builder()
    ///     .registry("http://registry.internal:7510")
    ///     .registry("http://[2001:db8::7]:7510")
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn registry(mut self, url: impl Into<String>) -> Self {
        self.registries.push(url.into());
        self
    }

    /// Sets what this client and the registry prove to each other. An address with `https` needs
    /// the CA certificates of an [identity folder](Credentials::folder). Credentials are sent to
    /// the registry alone, over TLS or to an address of this machine. Default: none.
    ///
    /// ```no_run
    /// use waypost_client::{Client, Credentials, TokenFile};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::builder()
    ///     .registry("https://registry.internal:7510")
    ///     .credentials(Credentials::folder("/etc/waypost/tls")?)
    ///     .build()?;
    /// // Behind a proxy on this machine, which has the certificates.
    /// let behind_proxy = Client::builder()
    ///     .credentials(Credentials::default().token(TokenFile::open("/etc/waypost/token")?))
    ///     .build()?;
    /// # drop((client, behind_proxy));
    /// # Ok(())
    /// # }
    /// ```
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Sets the namespace of this client's registrations and services. The registry refuses an
    /// invalid one. Default: `default`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::Client;
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::builder().namespace("shop").build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the longest that connecting may take, to the registry or to an instance. Default: 1 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::Client;
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::builder()
    ///     .connect_timeout(Duration::from_millis(300))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.dialer.connect_timeout = timeout.min(DURATION_MAX);
        self
    }

    /// Sets the keep-alive of connections, to the registry and to instances: a connection that is
    /// silent for `interval` gets a ping, and is closed if that is not answered within `timeout`,
    /// which ends the calls on it. Default: 5 s and 2 s.
    ///
    /// Some servers reject frequent pings: grpc-go closes such connections unless its enforcement
    /// policy allows the interval.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::Client;
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::builder()
    ///     .keep_alive(Duration::from_secs(20), Duration::from_secs(3))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.dialer.keep_alive_interval = interval.min(DURATION_MAX);
        self.dialer.keep_alive_timeout = timeout.min(DURATION_MAX);
        self
    }

    /// Sets the delay between attempts to reach the registry: a random time up to `base` at first,
    /// up to twice as long after each attempt, and never more than `cap`. Default: 50 ms and 5 s;
    /// at least 1 ms each.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::Client;
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::builder()
    ///     .backoff(Duration::from_millis(200), Duration::from_secs(30))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        let bounded = |wait: Duration| wait.clamp(BACKOFF_MIN, DURATION_MAX);
        self.backoff = Backoff::new(bounded(base), bounded(cap));
        self
    }

    /// Sets how long instances stay usable that a registry lacks after it lost its state (it has a
    /// new history). They need a heartbeat interval to notice and to register again; their TTL is
    /// ample. A client does not know TTLs: set it to the longest TTL, if that is longer than this.
    /// [`Snapshot::missing`](crate::Snapshot::missing) lists these instances and their deadlines.
    /// Time without a registry does not count. With zero, an empty registry empties the view at
    /// once. Default: 15 s, the default TTL.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::Client;
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::builder().keep_missing_for(Duration::ZERO).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn keep_missing_for(mut self, time: Duration) -> Self {
        self.keep_missing_for = time.min(DURATION_MAX);
        self
    }

    /// Keeps the last view of each service in a file in this directory, so that a process that
    /// starts while the registry is unreachable has a view. The stored view is published at once
    /// ([`Service::ready`](crate::Service::ready) returns), as [stale](crate::Freshness). Once the
    /// registry responds, the watch resumes, or, in a new history, keeps missing instances for
    /// [`Self::keep_missing_for`]. Default: none, no views are stored.
    ///
    /// The client creates the directory. It replaces files as a whole, in the background, at most
    /// once a second for each service. Changes in the last second before the process ends may be
    /// missing, which costs only the time to catch up. A file that is damaged, or of another
    /// service or format, is logged (`warn`) and ignored; a failing disk is logged once for each
    /// outage. The files of services that are not used any more stay. Files contain all data of
    /// instances, and only their owner may read them. Processes with the same registry may share a
    /// directory.
    ///
    /// ```
    /// # use waypost_client::Client;
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::builder().view_dir("/var/cache/shop/waypost").build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn view_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.view_dir = Some(path.into());
        self
    }

    /// Sets the shortest time before a failed primary address of the registry is probed, if there
    /// are several addresses. The delay is random, up to three times as long, and becomes up to
    /// four times longer while the probes fail. Once the primary responds, watches move back within
    /// a third of this time and resume; heartbeats follow within the same time. Default: 15 s; at
    /// least 1 ms.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use waypost_client::Client;
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::builder()
    ///     .registry("http://10.0.0.1:7510")
    ///     .registry("http://10.0.0.2:7510")
    ///     .failback_interval(Duration::from_secs(60))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn failback_interval(mut self, interval: Duration) -> Self {
        self.failback_interval = interval.clamp(BACKOFF_MIN, DURATION_MAX);
        self
    }

    /// Connects to the registry and to instances with `connector` instead of over TCP. It is called
    /// with an `http` URI whose host and port are the address; TLS comes on top of it. For
    /// simulated networks, or sockets with special options. Over TCP it should set `TCP_NODELAY`,
    /// as the default one does: without it, a call may take 40 ms longer.
    ///
    /// ```
    /// use hyper_util::rt::TokioIo;
    /// use tokio::net::TcpStream;
    /// use waypost_client::Client;
    ///
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::builder()
    ///     .connector(tower::service_fn(|uri: http::Uri| async move {
    ///         let address = uri.authority().map(|authority| authority.as_str().to_owned());
    ///         let stream = TcpStream::connect(address.unwrap_or_default()).await?;
    ///         stream.set_nodelay(true)?;
    ///         Ok::<_, std::io::Error>(TokioIo::new(stream))
    ///     }))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connector<C>(mut self, connector: C) -> Self
    where
        C: TowerService<Uri> + Clone + Send + Sync + 'static,
        C::Response: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
        C::Error: Into<Box<dyn Error + Send + Sync>>,
        C::Future: Send,
    {
        self.dialer.connector = Connector::new(connector);
        self
    }

    /// Connects to instances over TLS (feature `tls`), on top of the [connector](Self::connector)
    /// or TCP. Connections to the registry have [settings](Self::credentials) of their own.
    /// Default: no TLS.
    ///
    /// ```no_run
    /// use waypost_client::{Client, Tls};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tls = Tls::new(&std::fs::read("ca.pem")?)?;
    /// let client = Client::builder().tls(tls).build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Builds the client, which does not connect yet.
    ///
    /// # Errors
    /// [`BuildError::BadUrl`] for a URL that is not `https://host:port` or `http://host:port`,
    /// [`BuildError::ClearText`] for credentials and a URL with `http` of another machine,
    /// [`BuildError::NoRoots`] for a URL with `https` and no CA certificates, and
    /// [`BuildError::BadServerId`].
    ///
    /// ```
    /// use waypost_client::{BuildError, Client, Credentials, Token};
    ///
    /// assert!(Client::builder().build().is_ok());
    /// assert!(Client::builder().registry("registry").build().is_err());
    /// let token = Token::new("waypost_2c26b46b68ffc68f").expect("it is visible ASCII");
    /// let builder = Client::builder().credentials(Credentials::default().token(token));
    /// let refused = builder.registry("http://10.0.0.1:7510").build();
    /// assert!(matches!(refused, Err(BuildError::ClearText { .. })));
    /// ```
    pub fn build(mut self) -> Result<Client, BuildError> {
        if self.registries.is_empty() {
            self.registries.push(REGISTRY_DEFAULT.to_owned());
        }
        let credentials = self.credentials.take().map(active).transpose()?;
        let address = |url: &String| address_dialer(&self.dialer, url, credentials.as_ref());
        let addresses: Vec<_> = self.registries.iter().map(address).collect::<Result<_, _>>()?;
        let link = RegistryLink::new(addresses, credentials, self.backoff, self.failback_interval);
        Ok(Client {
            inner: Arc::new(Inner {
                heartbeats: Heartbeats::new(Arc::clone(&link)),
                link,
                dialer: self.dialer,
                #[cfg(feature = "tls")]
                tls: self.tls,
                services: Arc::default(),
                namespace: self.namespace,
                keep_missing_for: self.keep_missing_for,
                view_dir: self.view_dir.map(|path| Arc::new(ViewDir::new(path))),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{addresses::registry_uri, *};

    #[test]
    fn defaults_are_as_documented() {
        let builder = Client::builder();
        assert_eq!(builder.dialer.connect_timeout, Duration::from_secs(1));
        assert_eq!(builder.dialer.keep_alive_interval, Duration::from_secs(5));
        assert_eq!(builder.dialer.keep_alive_timeout, Duration::from_secs(2));
        assert_eq!(builder.backoff.cap(), Duration::from_secs(5));
        assert_eq!(builder.backoff.clone().delay(1.0, None), Duration::from_millis(50));
        assert_eq!(builder.keep_missing_for, Duration::from_secs(15));
        assert_eq!(builder.failback_interval, Duration::from_secs(15));
        #[cfg(feature = "tls")]
        assert!(builder.tls.is_none());
        // The registry's default namespace.
        assert_eq!(builder.namespace, "");
        assert_eq!(REGISTRY_DEFAULT, "http://127.0.0.1:7510");
        assert!(registry_uri(REGISTRY_DEFAULT).is_ok());
    }

    #[test]
    fn times_are_bounded() {
        let most = Duration::MAX;
        let builder = Client::builder().backoff(Duration::ZERO, Duration::ZERO);
        assert_eq!(builder.backoff.cap(), BACKOFF_MIN);
        let builder = builder.connect_timeout(most).keep_alive(most, most).keep_missing_for(most);
        let builder = builder.backoff(most, most).failback_interval(most);
        assert_eq!(builder.failback_interval, DURATION_MAX);
        assert_eq!((builder.keep_missing_for, builder.backoff.cap()), (DURATION_MAX, DURATION_MAX));
        assert_eq!(builder.dialer.connect_timeout, DURATION_MAX);
        assert_eq!(builder.dialer.keep_alive_interval, DURATION_MAX);
        assert_eq!(builder.dialer.keep_alive_timeout, DURATION_MAX);
    }

    #[test]
    fn a_client_is_built_without_a_runtime() {
        assert!(Client::builder().build().is_ok());
    }
}
