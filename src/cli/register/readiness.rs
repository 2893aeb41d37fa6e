//! Readiness checks: an instance is registered as UP once its check succeeds.

use std::{io, path::PathBuf, str::FromStr, time::Duration};

use futures_util::{Stream, stream};
use http::{Request, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::body::Body;

use crate::cli::{arguments::HostPort, escape::escape, output::print_notice};

/// The pause between two attempts. Short, since it adds to the time of every start.
const PAUSE: Duration = Duration::from_millis(200);

/// The timeout of an attempt.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// The number of failed attempts after which the last reason is printed: about 10 s of attempts
/// that fail at once.
const ATTEMPTS_BEFORE_NOTICE: u32 = 50;

const USER_AGENT: &str = concat!("waypost/", env!("CARGO_PKG_VERSION"));

/// A check of an instance's readiness.
#[derive(Clone, Debug)]
pub(crate) struct ReadinessCheck {
    /// The argument, for notices.
    text: String,
    kind: CheckKind,
}

#[derive(Clone, Debug, PartialEq)]
enum CheckKind {
    /// A GET of this path returns 2xx.
    Http { server: HostPort, path: PathAndQuery },
    /// A connection is accepted.
    Tcp(HostPort),
    /// The file exists.
    File(PathBuf),
}

/// The reason why a check failed.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("no response within {} s", ATTEMPT_MAX.as_secs())]
    Slow,
    #[error("the response status is {0}, not 2xx")]
    Status(StatusCode),
    #[error("invalid HTTP/1.1 response: {0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no such file")]
    NoFile,
}

impl ReadinessCheck {
    /// Returns a stream that yields `true` at the first success. Attempts are repeated without
    /// limit.
    pub(crate) fn success(self) -> impl Stream<Item = bool> + Send + 'static {
        stream::once(async move {
            self.succeed().await;
            true
        })
    }

    async fn succeed(&self) {
        let mut failed = 0_u32;
        while let Err(reason) = self.attempt().await {
            failed = failed.saturating_add(1);
            if failed == ATTEMPTS_BEFORE_NOTICE {
                let (check, reason) = (escape(&self.text), escape(&reason.to_string()));
                print_notice(&format_args!("not ready yet, still STARTING: {check}: {reason}"));
            }
            sleep(PAUSE).await;
        }
        if failed >= ATTEMPTS_BEFORE_NOTICE {
            print_notice(&"ready now");
        }
    }

    async fn attempt(&self) -> Result<(), CheckError> {
        let attempt = async {
            match &self.kind {
                CheckKind::Http { server, path } => get(server, path).await,
                CheckKind::Tcp(server) => connect(server).await.map(drop),
                CheckKind::File(path) if tokio::fs::try_exists(path).await? => Ok(()),
                CheckKind::File(_) => Err(CheckError::NoFile),
            }
        };
        timeout(ATTEMPT_MAX, attempt).await.unwrap_or(Err(CheckError::Slow))
    }
}

async fn connect(server: &HostPort) -> Result<TcpStream, CheckError> {
    Ok(TcpStream::connect((server.host.as_str(), server.port)).await?)
}

async fn get(server: &HostPort, path: &PathAndQuery) -> Result<(), CheckError> {
    let stream = TokioIo::new(connect(server).await?);
    let (mut requests, mut connection) = http1::handshake(stream).await?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from(path.clone());
    let fields = [
        (header::HOST, server.to_string()),
        (header::USER_AGENT, USER_AGENT.to_owned()),
        (header::CONNECTION, "close".to_owned()),
    ];
    for (name, value) in fields {
        let value = value.try_into().map_err(io::Error::other)?;
        request.headers_mut().insert(name, value);
    }
    let mut response = std::pin::pin!(requests.send_request(request));
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            response = &mut response => {
                let status = response?.status();
                return if status.is_success() { Ok(()) } else { Err(CheckError::Status(status)) };
            }
            // If it fails, so does the request.
            _ = &mut connection, if open => open = false,
        }
    }
}

impl FromStr for ReadinessCheck {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err("must name a file after `file:`".to_owned());
            }
            CheckKind::File(path.into())
        } else if let Some(server) = text.strip_prefix("tcp://") {
            CheckKind::Tcp(server.parse()?)
        } else if let Some(rest) = text.strip_prefix("http://") {
            let (server, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            let path = path.parse().map_err(|error| format!("the path: {error}"))?;
            CheckKind::Http { server: server.parse()?, path }
        } else {
            return Err("must be http://HOST:PORT/PATH, tcp://HOST:PORT or file:PATH".to_owned());
        };
        Ok(Self { text: text.to_owned(), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CheckKind, String> {
        text.parse::<ReadinessCheck>().map(|check| check.kind)
    }

    #[test]
    fn checks_are_parsed() {
        let server = |text: &str| text.parse::<HostPort>().unwrap();
        let http = |address: &str, path: &'static str| {
            Ok(CheckKind::Http { server: server(address), path: PathAndQuery::from_static(path) })
        };
        assert_eq!(parse("http://127.0.0.1:80"), http("127.0.0.1:80", "/"));
        assert_eq!(parse("http://[::1]:80/health?deep=1"), http("[::1]:80", "/health?deep=1"));
        assert_eq!(parse("http://app:8080?deep"), http("app:8080", "/?deep"));
        assert_eq!(parse("tcp://localhost:5432"), Ok(CheckKind::Tcp(server("localhost:5432"))));
        assert_eq!(parse("file:///run/app/ready"), Ok(CheckKind::File("/run/app/ready".into())));
        assert_eq!(parse("file:ready"), Ok(CheckKind::File("ready".into())));
    }

    #[test]
    fn invalid_checks_are_rejected() {
        for bad in [
            "",
            "127.0.0.1:80",
            "https://127.0.0.1:443/",
            "http://127.0.0.1/health",
            "http://127.0.0.1:0/",
            "http://::1:80/",
            "http://127.0.0.1:80/a b",
            "tcp://localhost",
            "tcp://localhost:80/",
            "file:",
            "file://",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
