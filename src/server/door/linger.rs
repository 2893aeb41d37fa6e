//! The end of a connection whose caller may still send. TCP resets a connection that is closed with
//! unread bytes, and the caller then loses the last that it was sent, such as an alert.

use std::time::Duration;

use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// The longest wait for the caller's end.
const TIME_MAX: Duration = Duration::from_secs(1);
/// The most bytes that are read and dropped.
const BYTES_MAX: u64 = 64 * 1024;

/// Ends this side of a stream, then drops what the caller sends until it ends its side, too.
pub(super) async fn linger<I: AsyncRead + AsyncWrite + Unpin>(mut stream: I) {
    // Errors mean that the caller is gone.
    let _closed = stream.shutdown().await;
    let (mut rest, mut nowhere) = (stream.take(BYTES_MAX), io::sink());
    let _dropped = timeout(TIME_MAX, io::copy(&mut rest, &mut nowhere)).await;
}

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, join};

    use super::*;
    use crate::clock::Clock;

    #[tokio::test(start_paused = true)]
    async fn caller_that_still_sends_reads_the_end_first() {
        let (mut near, mut far) = duplex(1024);
        near.write_all(b"alert").await.unwrap();
        let caller = async {
            far.write_all(&[0; 10_000]).await.unwrap();
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            far.write_all(b"late").await.unwrap();
            drop(far);
            received
        };
        let clock = Clock::start();
        let ((), received) = join!(linger(near), caller);
        assert_eq!(received, b"alert");
        assert_eq!(clock.tick().0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn wait_is_bounded_in_time_and_bytes() {
        let (near, far) = duplex(1024);
        let clock = Clock::start();
        linger(near).await;
        assert_eq!(clock.tick().0 / 1000, TIME_MAX.as_secs());
        drop(far);
        let (near, mut far) = duplex(1024);
        let sent = async {
            let mut sent = 0;
            while far.write_all(&[0; 1024]).await.is_ok() {
                sent += 1024;
            }
            sent
        };
        let ((), sent) = join!(linger(near), sent);
        assert!(sent <= BYTES_MAX + 2 * 1024, "{sent}");
    }
}
