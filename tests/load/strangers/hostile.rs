//! Hostile strangers: what one of each kind sends. A connection that the server closes is done.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConnection, pki_types::ServerName},
};
use waypost_testing::http2::{RawClient, framed, full};

use super::{SERVER, connect};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Frames of a flood, at most.
const FRAMES: u32 = 20_000;
/// A request of `POST https://registry.test/waypost.v1.Admin/GetStatus` for gRPC, by HPACK without
/// a table.
const REQUEST: &[u8] = b"\x83\x87\x01\x0dregistry.test\x04\x1b/waypost.v1.Admin/GetStatus\
    \x0f\x10\x10application/grpc";

/// A kind of hostile connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Silent,
    ByteASecond,
    HalfHandshake,
    TlsThenSilence,
    Resets,
    Continuation,
    EmptyData,
    Settings,
    BadTokens,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Silent,
        Self::ByteASecond,
        Self::HalfHandshake,
        Self::TlsThenSilence,
        Self::Resets,
        Self::Continuation,
        Self::EmptyData,
        Self::Settings,
        Self::BadTokens,
    ];

    /// Returns whether it costs its sender a whole handshake.
    pub(super) fn shakes_hands(self) -> bool {
        !matches!(self, Self::Silent | Self::ByteASecond | Self::HalfHandshake)
    }

    /// Attacks until the server closes the connection, or for ever.
    pub(super) async fn attack(
        self,
        server: SocketAddr,
        connector: &TlsConnector,
    ) -> io::Result<()> {
        let mut stream = connect(server, [127, 0, 0, 1]).await;
        match self {
            Self::Silent => {}
            Self::ByteASecond => {
                for byte in client_hello(connector)? {
                    stream.write_all(&[byte]).await?;
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Self::HalfHandshake => stream.write_all(&client_hello(connector)?).await?,
            Self::BadTokens => {
                let stream = shake_hands(connector, stream).await?;
                return bad_tokens(stream, server).await;
            }
            flood => {
                let mut stream = shake_hands(connector, stream).await?;
                if flood != Self::TlsThenSilence {
                    flood.flood(&mut stream).await?;
                }
                return wait_for_the_end(&mut stream).await;
            }
        }
        wait_for_the_end(&mut stream).await
    }

    /// Sends the frames of a flood, without reading.
    async fn flood(self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut bytes = PREFACE.to_vec();
        push_frame(&mut bytes, SETTINGS, 0, 0, &[]);
        match self {
            Self::Continuation => push_frame(&mut bytes, HEADERS, END_STREAM, 1, REQUEST),
            Self::EmptyData => push_frame(&mut bytes, HEADERS, END_HEADERS, 1, REQUEST),
            _ => {}
        }
        for number in 0..FRAMES {
            let id = 2 * number + 1;
            match self {
                Self::Resets => {
                    push_frame(&mut bytes, HEADERS, END_HEADERS | END_STREAM, id, REQUEST);
                    push_frame(&mut bytes, RST_STREAM, 0, id, &[0, 0, 0, 8]);
                }
                Self::Continuation => push_frame(&mut bytes, CONTINUATION, 0, 1, b"\0\x01a\x01b"),
                Self::EmptyData => push_frame(&mut bytes, DATA, 0, 1, &[]),
                _ => push_frame(&mut bytes, SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
            }
            if bytes.len() > 8 * 1024 {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                bytes.clear();
            }
        }
        stream.write_all(&bytes).await?;
        stream.flush().await
    }
}

/// Calls with a token that is not valid, again and again.
async fn bad_tokens(stream: TlsStream<TcpStream>, server: SocketAddr) -> io::Result<()> {
    let mut client = RawClient::over(stream, server).await.map_err(io::Error::other)?;
    loop {
        let request = Request::post(format!("https://{server}/waypost.v1.Admin/GetStatus"))
            .header("content-type", "application/grpc")
            .header("authorization", "Bearer waypost_nonsense")
            .body(full(framed(&[])))
            .expect("a request");
        client.request(request).await.map_err(io::Error::other)?;
    }
}

async fn wait_for_the_end(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<()> {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

async fn shake_hands(
    connector: &TlsConnector,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(SERVER).expect("a name");
    connector.connect(name, stream).await
}

/// The first message of a handshake.
fn client_hello(connector: &TlsConnector) -> io::Result<Vec<u8>> {
    let name = ServerName::try_from(SERVER).expect("a name");
    let mut connection =
        ClientConnection::new(Arc::clone(connector.config()), name).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes)?;
    Ok(bytes)
}

fn push_frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    bytes.extend(&length[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}
