//! The repository against itself: generated code, documentation.
//!
//! A binary of its own, since it starts no server and ends within a second.

mod docs;
mod stubs;
