//! The tunnel after an upgrade: copies bytes both ways until either side ends.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io;
use tokio_util::sync::CancellationToken;

/// Copies bytes between both connections until `abort`. Holds `call` as long, which counts as in
/// flight.
pub(crate) async fn run<T: Send>(
    here: OnUpgrade,
    there: OnUpgrade,
    call: T,
    abort: CancellationToken,
) {
    let upgraded = tokio::try_join!(here, there);
    if let Ok((here, there)) = upgraded {
        let (mut here, mut there) = (TokioIo::new(here), TokioIo::new(there));
        let copying = io::copy_bidirectional(&mut here, &mut there);
        // Either side may end the tunnel at any time, in any way.
        let _ended = abort.run_until_cancelled(copying).await;
    }
    drop(call);
}
