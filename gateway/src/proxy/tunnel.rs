//! What follows an upgrade: bytes, both ways, until one side ends. It looks at none of them.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io;
use tokio_util::sync::CancellationToken;

/// Passes bytes on between both, until `closing`. `call`: what counts as in flight for as long.
pub(crate) async fn run<T: Send>(
    here: OnUpgrade,
    there: OnUpgrade,
    call: T,
    closing: CancellationToken,
) {
    let upgraded = tokio::try_join!(here, there);
    if let Ok((here, there)) = upgraded {
        let (mut here, mut there) = (TokioIo::new(here), TokioIo::new(there));
        let passing = io::copy_bidirectional(&mut here, &mut there);
        // Either side ends it however it likes.
        let _ended = closing.run_until_cancelled(passing).await;
    }
    drop(call);
}
