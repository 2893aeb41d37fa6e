//! The instances of one service, ordered by id: a list of chunks, of which a change copies one.
//!
//! Pure. Invariant: the roster of a reader does not change.

use std::sync::Arc;

use super::encoding::SharedEncoding;
use crate::model::{Instance, InstanceId};

/// The largest number of members of a chunk, which a change copies and readers encode again.
const CHUNK_MAX: usize = 64;
/// The most bytes of a chunk with more than one member. A part of a snapshot has at least one
/// chunk.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// The instances of a service, ordered by id.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    /// Not empty. All ids of a chunk precede all ids of the next.
    chunks: Vec<Arc<RosterChunk>>,
    len: usize,
    serving: usize,
}

/// Consecutive members of a roster.
#[derive(Debug, Default)]
pub struct RosterChunk {
    members: Vec<Member>,
    /// The bytes that the members occupy.
    bytes: usize,
    /// The encoded members.
    pub all_encoded: SharedEncoding,
    /// The encoded members that take traffic.
    pub serving_encoded: SharedEncoding,
}

/// An instance and the slot of its lease.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) instance: Arc<Instance>,
    pub(super) slot: u32,
}

impl Clone for RosterChunk {
    fn clone(&self) -> Self {
        let mut members = Vec::with_capacity(self.members.len() + 1);
        members.extend_from_slice(&self.members);
        Self {
            members,
            bytes: self.bytes,
            all_encoded: SharedEncoding::default(),
            serving_encoded: SharedEncoding::default(),
        }
    }
}

impl RosterChunk {
    fn new(members: Vec<Member>) -> Self {
        let bytes = members.iter().map(Member::footprint).sum();
        Self { members, bytes, ..Self::default() }
    }

    /// Returns the bytes that the instances occupy.
    pub fn footprint(&self) -> usize {
        self.bytes
    }

    /// Returns whether the chunk must be split: it exceeds a limit and has more than one member.
    fn is_over_full(&self) -> bool {
        let len = self.members.len();
        len > CHUNK_MAX || (self.bytes > CHUNK_BYTES_MAX && len > 1)
    }

    /// Returns the instances, ordered by id.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> {
        self.members.iter().map(|member| &member.instance)
    }

    fn position(&self, id: &InstanceId) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.instance.id.cmp(id))
    }

    /// Returns whether every instance takes traffic.
    pub fn all_serve(&self) -> bool {
        self.members.iter().all(Member::serves)
    }
}

impl Member {
    fn serves(&self) -> bool {
        self.instance.serves()
    }

    fn footprint(&self) -> usize {
        self.instance.footprint()
    }
}

impl Roster {
    /// Returns the number of instances.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no instances.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of instances that take traffic.
    pub fn serving(&self) -> usize {
        self.serving
    }

    /// Returns the chunks in order.
    pub fn chunks(&self) -> &[Arc<RosterChunk>] {
        &self.chunks
    }

    /// Returns the chunks in order, from the one that has or would have the id.
    pub fn chunks_from(&self, id: &InstanceId) -> &[Arc<RosterChunk>] {
        &self.chunks[self.chunk_of(id).min(self.chunks.len())..]
    }

    /// Returns the instances, ordered by id.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.chunks.iter().flat_map(|chunk| chunk.instances())
    }

    pub(super) fn member(&self, id: &InstanceId) -> Option<&Member> {
        let chunk = self.chunks.get(self.chunk_of(id))?;
        chunk.members.get(chunk.position(id).ok()?)
    }

    /// Adds a member, or replaces the one with its id.
    pub(super) fn insert(&mut self, member: Member) {
        self.serving += usize::from(member.serves());
        let index = self.chunk_of(&member.instance.id);
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.len += 1;
            self.chunks.push(Arc::new(RosterChunk::new(vec![member])));
            return;
        };
        let chunk = unshared(chunk);
        chunk.bytes += member.footprint();
        match chunk.position(&member.instance.id) {
            Ok(place) => {
                let replaced = std::mem::replace(&mut chunk.members[place], member);
                chunk.bytes -= replaced.footprint();
                self.serving -= usize::from(replaced.serves());
            }
            Err(place) => {
                self.len += 1;
                chunk.members.insert(place, member);
            }
        }
        if chunk.is_over_full() {
            self.split(index);
        }
    }

    /// Splits a chunk in two, and these again while one exceeds a limit.
    fn split(&mut self, index: usize) {
        let chunk = unshared(&mut self.chunks[index]);
        let upper = RosterChunk::new(chunk.members.split_off(chunk.members.len() / 2));
        chunk.bytes -= upper.bytes;
        let [lower_over, upper_over] = [chunk.is_over_full(), upper.is_over_full()];
        self.chunks.insert(index + 1, Arc::new(upper));
        if upper_over {
            self.split(index + 1);
        }
        if lower_over {
            self.split(index);
        }
    }

    /// Removes a member.
    pub(super) fn remove(&mut self, id: &InstanceId) {
        let index = self.chunk_of(id);
        let Some(chunk) = self.chunks.get_mut(index) else { return };
        let Ok(place) = chunk.position(id) else { return };
        let chunk = unshared(chunk);
        let removed = chunk.members.remove(place);
        chunk.bytes -= removed.footprint();
        self.serving -= usize::from(removed.serves());
        self.len -= 1;
        self.close_gap(index);
    }

    /// Drops an empty chunk, and joins a small one with a neighbour. No two neighbours would fit
    /// into half a chunk, so that there are few chunks in any order of removals.
    fn close_gap(&mut self, index: usize) {
        if self.chunks.get(index).is_some_and(|chunk| chunk.members.is_empty()) {
            self.chunks.remove(index);
        } else if self.fits_next(index) {
            self.join_next(index);
        } else if index > 0 && self.fits_next(index - 1) {
            self.join_next(index - 1);
        }
    }

    fn fits_next(&self, index: usize) -> bool {
        let Some([one, next]) = self.chunks.get(index..index + 2) else { return false };
        one.members.len() + next.members.len() <= CHUNK_MAX / 2
            && one.bytes + next.bytes <= CHUNK_BYTES_MAX / 2
    }

    fn join_next(&mut self, index: usize) {
        let upper = self.chunks.remove(index + 1);
        let chunk = unshared(&mut self.chunks[index]);
        chunk.members.extend_from_slice(&upper.members);
        chunk.bytes += upper.bytes;
    }

    /// Returns the index of the chunk that has or would have the id.
    fn chunk_of(&self, id: &InstanceId) -> usize {
        let begins_by = |chunk: &Arc<RosterChunk>| {
            chunk.members.first().is_some_and(|member| member.instance.id <= *id)
        };
        self.chunks.partition_point(begins_by).saturating_sub(1)
    }
}

/// Returns the chunk, or a copy if a reader has it, without its encodings.
fn unshared(chunk: &mut Arc<RosterChunk>) -> &mut RosterChunk {
    let chunk = Arc::make_mut(chunk);
    chunk.all_encoded = SharedEncoding::default();
    chunk.serving_encoded = SharedEncoding::default();
    chunk
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use fastrand::Rng;

    use super::*;
    use crate::{
        model::{Content, Metadata, Parts, Presence, Revision, Status, WallTime},
        testing::{id, key, parts, with_seeds},
    };

    fn member(number: u32, revision: u64, status: Status) -> Member {
        let content = Content::from(&Parts { status, ..parts(1) });
        let instance = Instance {
            service: Arc::new(key("s")),
            id: id(&format!("i{number:05}")),
            content,
            presence: Presence::Confirmed,
            created: Revision(1),
            modified: Revision(revision),
            registered_at: WallTime(0),
        };
        Member { instance: Arc::new(instance), slot: number }
    }

    /// A member whose metadata has the given number of bytes.
    fn large(number: u32, bytes: usize) -> Member {
        let entries = BTreeMap::from([("note".to_owned(), "x".repeat(bytes))]);
        let content = Content::from(&Parts { metadata: Metadata::new(&entries), ..parts(1) });
        let one = member(number, 1, Status::Up);
        let instance = Instance { content, ..Instance::clone(&one.instance) };
        Member { instance: Arc::new(instance), ..one }
    }

    fn some_status(random: &mut Rng) -> Status {
        if random.bool() { Status::Up } else { Status::Draining }
    }

    fn contents(roster: &Roster) -> Vec<(InstanceId, Revision)> {
        roster.instances().map(|instance| (instance.id.clone(), instance.modified)).collect()
    }

    fn check(roster: &Roster, expected: &BTreeMap<InstanceId, Member>) {
        assert!(roster.instances().eq(expected.values().map(|member| &member.instance)));
        assert_eq!(roster.len(), expected.len());
        assert_eq!(roster.is_empty(), expected.is_empty());
        assert_eq!(roster.serving(), expected.values().filter(|member| member.serves()).count());
        for chunk in roster.chunks() {
            assert!(!chunk.members.is_empty() && !chunk.is_over_full());
            let bytes: usize = chunk.instances().map(|one| one.footprint()).sum();
            assert_eq!(chunk.footprint(), bytes);
            assert_eq!(chunk.all_serve(), chunk.instances().all(|i| i.serves()));
        }
        let neighbours = roster.chunks().windows(2);
        let small = neighbours.filter(|pair| {
            pair.iter().map(|chunk| chunk.instances().len()).sum::<usize>() <= CHUNK_MAX / 2
        });
        assert_eq!(small.count(), 0, "neighbours that would fit into half a chunk");
    }

    /// The roster grows to about 2,000 members and shrinks again, twice.
    #[test]
    fn roster_agrees_with_an_ordered_map() {
        with_seeds(4, |seed| {
            let mut random = Rng::with_seed(seed);
            let mut roster = Roster::default();
            let mut expected = BTreeMap::new();
            for step in 0..16_000 {
                let grows = (step / 4_000) % 2 == 0;
                if random.u8(..8) < if grows { 7 } else { 1 } {
                    let member = member(random.u32(..3_000), step, some_status(&mut random));
                    expected.insert(member.instance.id.clone(), member.clone());
                    roster.insert(member);
                } else {
                    let there = random.usize(..expected.len().max(1));
                    let there = expected.keys().nth(there).cloned();
                    let target = there.unwrap_or(id("i00000"));
                    roster.remove(&target);
                    expected.remove(&target);
                    assert!(roster.member(&target).is_none());
                    roster.remove(&target);
                }
                let some = id(&format!("i{:05}", random.u32(..3_000)));
                let found = roster.member(&some).map(|member| (member.slot, &member.instance));
                assert_eq!(
                    found,
                    expected.get(&some).map(|member| (member.slot, &member.instance))
                );
                if step % 50 == 0 {
                    check(&roster, &expected);
                }
            }
            check(&roster, &expected);
        });
    }

    #[test]
    fn shrunk_roster_has_few_chunks() {
        let ids: Vec<_> = (0..2_000).collect();
        let reversed: Vec<_> = ids.iter().rev().copied().collect();
        for order in [ids, reversed] {
            let mut roster = Roster::default();
            for number in &order {
                roster.insert(member(*number, 1, Status::Up));
            }
            // One of 31 stays, each in a chunk of its own at worst.
            for number in order.iter().filter(|number| **number % 31 != 0) {
                roster.remove(&id(&format!("i{number:05}")));
            }
            assert_eq!(roster.len(), 65);
            assert!(roster.chunks().len() <= 4, "{} chunks", roster.chunks().len());
            for number in order {
                roster.remove(&id(&format!("i{number:05}")));
            }
            assert!(roster.is_empty() && roster.chunks().is_empty());
        }
    }

    #[test]
    fn chunk_of_large_members_has_few() {
        with_seeds(4, |seed| {
            let mut random = Rng::with_seed(seed);
            let mut roster = Roster::default();
            let mut expected = BTreeMap::new();
            for _ in 0..600 {
                let bytes = [10, 4_000, 90_000, 300_000][random.usize(..4)];
                let member = large(random.u32(..100), bytes);
                let id = member.instance.id.clone();
                if random.u8(..3) > 0 {
                    expected.insert(id, member.clone());
                    roster.insert(member);
                } else {
                    expected.remove(&id);
                    roster.remove(&id);
                }
            }
            assert!(roster.instances().eq(expected.values().map(|member| &member.instance)));
            for chunk in roster.chunks() {
                let bytes: usize = chunk.instances().map(|one| one.footprint()).sum();
                assert_eq!(chunk.footprint(), bytes);
                assert!(bytes <= CHUNK_BYTES_MAX || chunk.instances().len() == 1);
                assert!((1..=CHUNK_MAX).contains(&chunk.instances().len()));
            }
            // The chunks from any id have all ids that follow.
            for number in 0..100 {
                let from = id(&format!("i{number:05}"));
                let listed = roster.chunks_from(&from).iter().flat_map(|chunk| chunk.instances());
                let listed = listed.filter(|instance| instance.id > from);
                let after = expected.range(from.clone()..).filter(|(id, _)| **id > from);
                assert!(listed.eq(after.map(|(_, member)| &member.instance)));
            }
        });
    }

    #[test]
    fn clone_does_not_change() {
        with_seeds(4, |seed| {
            let mut random = Rng::with_seed(seed);
            let mut roster = Roster::default();
            let mut clones = Vec::new();
            for step in 0..3_000 {
                if random.u8(..100) == 0 {
                    clones.push((roster.clone(), contents(&roster), roster.serving()));
                }
                let number = random.u32(..400);
                if random.u8(..3) > 0 {
                    roster.insert(member(number, step, some_status(&mut random)));
                } else {
                    roster.remove(&id(&format!("i{number:05}")));
                }
            }
            assert!(!clones.is_empty());
            for (clone, expected, serving) in clones {
                assert_eq!(contents(&clone), expected);
                assert_eq!((clone.len(), clone.serving()), (expected.len(), serving));
            }
        });
    }

    fn encoded(chunk: &RosterChunk) -> [Bytes; 2] {
        let all: Vec<_> = chunk.instances().collect();
        let serving: Vec<_> = all.iter().filter(|i| i.serves()).collect();
        [Bytes::from(format!("{all:?}")), Bytes::from(format!("{serving:?}"))]
    }

    /// Returns the encodings of a chunk, and fills empty ones.
    fn encodings(chunk: &RosterChunk) -> [Bytes; 2] {
        let [all, serving] = encoded(chunk);
        [
            chunk.all_encoded.bytes_or_encode(|| all).clone(),
            chunk.serving_encoded.bytes_or_encode(|| serving).clone(),
        ]
    }

    #[test]
    fn encodings_are_made_once_and_dropped_by_a_change() {
        with_seeds(4, |seed| {
            let mut random = Rng::with_seed(seed);
            let mut roster = Roster::default();
            for number in 0..500 {
                roster.insert(member(number * 2, 0, Status::Up));
            }
            for step in 1..400 {
                for chunk in roster.chunks() {
                    assert_eq!(encodings(chunk), encoded(chunk), "encodings of other members");
                }
                let made: Vec<_> = roster
                    .chunks()
                    .iter()
                    .map(|chunk| (Arc::as_ptr(chunk), encodings(chunk)))
                    .collect();
                // In place, or in a copy if a reader has the chunk.
                let _readers = random.bool().then(|| roster.clone());
                let number = random.u32(..1_000);
                match random.u8(..3) {
                    0 => roster.remove(&id(&format!("i{number:05}"))),
                    _ => roster.insert(member(number, step, some_status(&mut random))),
                }
                let survives = |chunk: &Arc<RosterChunk>| {
                    let encoding = chunk.all_encoded.bytes()?;
                    let known =
                        made.iter().find(|(chunk_before, _)| *chunk_before == Arc::as_ptr(chunk));
                    let (_, [before, _]) = known.expect("encodings are not copied");
                    assert_eq!(encoding.as_ptr(), before.as_ptr(), "the same bytes");
                    Some(())
                };
                let kept = roster.chunks().iter().filter_map(survives).count();
                assert!(
                    kept + 3 >= made.len(),
                    "a change drops few encodings: {kept}/{}",
                    made.len()
                );
            }
        });
    }
}
