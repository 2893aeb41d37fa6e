//! A gateway in this process, and what it says of each request.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use waypost_gateway::{Options, Running, forwarded::TrustedProxies, start};

use crate::registry::client;

/// A gateway, and the lines of its access log.
pub(crate) struct Entrance {
    running: Running,
    lines: Lines,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Entrance {
    /// One that finds services at the registry that the file tells of, with the routes of another file.
    pub(crate) async fn start(registry: &Path, routes: Option<PathBuf>) -> Self {
        let lines = Lines::default();
        let nowhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        let running = start(Options {
            listen: nowhere,
            admin_listen: nowhere,
            config: routes,
            client: client(registry).build().expect("a client"),
            trusted: TrustedProxies::default(),
            name: "entrance".to_owned(),
            advertised: None,
            figures: None,
            access_log: Some(Box::new(lines.clone())),
            head_timeout: Duration::from_secs(10),
            body_silence_max: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        })
        .await
        .expect("a gateway");
        Self { running, lines }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.address()
    }

    /// Ends it, and gives what it said of all requests.
    pub(crate) async fn close(self) -> Vec<Value> {
        self.running.close().await;
        let text = String::from_utf8(self.lines.0.lock().expect("no panic").clone());
        let text = text.expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}
