//! A probe of a service whose right to register ends: its lease then lasts for its TTL, neither
//! longer nor shorter, and however its stream ends.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    probe::{PATIENCE, Probe, Renewal},
    stubs::{Answer, Beats, Broken, Registry},
};
use crate::{
    journal::{Event, Identity, Lapse},
    time::Millis,
};

/// The time after which it gives up to lose its right, and deregisters.
const HOLDING_MAX_MS: Millis = 20_000;

impl Probe {
    /// Renews a lease of a service until that is refused, and then no more.
    pub(crate) async fn lose_right(mut self, service: &'static str) {
        let talk = timeout(PATIENCE, self.talk_until_refused(service)).await;
        if let Ok(Ok((lapse, _registry, _beats))) = talk {
            self.journal.write(self.clock.now(), Event::Lapsing(lapse));
            // Connection and stream stay open meanwhile, unless the registry ends them.
            sleep(PATIENCE).await;
        }
    }

    async fn talk_until_refused(
        &mut self,
        service: &'static str,
    ) -> Answer<(Lapse, Registry, Option<Beats>)> {
        let ttl_ms = [1_000, 2_000, 3_000, 5_000][self.random.usize(..4)];
        let grace_ms = self.random.u64(..=ttl_ms / 2);
        let mut instance = self.instance(1);
        service.clone_into(&mut instance.service);
        instance.id = format!("it-{}", self.number);
        let identity = Identity::of(&instance);
        let mut registry = Registry::open(&self.process).await?;
        let began = self.clock.now();
        let lease = registry.register(&instance, ttl_ms, grace_ms).await?;
        let mut renewed = (began, self.clock.now());
        let granted = Event::Granted { lease, identity: identity.clone() };
        self.journal.write(renewed.1, granted);
        let renewal = [Renewal::Call, Renewal::Update, Renewal::Stream][self.random.usize(..3)];
        let mut beats = match renewal {
            Renewal::Stream => Some(registry.beats().await?),
            _ => None,
        };
        while self.clock.now() < began + HOLDING_MAX_MS {
            sleep(Duration::from_millis(self.random.u64(50..ttl_ms / 3))).await;
            let sent_at = self.clock.now();
            let lives = match (renewal, &mut beats) {
                (_, Some(beats)) => beats.renewed(lease).await?,
                (Renewal::Update, _) => registry.update(lease, 1).await? == Ok(()),
                _ => registry.renewed(lease).await?,
            };
            if !lives {
                return Ok((Lapse { identity, renewed, ttl_ms, broken: None }, registry, beats));
            }
            renewed = (sent_at, self.clock.now());
        }
        let _refused_or_gone = registry.deregister(lease).await?;
        Err(Broken)
    }
}
