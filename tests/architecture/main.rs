//! The rules of ARCHITECTURE.md and CONTRIBUTING.md that a machine can check, over all sources of
//! the workspace. A binary of its own: it links nothing of the product, and runs in a second.

mod floors;
mod prose;
mod shape;
mod source;
