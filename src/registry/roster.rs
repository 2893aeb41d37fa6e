//! The instances of one service, ordered by id, as a value that is cheap to share and to change: a
//! list of chunks of which a change copies one. Readers keep the roster that they have.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::model::{Instance, InstanceId};

/// The most members of a chunk. What a change copies and what readers encode anew.
const CHUNK_MAX: usize = 64;

/// The instances of a service in order of their ids.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    /// None is empty; all ids of one lie before all ids of the next.
    chunks: Vec<Arc<Chunk>>,
    len: usize,
    serving: usize,
}

/// Consecutive members of a roster.
#[derive(Debug, Default)]
pub struct Chunk {
    members: Vec<Member>,
    /// What the border made of all members.
    pub all: Memo,
    /// What the border made of the members that take traffic.
    pub serving: Memo,
}

/// An instance and the slot of its lease.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) instance: Arc<Instance>,
    pub(super) slot: u32,
}

/// A place for what the border encodes once and shares: filled by the first who needs it, empty
/// again in a changed copy.
#[derive(Debug, Default)]
pub struct Memo(OnceLock<Bytes>);

impl Memo {
    /// The bytes; made now if nobody did before.
    pub fn bytes_or_make(&self, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.0.get_or_init(make)
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        let mut members = Vec::with_capacity(self.members.len() + 1);
        members.extend_from_slice(&self.members);
        Self { members, all: Memo::default(), serving: Memo::default() }
    }
}

impl Chunk {
    /// The instances in order of their ids.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> {
        self.members.iter().map(|member| &member.instance)
    }

    fn place(&self, id: &InstanceId) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.instance.id.cmp(id))
    }

    /// Whether every instance takes traffic.
    pub fn all_serve(&self) -> bool {
        self.members.iter().all(Member::serves)
    }
}

impl Member {
    fn serves(&self) -> bool {
        self.instance.content.status.serves()
    }
}

impl Roster {
    /// How many instances there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of them take traffic.
    pub fn serving(&self) -> usize {
        self.serving
    }

    /// The chunks in order.
    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// The instances in order of their ids.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.chunks.iter().flat_map(|chunk| chunk.instances())
    }

    pub(super) fn member(&self, id: &InstanceId) -> Option<&Member> {
        let chunk = self.chunks.get(self.chunk_of(id))?;
        chunk.members.get(chunk.place(id).ok()?)
    }

    /// Puts a member in place of the one with its id, or besides the others.
    pub(super) fn insert(&mut self, member: Member) {
        self.serving += usize::from(member.serves());
        let index = self.chunk_of(&member.instance.id);
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.len += 1;
            self.chunks.push(Arc::new(Chunk { members: vec![member], ..Chunk::default() }));
            return;
        };
        let chunk = altered(chunk);
        match chunk.place(&member.instance.id) {
            Ok(place) => {
                let replaced = std::mem::replace(&mut chunk.members[place], member);
                self.serving -= usize::from(replaced.serves());
            }
            Err(place) => {
                self.len += 1;
                chunk.members.insert(place, member);
                if chunk.members.len() > CHUNK_MAX {
                    let upper = chunk.members.split_off(CHUNK_MAX / 2);
                    let upper = Chunk { members: upper, ..Chunk::default() };
                    self.chunks.insert(index + 1, Arc::new(upper));
                }
            }
        }
    }

    /// Takes a member out.
    pub(super) fn remove(&mut self, id: &InstanceId) {
        let index = self.chunk_of(id);
        let Some(chunk) = self.chunks.get_mut(index) else { return };
        let Ok(place) = chunk.place(id) else { return };
        let removed = altered(chunk).members.remove(place);
        self.serving -= usize::from(removed.serves());
        self.len -= 1;
        self.close_gap(index);
    }

    /// Drops an empty chunk, and joins one that became small with its neighbour.
    fn close_gap(&mut self, index: usize) {
        let members = |chunk: Option<&Arc<Chunk>>| chunk.map_or(0, |chunk| chunk.members.len());
        let here = members(self.chunks.get(index));
        let next = members(self.chunks.get(index + 1));
        if here == 0 {
            self.chunks.remove(index);
        } else if next > 0 && here + next <= CHUNK_MAX / 2 {
            let upper = self.chunks.remove(index + 1);
            altered(&mut self.chunks[index]).members.extend_from_slice(&upper.members);
        }
    }

    /// The index of the chunk that the id is or would be in.
    fn chunk_of(&self, id: &InstanceId) -> usize {
        let begins_by = |chunk: &Arc<Chunk>| {
            chunk.members.first().is_some_and(|member| member.instance.id <= *id)
        };
        self.chunks.partition_point(begins_by).saturating_sub(1)
    }
}

/// The chunk to alter: itself where nobody else has it, else a copy. Its memos are forgotten.
fn altered(chunk: &mut Arc<Chunk>) -> &mut Chunk {
    let chunk = Arc::make_mut(chunk);
    chunk.all = Memo::default();
    chunk.serving = Memo::default();
    chunk
}
