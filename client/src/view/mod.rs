//! The view of a service, from the stream to what picks read: a `watch` folds messages into a
//! `cache` and publishes it (`published`, `freshness`), whole and as handles select from it
//! (`selected`). A copy on disk outlives the process (`disk`, `file`).

mod cache;
mod disk;
mod file;
mod freshness;
mod published;
mod selected;
mod watch;

pub use self::freshness::Freshness;
pub(crate) use self::{
    disk::ViewDir,
    published::{PublishedView, ViewProgress},
    selected::SelectedView,
    watch::Watcher,
};
