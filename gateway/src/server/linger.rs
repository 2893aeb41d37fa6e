//! The end of a connection of HTTP/1 whose caller may still be sending: an upload that was refused, say. To
//! close it with bytes that were not read would reset it, and the caller would lose the response.

use std::{pin::pin, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// How long a caller may go on sending.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// How long it may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Both, once the gateway shuts down.
const LEAVING_MAX: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(200));
/// How many bytes are read at once.
const PIECE: usize = 16 * 1024;

/// Reads what comes, and drops it, until the caller closes its side too, or one of the bounds is reached.
/// This side is closed by then.
pub(super) async fn linger(mut stream: impl AsyncRead + Unpin, leaving: &CancellationToken) {
    let mut piece = vec![0; PIECE];
    let mut end = pin!(sleep(LINGER_MAX));
    let (mut silence_max, mut is_leaving) = (SILENCE_MAX, false);
    loop {
        tokio::select! {
            read = stream.read(&mut piece) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            () = sleep(silence_max) => return,
            () = &mut end => return,
            () = leaving.cancelled(), if !is_leaving => {
                (is_leaving, silence_max) = (true, LEAVING_MAX.1);
                end.set(sleep(LEAVING_MAX.0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// Returns whether it ends in time for a caller that sends something each so many milliseconds.
    async fn ends(within_ms: u64, each_ms: u64, leaving: &CancellationToken) -> bool {
        let (mut caller, stream) = duplex(64);
        let sends = async {
            while caller.write_all(b"more").await.is_ok() {
                sleep(Duration::from_millis(each_ms)).await;
            }
        };
        tokio::select! {
            () = sends => unreachable!("what reads it lives"),
            () = linger(stream, leaving) => true,
            () = sleep(Duration::from_millis(within_ms)) => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_its_caller() {
        let (leaving, (caller, stream)) = (CancellationToken::new(), duplex(64));
        drop(caller);
        tokio::select! {
            () = linger(stream, &leaving) => {}
            () = sleep(Duration::from_millis(1)) => panic!("it goes on"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded() {
        let leaving = CancellationToken::new();
        assert!(!ends(1_900, 60_000, &leaving).await);
        assert!(ends(2_100, 60_000, &leaving).await);
        assert!(!ends(29_900, 1_000, &leaving).await);
        assert!(ends(30_100, 1_000, &leaving).await);
        leaving.cancel();
        assert!(!ends(1_900, 100, &leaving).await);
        assert!(ends(2_100, 100, &leaving).await);
        assert!(ends(300, 1_000, &leaving).await);
    }
}
