//! Follows the files that callers are judged by: reads all of them again when the content of one
//! changes, and at SIGHUP, and puts them into force as a whole, or not.

use std::{sync::Arc, time::Duration};

use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use waypost_config::reload::Hangup;
use waypost_serving::tasks;

use super::{access::JudgedFiles, audit, trust_files::TrustContents};
use crate::{
    auth::{Gate, TrustCell},
    clock::Clock,
    engine::Engine,
};

/// The interval in which the files are read.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time for which all files must stay as they are before they are judged.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// The longest wait for files to settle, in settle times. Beyond, they are judged as they are.
const SETTLES_MAX: u32 = 5;

/// The follower of the files.
pub(super) struct Follower {
    pub(super) files: JudgedFiles,
    pub(super) trust: Arc<TrustCell>,
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    /// Has the audit log.
    pub(super) gate: Gate,
}

impl Follower {
    /// Follows the files until `stop` is cancelled.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut hangup = Hangup::new();
        loop {
            let requested = select! {
                () = stop.cancelled() => return,
                () = hangup.received() => true,
                () = sleep(INTERVAL) => false,
            };
            let seen = self.read().await;
            if !requested && self.files.contents == seen {
                continue;
            }
            self.files.contents = self.settle(seen).await;
            self.judge();
        }
    }

    async fn read(&self) -> TrustContents {
        let files = self.files.files.clone();
        tasks::block(move || files.read()).await
    }

    /// Reads the files again until two reads are the same.
    async fn settle(&self, mut seen: TrustContents) -> TrustContents {
        for _ in 0..SETTLES_MAX {
            sleep(SETTLE_TIME).await;
            let again = self.read().await;
            if again == seen {
                break;
            }
            seen = again;
        }
        seen
    }

    /// Puts the files into force, or logs their errors.
    fn judge(&self) {
        let JudgedFiles { files, contents, mode } = &self.files;
        let judged = files.judge(contents, self.clock.wall());
        let judged = judged.and_then(|judged| mode.check(Some(&judged.0)).map(|()| judged));
        match judged {
            Ok((policy, tls)) => {
                let enforced = policy.is_enforced();
                let is_same = policy.sha256() == self.trust.current().policy.sha256();
                let replace = || self.trust.replace(policy, tls, self.clock.wall());
                if is_same {
                    // Cursors stay good: certificates and keys change no sight.
                    replace();
                } else {
                    self.engine.replace_policy(replace);
                }
                audit::trust_in_force(&self.gate);
                info!(epoch = self.trust.epoch(), enforced, "policy and certificates in force");
            }
            Err(errors) => {
                audit::invalid_trust(&self.gate);
                error!(%errors, "invalid policy or certificates, keeping the previous ones");
            }
        }
    }
}
