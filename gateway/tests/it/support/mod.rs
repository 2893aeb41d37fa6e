//! Shared by all tests here: gateways, instances behind them and callers before them.

mod body;
mod caller;
mod gateway;
mod instance;
mod log;

use std::{future::Future, time::Duration};

use tokio::time::{sleep, timeout};

pub use self::{
    body::{fed, frames, full, next_data, pieces},
    caller::{Answer, Caller, whole},
    gateway::{Gateway, Setup},
    instance::{Acted, Instance, Seen, act, orders},
    log::Lines,
};

/// Longer than any wait of these tests where all is well.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

pub async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    soon(waiting).await;
}
