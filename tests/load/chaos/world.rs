//! A registry, replicas, callers and an observer: applies the faults of a plan, and judges their
//! records.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::time::{sleep, sleep_until};
use waypost_client::proto::{ChangeKind, ChangeReason, Status, discovery_client::DiscoveryClient};
use waypost_testing::{
    lateness::LatenessMonitor,
    process::RegistryProcess,
    registry::{identity, resolve_all},
};

use crate::{
    chaos::{
        caller::Caller,
        observer::Observer,
        oracle::{Cause, Loss, Oracle},
        outage::{Outage, OutageKind},
        plan::{Action, FaultPlan},
        replica::{Incarnation, Replica, ReplicaConfig, SERVICE},
    },
    support::{WAIT_MAX, serve},
};

/// The interval of checks for a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// The time without faults after everything is complete: more than a replica waits for a response
/// and for its next attempt, so that all streams are open.
const SETTLING: Duration = Duration::from_millis(1_500);
/// The longest wait of callers between attempts to reach the registry.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

pub(crate) struct Setting {
    pub(crate) replicas: usize,
    pub(crate) callers: usize,
    pub(crate) ttl: Duration,
    /// The grace of every other replica; the others have none.
    pub(crate) grace: Duration,
    /// The time for which callers keep instances that a new history lacks.
    pub(crate) hold: Duration,
}

pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) summary: Summary,
    // Dropped in this order: readers before the things that they read.
    callers: Vec<Caller>,
    observer: Observer,
    monitor: LatenessMonitor,
    /// None for one that was killed and not replaced.
    replicas: Vec<Option<Replica>>,
    registry: RegistryProcess,
    lives: Incarnation,
    oracle: Oracle,
    /// The last time at which everything was complete and without faults.
    at_rest: Instant,
    /// The current outage of the registry.
    outage: Option<(Instant, OutageKind)>,
}

/// The faults and findings so far.
#[derive(Default)]
pub(crate) struct Summary {
    faults: BTreeMap<&'static str, usize>,
    /// The time after a kill, beyond the grace, until a replica was out of a caller's view, in
    /// milliseconds; without outages of the registry.
    by_grace: Vec<i128>,
    /// The same after a stop, beyond its TTL. It began with the last heartbeat before.
    by_ttl: Vec<i128>,
    /// Replicas that were replaced before, and those around outages of the registry.
    otherwise: usize,
    removals: usize,
    picks: u64,
    calls: u64,
    calls_failed: usize,
    /// The latest that a control woke within a round.
    stall: Duration,
}

impl Summary {
    pub(crate) fn removals_by_grace(&self) -> usize {
        self.by_grace.len()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = |delays: &[i128]| {
            let bounds = delays.iter().min().zip(delays.iter().max());
            let bounds = bounds.map(|(least, most)| format!(" ({least} to {most} ms beyond it)"));
            format!("{}{}", delays.len(), bounds.unwrap_or_default())
        };
        write!(
            formatter,
            "faults {:?}; the watcher saw {} removed; out of callers' views after a kill by grace: \
             {}; after a stop by TTL: {}; replaced or around outages of the registry: {}; {} picks, none failed; \
             {} calls, {} failed at lost replicas; this machine was up to {} ms late",
            self.faults,
            self.removals,
            spread(&self.by_grace),
            spread(&self.by_ttl),
            self.otherwise,
            self.picks,
            self.calls,
            self.calls_failed,
            self.stall.as_millis(),
        )
    }
}

impl World {
    /// Everything is there and at rest.
    pub(crate) async fn start(setting: Setting) -> Self {
        let registry = serve().log("error").start().await;
        let port_file = registry.port_file();
        let hold = setting.hold;
        let set = |builder: waypost_client::Builder| {
            builder.keep_missing_for(hold).backoff(Duration::from_millis(50), BACKOFF_MAX)
        };
        let oracle = Oracle { hold: hold + 2 * BACKOFF_MAX, ..Oracle::default() };
        let mut world = Self {
            callers: (0..setting.callers).map(|_| Caller::start(&port_file, set)).collect(),
            observer: Observer::start(&port_file),
            monitor: LatenessMonitor::start(),
            replicas: (0..setting.replicas).map(|_| None).collect(),
            setting,
            summary: Summary::default(),
            registry,
            lives: 0,
            oracle,
            at_rest: Instant::now(),
            outage: None,
        };
        world.come_to_rest().await;
        world
    }

    /// Applies a plan.
    pub(crate) async fn endure(&mut self, plan: FaultPlan) {
        let begun = tokio::time::Instant::now();
        for (at, act) in plan.acts {
            sleep_until(begun + at).await;
            self.act(act).await;
        }
    }

    async fn act(&mut self, act: Action) {
        let name = match act {
            Action::Kill(_) => "replica killed",
            Action::Replace(_) => "replica replaced",
            Action::Stop(_) => "replica stopped",
            Action::StopRegistry => "registry stopped",
            Action::KillRegistry => "registry killed",
            Action::Continue(_) | Action::ContinueRegistry | Action::StartRegistry => "gone on",
        };
        *self.summary.faults.entry(name).or_default() += 1;
        match act {
            Action::Kill(number) => self.kill(number),
            Action::Replace(number) => self.replace(number),
            Action::Stop(number) => self.stop(number),
            Action::Continue(number) => self.go_on(number),
            Action::StopRegistry => {
                self.outage = Some((Instant::now(), OutageKind::Stopped));
                self.registry.signal(Signal::STOP);
            }
            Action::ContinueRegistry => {
                self.registry.signal(Signal::CONT);
                self.end_outage();
            }
            Action::KillRegistry => {
                self.outage = Some((Instant::now(), OutageKind::Killed));
                self.registry.kill().await;
            }
            Action::StartRegistry => {
                self.registry.start().await;
                self.end_outage();
            }
        }
    }

    fn end_outage(&mut self) {
        let (from, kind) = self.outage.take().expect("it had begun");
        self.oracle.outages.push(Outage { from, until: Instant::now(), kind });
    }

    pub(crate) fn kill(&mut self, number: usize) {
        let replica = self.replicas[number].take().expect("it lives");
        self.lose(&replica.terms, Cause::Killed);
        drop(replica);
    }

    fn stop(&mut self, number: usize) {
        let terms = self.replica(number).terms.clone();
        self.lose(&terms, Cause::Stopped);
        self.replica(number).signal(Signal::STOP);
    }

    fn go_on(&mut self, number: usize) {
        let replica = self.replica(number);
        let life = replica.terms.life;
        replica.signal(Signal::CONT);
        let loss = self.oracle.losses.iter_mut().rfind(|loss| loss.terms.life == life);
        loss.expect("it was stopped").until = Some(Instant::now());
    }

    fn replica(&self, number: usize) -> &Replica {
        self.replicas[number].as_ref().expect("it lives")
    }

    /// Notes a loss that is about to be made.
    fn lose(&mut self, terms: &ReplicaConfig, cause: Cause) {
        let at = Instant::now();
        let settled = at > self.at_rest;
        self.oracle.losses.push(Loss { terms: terms.clone(), at, until: None, cause, settled });
    }

    /// Starts a process in the place of a lost one.
    fn replace(&mut self, number: usize) {
        self.lives += 1;
        let terms = ReplicaConfig {
            id: number,
            life: self.lives,
            ttl: self.setting.ttl,
            grace: number.is_multiple_of(2).then_some(self.setting.grace),
        };
        self.replicas[number] = Some(Replica::start(terms, &self.registry.port_file()));
    }

    fn living(&self) -> BTreeSet<Incarnation> {
        self.replicas.iter().flatten().map(|replica| replica.terms.life).collect()
    }

    /// Waits until the lost are gone, starts others in their places, and waits until all views are
    /// exact.
    pub(crate) async fn come_to_rest(&mut self) {
        let living = self.living();
        self.until("the lost to leave", |present| present.is_subset(&living)).await;
        for number in 0..self.replicas.len() {
            if self.replicas[number].is_none() {
                self.replace(number);
            }
        }
        let living = self.living();
        self.until("the living to be seen", |present| *present == living).await;
        sleep(SETTLING).await;
        self.at_rest = Instant::now();
    }

    /// Waits until everybody's view is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&BTreeSet<Incarnation>) -> bool) {
        let given_up = Instant::now() + WAIT_MAX;
        loop {
            let (state, _) = self.observer.folded();
            let observed: BTreeSet<Incarnation> = state.values().map(life_of).collect();
            let views: Vec<_> = self.callers.iter().map(Caller::present).collect();
            if wanted(&observed) && views.iter().all(&wanted) {
                return;
            }
            let living = self.living();
            let over = Instant::now() >= given_up;
            assert!(
                !over,
                "waited for {what}: {living:?} live, {observed:?} and {views:?} are seen"
            );
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Judges what everybody saw since the last time.
    pub(crate) async fn judge(&mut self) {
        self.judge_state().await;
        self.judge_changes();
        for caller in 0..self.callers.len() {
            self.judge_departures(caller);
            self.judge_picks(caller);
            self.judge_losses(caller);
        }
        let stall =
            self.oracle.losses.first().map(|loss| self.monitor.worst(loss.at, Instant::now()));
        self.summary.stall = self.summary.stall.max(stall.unwrap_or_default());
        for caller in &self.callers {
            let mut record = caller.record.lock().expect("no panic");
            record.left.clear();
            record.calls_failed.clear();
        }
        self.oracle.losses.clear();
        self.oracle.outages.clear();
    }

    /// Checks that the watcher's folded state is the registry's.
    async fn judge_state(&self) {
        let mut discovery = DiscoveryClient::new(self.registry.channel().await);
        let given_up = Instant::now() + WAIT_MAX;
        loop {
            let resolved = resolve_all(&mut discovery, SERVICE).await;
            let (state, cursor) = self.observer.folded();
            if cursor == resolved.cursor {
                let resolved = resolved.instances.into_iter();
                let resolved: BTreeMap<_, _> =
                    resolved.map(|instance| (identity(&instance), instance)).collect();
                assert_eq!(state, resolved, "folding gives the registry's state");
                return;
            }
            let over = Instant::now() >= given_up;
            assert!(!over, "the watcher is at {cursor:?}, the registry at {:?}", resolved.cursor);
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Checks that no active replica was reported lost.
    fn judge_changes(&mut self) {
        let changes = self.observer.take_changes();
        for (seen, change) in changes {
            let instance = change.instance.as_ref().expect("an instance");
            let life = life_of(instance);
            let suspect = instance.status() == Status::Suspect;
            if change.kind() != ChangeKind::Removed && !suspect {
                continue;
            }
            let reasons = [ChangeReason::Expired, ChangeReason::Disconnected];
            assert!(suspect || reasons.contains(&change.reason()), "{change:?}");
            let excused = self.oracle.excuses(life, seen, &self.monitor);
            assert!(excused, "life {life} was not lost: {change:?}, {}", self.story(seen));
            for loss in self.oracle.hurt(life).filter(|loss| self.oracle.is_plain(loss)) {
                let (sooner, least) = (seen - loss.at, self.oracle.lease(loss));
                let disconnected = change.reason() == ChangeReason::Disconnected;
                let least = if disconnected { least } else { least / 2 };
                assert!(sooner >= least, "{change:?} came {sooner:?} after {loss:?}");
            }
            self.summary.removals += 1;
        }
    }

    /// Checks that no active replica left a view.
    fn judge_departures(&self, caller: usize) {
        for (seen, life) in &self.callers[caller].record.lock().expect("no panic").left {
            let excused = self.oracle.excuses(*life, *seen, &self.monitor);
            assert!(excused, "life {life} left a view and was not lost, {}", self.story(*seen));
        }
    }

    fn judge_picks(&mut self, caller: usize) {
        let mut record = self.callers[caller].record.lock().expect("no panic");
        assert_eq!(record.picks_failed, Vec::<String>::new(), "picks fail");
        for call in &record.calls_failed {
            let excused = self.oracle.excuses_calls(call.begun, call.ended);
            let (status, story) = (&call.status, self.story(call.begun));
            assert!(excused, "a call failed for no reason: {status}, {story}");
        }
        self.summary.calls_failed += record.calls_failed.len();
        self.summary.picks += std::mem::take(&mut record.picks).saturating_sub(1);
        // The rest shows that a pick was made once.
        record.picks = 1;
        self.summary.calls += std::mem::replace(&mut record.calls, 1).saturating_sub(1);
    }

    /// The lost were out of the view, and picked no more, in time.
    fn judge_losses(&mut self, caller: usize) {
        let record = self.callers[caller].record.lock().expect("no panic");
        for loss in &self.oracle.losses {
            let life = loss.terms.life;
            let deadline = self.oracle.deadline(loss, &self.monitor);
            // A replica that continued before must stay.
            if loss.until.is_some_and(|until| until < deadline) {
                continue;
            }
            let left = record.left.iter().find(|(at, left)| *left == life && *at >= loss.at);
            let (left, _) = left.unwrap_or_else(|| panic!("{loss:?} never left a view"));
            let late = deadline.saturating_duration_since(*left);
            assert!(
                !late.is_zero(),
                "{loss:?} left a view after {:?}, {}",
                *left - loss.at,
                self.story(*left)
            );
            if loss.cause == Cause::Killed {
                let picked = record.picked.get(&life).copied().unwrap_or(loss.at);
                assert!(picked <= deadline, "{loss:?} was picked {:?} later", picked - loss.at);
            }
            let millis = |time: Duration| time.as_millis().cast_signed();
            let beyond = millis(*left - loss.at) - millis(self.oracle.lease(loss));
            match loss.cause {
                _ if !self.oracle.is_plain(loss) => self.summary.otherwise += 1,
                Cause::Stopped => self.summary.by_ttl.push(beyond),
                Cause::Killed if beyond >= 0 => self.summary.by_grace.push(beyond),
                Cause::Killed => self.summary.otherwise += 1,
            }
        }
    }

    /// The events before a moment, to explain it.
    fn story(&self, moment: Instant) -> String {
        let ago = |at: Instant| match moment.checked_duration_since(at) {
            Some(before) => format!("{before:?} before"),
            None => format!("{:?} after", at - moment),
        };
        let mut story = String::from("this happened:");
        for Loss { terms, at, until, cause, .. } in &self.oracle.losses {
            let until = until.map(ago);
            story += &format!("\n  {cause:?} {terms:?} {}, until {until:?}", ago(*at));
        }
        for Outage { from, until, kind } in &self.oracle.outages {
            story += &format!("\n  {kind:?} registry {} until {}", ago(*from), ago(*until));
        }
        story
    }
}

fn life_of(instance: &waypost_client::proto::Instance) -> Incarnation {
    instance.metadata["life"].parse().expect("a number")
}
