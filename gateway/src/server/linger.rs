//! The end of a connection of HTTP/1 whose caller may still be sending: an upload that was refused, say. To
//! close it with bytes that were not read would reset it, and the caller would lose the response.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, sleep_until},
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
    let mut end = Instant::now() + LINGER_MAX;
    let (mut silence_max, mut is_leaving) = (SILENCE_MAX, false);
    loop {
        let silence_end = end.min(Instant::now() + silence_max);
        tokio::select! {
            read = stream.read(&mut piece) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            () = sleep_until(silence_end) => return,
            () = leaving.cancelled(), if !is_leaving => {
                (is_leaving, silence_max) = (true, LEAVING_MAX.1);
                end = end.min(Instant::now() + LEAVING_MAX.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncWriteExt, duplex},
        time::sleep,
    };

    use super::*;

    /// How long it lingers for a caller that sends something each so often.
    async fn lasts(pause: Duration, leaving: &CancellationToken) -> Duration {
        let (mut caller, stream) = duplex(64);
        tokio::spawn(async move {
            while caller.write_all(b"more").await.is_ok() {
                sleep(pause).await;
            }
        });
        let began = Instant::now();
        linger(stream, leaving).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_its_caller() {
        let (caller, stream) = duplex(64);
        drop(caller);
        let began = Instant::now();
        linger(stream, &CancellationToken::new()).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded() {
        let leaving = CancellationToken::new();
        assert_eq!(lasts(Duration::from_secs(60), &leaving).await, SILENCE_MAX);
        let long = lasts(Duration::from_secs(1), &leaving).await;
        assert!(long.abs_diff(LINGER_MAX) < Duration::from_millis(10), "{long:?}");
        leaving.cancel();
        let short = lasts(Duration::from_millis(100), &leaving).await;
        assert!(short.abs_diff(LEAVING_MAX.0) < Duration::from_millis(10), "{short:?}");
        assert_eq!(lasts(Duration::from_secs(1), &leaving).await, LEAVING_MAX.1);
    }
}
