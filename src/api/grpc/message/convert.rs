//! Cursors and times, from the wire and to it.

use std::time::Duration;

use crate::{
    api::grpc::proto,
    model::{Cursor, HistoryId, Revision, WallTime},
};

/// Reads a cursor from a peer; `None` if it is not one of a registry.
pub(in crate::api::grpc) fn cursor_from_wire(cursor: &proto::Cursor) -> Option<Cursor> {
    let history = HistoryId::parse(&cursor.history_id)?;
    Some(Cursor { history, revision: Revision(cursor.revision) })
}

pub(in crate::api::grpc) fn cursor_to_wire(cursor: Cursor) -> proto::Cursor {
    proto::Cursor { history_id: cursor.history.to_string(), revision: cursor.revision.0 }
}

pub(in crate::api::grpc) fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

pub(in crate::api::grpc) fn time_to_wire(time: WallTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.0 % 1000 * 1_000_000).unwrap_or(0),
    }
}
