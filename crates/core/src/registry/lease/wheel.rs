//! The expiry wheel: the times at which to check leases. It is lazy: a renewal does not move a
//! slot. When a slot is due, its owner reads the last renewal, and inserts the slot again or ends
//! the lease.
//!
//! Pure. A hashed timing wheel (Varghese and Lauck, 1987) whose lists are links in one array, so
//! that insertion and removal are O(1) and allocate nothing.

use crate::model::Tick;

/// Milliseconds that a bucket spans. Slots are due at the end of their bucket.
const BUCKET_MS: u64 = 8;
/// Buckets in a turn: 524 s, more than the longest TTL.
const BUCKETS: usize = 1 << 16;
/// No slot.
const NONE: u32 = u32::MAX;

/// The slots of active leases, by the time at which to check them.
#[derive(Debug)]
pub(super) struct ExpiryWheel {
    /// The first slot of each bucket.
    heads: Box<[u32]>,
    /// The neighbours of each slot in the list of its bucket.
    links: Vec<ListLink>,
    /// The first bucket, counted from tick 0, that is not due yet.
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct ListLink {
    /// The slot before; for the first slot of a bucket, the index of the bucket and [`Self::HEAD`].
    before: u32,
    after: u32,
}

impl ListLink {
    const UNLINKED: Self = Self { before: NONE, after: NONE };
    const HEAD: u32 = 1 << 31;
}

impl ExpiryWheel {
    pub(super) fn new() -> Self {
        Self { heads: vec![NONE; BUCKETS].into(), links: Vec::new(), next: 0 }
    }

    /// Makes the slot due at `at`, or up to 8 ms later. It must not be in the wheel.
    pub(super) fn insert(&mut self, slot: u32, at: Tick) {
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, ListLink::UNLINKED);
        }
        // A slot beyond the turn is due early, and is inserted again.
        let farthest = self.next + BUCKETS as u64 - 1;
        let bucket = (at.0 / BUCKET_MS).clamp(self.next, farthest) as usize % BUCKETS;
        let first = std::mem::replace(&mut self.heads[bucket], slot);
        if first != NONE {
            self.links[first as usize].before = slot;
        }
        self.links[slot as usize] =
            ListLink { before: bucket as u32 | ListLink::HEAD, after: first };
    }

    /// Removes the slot, if it is in the wheel.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        let ListLink { before, after } = std::mem::replace(link, ListLink::UNLINKED);
        if before == NONE {
            return;
        }
        if before & ListLink::HEAD == 0 {
            self.links[before as usize].after = after;
        } else {
            self.heads[(before & !ListLink::HEAD) as usize] = after;
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
    }

    /// Removes a slot that is due by `now`, from the earliest bucket.
    pub(super) fn pop(&mut self, now: Tick) -> Option<u32> {
        // Only buckets that ended: a slot that is inserted again never lands in them.
        let end = now.0 / BUCKET_MS;
        if end.saturating_sub(self.next) > BUCKETS as u64 {
            // After a long stall each bucket is still visited once.
            self.next = end - BUCKETS as u64;
        }
        while self.next < end {
            let head = self.heads[self.next as usize % BUCKETS];
            if head != NONE {
                self.remove(head);
                return Some(head);
            }
            self.next += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(wheel: &mut ExpiryWheel, now: u64) -> Vec<u32> {
        let mut slots: Vec<u32> = std::iter::from_fn(|| wheel.pop(Tick(now))).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn slots_are_due_within_a_bucket_of_their_time() {
        let mut wheel = ExpiryWheel::new();
        for slot in 0..1000 {
            wheel.insert(slot, Tick(u64::from(slot) * 7));
        }
        let mut seen = 0;
        for now in 0..7_100 {
            for slot in due(&mut wheel, now) {
                let at = u64::from(slot) * 7;
                assert!((at..=at + BUCKET_MS).contains(&now), "slot {slot} at {now}");
                seen += 1;
            }
        }
        assert_eq!(seen, 1000);
    }

    #[test]
    fn removed_slots_are_not_due() {
        let mut wheel = ExpiryWheel::new();
        for slot in 0..6 {
            wheel.insert(slot, Tick(100));
        }
        for slot in [0, 3, 5] {
            wheel.remove(slot);
            wheel.remove(slot);
        }
        wheel.insert(3, Tick(200));
        assert_eq!(due(&mut wheel, 150), [1, 2, 4]);
        assert_eq!(due(&mut wheel, 250), [3]);
        wheel.remove(77);
    }

    #[test]
    fn slot_beyond_the_turn_is_due_early_and_one_of_the_past_next() {
        let mut wheel = ExpiryWheel::new();
        wheel.insert(1, Tick(BUCKET_MS * BUCKETS as u64 * 3));
        let turn = BUCKET_MS * BUCKETS as u64;
        assert_eq!(due(&mut wheel, turn), [1]);
        wheel.insert(2, Tick(5));
        assert_eq!(due(&mut wheel, turn + BUCKET_MS), [2]);
    }

    #[test]
    fn all_slots_are_due_after_a_long_stall() {
        let mut wheel = ExpiryWheel::new();
        wheel.insert(1, Tick(1_000));
        wheel.insert(2, Tick(400_000));
        assert_eq!(due(&mut wheel, 10_000_000_000), [1, 2]);
        assert_eq!(due(&mut wheel, 10_000_000_100), [0_u32; 0]);
    }
}
