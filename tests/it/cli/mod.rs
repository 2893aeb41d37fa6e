//! The command line: the real program against a real registry's process.

mod backup;
mod bench;
mod credentials;
mod large;
mod lists;
mod operator;
mod policy;
mod reach;
mod refusals;
mod register;
mod secured;
mod support;
mod watch;

use waypost_client::{Registered, Registration};

use self::support::{Running, Server};

fn orders(id: &str) -> Registration {
    Registration::new("orders", "10.0.0.7", 8080).id(id)
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Starts a watch and waits for its marker, which is not one of `orders`.
async fn watch_orders(server: &Server) -> (Running, Registered) {
    let marker = server.register(Registration::new("marker", "h", 1)).await;
    let mut watch = server.start_command(&["watch", "orders", "marker", "--output", "json"]);
    assert_eq!(watch.event().await["instance"]["service"], "marker");
    (watch, marker)
}

const REGISTER: [&str; 7] =
    ["register", "--service", "orders", "--address", "[::1]:80", "--id", "a"];
