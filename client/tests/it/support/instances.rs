//! Instances on loopback, for suites without a registry.

use tokio::net::TcpSocket;
use waypost_client::{Instance, proto::Status};

/// An instance of `orders` on loopback.
pub fn instance(id: &str, port: u16) -> Instance {
    Instance {
        service: "orders".into(),
        id: id.into(),
        host: "127.0.0.1".into(),
        port: port.into(),
        status: Status::Up.into(),
        ..Instance::default()
    }
}

/// An instance that accepts no connection. The socket keeps its port until it is dropped.
pub fn gone() -> (Instance, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (instance("gone", socket.local_addr().unwrap().port()), socket)
}
