//! Writes bytes to a socket and reads the response, without a library for HTTP.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedReadHalf},
    time::timeout,
};

use crate::hostile::support::{
    case::{Case, Outcome},
    frames,
};

/// Long enough for whatever has to come to be there.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Writes all of a case at once, and reads until the connection is closed or its stream ends.
pub async fn speak(gateway: SocketAddr, case: &Case) -> Outcome {
    let (mut read, mut write) = TcpStream::connect(gateway).await.unwrap().into_split();
    let said = async {
        // The gateway may respond before all is sent.
        let _heard = write.write_all(&case.bytes).await;
        // Held open: that there is no more to come is for the gateway to know.
        std::future::pending::<()>().await;
    };
    let answered = async {
        if case.multiplexed() { frames::outcome(&mut read).await } else { outcome(&mut read).await }
    };
    tokio::select! {
        () = said => unreachable!("it never ends"),
        outcome = answered => outcome,
    }
}

/// The outcome of a request over HTTP/1.
pub async fn outcome(read: &mut OwnedReadHalf) -> Outcome {
    let mut bytes = Vec::new();
    let closed = read_to_end(read, &mut bytes).await;
    let statuses = statuses(&bytes);
    match (statuses.as_slice(), closed) {
        (_, false) => Outcome::Open,
        ([], true) => Outcome::Cut,
        ([status], true) => Outcome::Answered(*status),
        ([.., status], true) => Outcome::AnsweredAgain(*status),
    }
}

/// Sends bytes, and returns everything received until the connection closes.
pub async fn hear(gateway: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let (mut read, mut write) = TcpStream::connect(gateway).await.unwrap().into_split();
    write.write_all(bytes.as_ref()).await.unwrap();
    let mut heard = Vec::new();
    assert!(read_to_end(&mut read, &mut heard).await, "it is left open");
    String::from_utf8(heard).unwrap()
}

/// True where the connection ended within [`PATIENCE`], by a reset as well.
async fn read_to_end(read: &mut OwnedReadHalf, bytes: &mut Vec<u8>) -> bool {
    timeout(PATIENCE, read.read_to_end(bytes)).await.is_ok()
}

/// The statuses of all responses, without interim ones. Their bodies contain no status line.
pub fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split("HTTP/1.").skip(1);
    let statuses = lines.filter_map(|line| line.get(2..5)?.parse().ok());
    statuses.filter(|status| *status >= 200).collect()
}
