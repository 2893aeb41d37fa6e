//! A simulated machine: a runtime of its own, whose clock moves only while the machine runs. It can
//! be stopped, killed, and started again.

use tokio::runtime::{Builder, Handle, Runtime};

use crate::time::{HostClock, Millis};

pub(crate) struct Machine {
    system: Option<System>,
    /// Stopped machines run again at this time.
    stopped_until: Millis,
}

struct System {
    runtime: Runtime,
    clock: HostClock,
}

impl Machine {
    /// A machine that is switched off.
    pub(crate) fn new() -> Self {
        Self { system: None, stopped_until: 0 }
    }

    pub(crate) fn switch_on(&mut self, now: Millis) {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without drivers");
        let clock = runtime.block_on(async { HostClock::start(now) });
        self.system = Some(System { runtime, clock });
        self.stopped_until = now;
    }

    /// Ends all software at once. The kernel closes its connections.
    pub(crate) fn switch_off(&mut self) {
        self.system = None;
    }

    pub(crate) fn is_on(&self) -> bool {
        self.system.is_some()
    }

    pub(crate) fn stop_until(&mut self, until: Millis) {
        self.stopped_until = self.stopped_until.max(until);
    }

    pub(crate) fn go_on(&mut self) {
        self.stopped_until = 0;
    }

    /// Returns whether its software runs in the step that starts now.
    pub(crate) fn runs(&self, now: Millis) -> bool {
        self.is_on() && self.stopped_until <= now
    }

    /// Runs for a step.
    pub(crate) fn run(&self, from: Millis, until: Millis) {
        if let Some(System { runtime, clock }) = &self.system
            && self.runs(from)
        {
            runtime.block_on(clock.run(from, until));
        }
    }

    /// The runtime that software starts in, and its clock.
    pub(crate) fn system(&self) -> (&Handle, HostClock) {
        let System { runtime, clock } = self.system.as_ref().expect("it is on");
        (runtime.handle(), *clock)
    }
}
