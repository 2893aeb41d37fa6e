//! What a connection has shown of its caller: nothing yet, an allowed call without a name, or an
//! identity. Its requests report here.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
};

use futures_util::task::AtomicWaker;

use super::{KnownBy, Shared};

/// Refused credentials, with nothing allowed between, that close a connection.
const REFUSALS_MAX: u8 = 5;

/// The states of a connection.
pub(super) const STRANGER: u8 = 0;
/// Something was allowed to a caller without a name.
pub(super) const GUEST: u8 = 1;
pub(super) const KNOWN: u8 = 2;
pub(super) const EVICTED: u8 = 3;
pub(super) const REFUSED: u8 = 4;

/// The state of a caller on one connection.
#[derive(Debug)]
pub(crate) struct Acquaintance {
    strangers: Arc<Shared>,
    id: u64,
    state: AtomicU8,
    /// Its opening bytes have arrived.
    is_open: AtomicBool,
    refusals: AtomicU8,
    /// The visits under way.
    visits: AtomicU32,
    /// A visit has begun since the connection looked last.
    visited: AtomicBool,
    /// Woken by an eviction, which comes from another task.
    pub(super) waker: AtomicWaker,
}

/// An allowed call of a caller without a name. Once the last one has ended, the connection has 10 s
/// for the next.
#[derive(Debug)]
#[must_use = "dropping it ends the visit"]
pub(crate) struct Visit(Arc<Acquaintance>);

impl Acquaintance {
    pub(super) fn new(strangers: Arc<Shared>, id: u64) -> Self {
        Self {
            strangers,
            id,
            state: AtomicU8::new(STRANGER),
            is_open: AtomicBool::new(false),
            refusals: AtomicU8::new(0),
            visits: AtomicU32::new(0),
            visited: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Notes that the caller proved an identity, or may do everything without one. For good.
    #[inline]
    pub(crate) fn known(&self) {
        self.forget_refusals();
        let state = self.state();
        if state == STRANGER || state == GUEST {
            self.advance(state, KNOWN);
        }
    }

    /// Begins an allowed call of a caller without a name.
    pub(crate) fn visit(self: &Arc<Self>) -> Visit {
        self.forget_refusals();
        self.visits.fetch_add(1, Ordering::AcqRel);
        self.visited.store(true, Ordering::Release);
        if self.state() == STRANGER {
            self.advance(STRANGER, GUEST);
        }
        Visit(Arc::clone(self))
    }

    /// Notes that a credential was refused. The fifth, with nothing allowed between, closes the
    /// connection.
    pub(crate) fn refused(&self) {
        if self.refusals.fetch_add(1, Ordering::AcqRel) + 1 >= REFUSALS_MAX {
            self.refusals.store(REFUSALS_MAX, Ordering::Release);
            self.state.store(REFUSED, Ordering::Release);
            self.waker.wake();
        }
    }

    /// Notes that the opening bytes have arrived.
    pub(in super::super) fn opened(&self) {
        self.is_open.store(true, Ordering::Release);
        if self.strangers.known_by == KnownBy::Opening {
            self.known();
        }
    }

    /// Returns whether the opening bytes have arrived.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Closes the connection to make room.
    pub(super) fn evict(&self) {
        // The state may be later by now, and stays then.
        let changed =
            self.state.compare_exchange(STRANGER, EVICTED, Ordering::AcqRel, Ordering::Acquire);
        if changed.is_ok() {
            self.waker.wake();
        }
    }

    pub(super) fn leave(&self) {
        self.strangers.table.lock().remove(self.id);
    }

    pub(super) fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    /// Returns whether the caller is known.
    pub(in super::super) fn is_known(&self) -> bool {
        self.state() == KNOWN
    }

    /// Returns whether an allowed call is under way.
    pub(in super::super) fn has_visits(&self) -> bool {
        self.visits.load(Ordering::Acquire) > 0
    }

    /// Resets and returns whether a visit has begun.
    pub(super) fn take_visited(&self) -> bool {
        self.visited.swap(false, Ordering::AcqRel)
    }

    fn advance(&self, from: u8, to: u8) {
        let changed = self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        if changed.is_ok() && from == STRANGER {
            self.leave();
        }
    }

    fn forget_refusals(&self) {
        if self.refusals.load(Ordering::Relaxed) != 0 {
            self.refusals.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visits.fetch_sub(1, Ordering::AcqRel);
        // The call may end in another task than that of its connection.
        self.0.waker.wake();
    }
}
