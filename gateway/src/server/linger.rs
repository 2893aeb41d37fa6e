//! The end of a connection of HTTP/1 whose caller may still be sending, such as a body that was
//! refused. Closing it with unread bytes would reset it, and the caller would lose the response.

use std::{pin::pin, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// The time for which a caller may go on sending.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// The time for which it may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Both, once the gateway drains.
const DRAIN_MAX: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(200));
/// The bytes that are read at once.
const READ_BYTES: usize = 16 * 1024;

/// Reads and drops bytes until the caller closes its side too, or one of the bounds is reached.
/// This side is closed already.
pub(super) async fn linger(mut stream: impl AsyncRead + Unpin, drain: &CancellationToken) {
    let mut buffer = vec![0; READ_BYTES];
    let mut end = pin!(sleep(LINGER_MAX));
    let (mut silence_max, mut is_draining) = (SILENCE_MAX, false);
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            () = sleep(silence_max) => return,
            () = &mut end => return,
            () = drain.cancelled(), if !is_draining => {
                (is_draining, silence_max) = (true, DRAIN_MAX.1);
                end.set(sleep(DRAIN_MAX.0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// Returns true where it ends in time for a caller that sends bytes every `each_ms`.
    async fn ends(within_ms: u64, each_ms: u64, drain: &CancellationToken) -> bool {
        let (mut caller, stream) = duplex(64);
        let sends = async {
            while caller.write_all(b"more").await.is_ok() {
                sleep(Duration::from_millis(each_ms)).await;
            }
        };
        tokio::select! {
            () = sends => unreachable!("the reader goes on"),
            () = linger(stream, drain) => true,
            () = sleep(Duration::from_millis(within_ms)) => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_ends_with_its_caller() {
        let (drain, (caller, stream)) = (CancellationToken::new(), duplex(64));
        drop(caller);
        tokio::select! {
            () = linger(stream, &drain) => {}
            () = sleep(Duration::from_millis(1)) => panic!("it goes on"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_is_bounded() {
        let drain = CancellationToken::new();
        assert!(!ends(1_900, 60_000, &drain).await);
        assert!(ends(2_100, 60_000, &drain).await);
        assert!(!ends(29_900, 1_000, &drain).await);
        assert!(ends(30_100, 1_000, &drain).await);
        drain.cancel();
        assert!(!ends(1_900, 100, &drain).await);
        assert!(ends(2_100, 100, &drain).await);
        assert!(ends(300, 1_000, &drain).await);
    }
}
