//! The limits of the registry. Each has an error that names it.
//!
//! Pure.

use std::time::Duration;

/// The limits of the registry. [`Limits::default`] has the documented values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the name of a service, namespace, zone or port, and of a version.
    pub name_bytes_max: usize,
    /// Bytes of an instance's id.
    pub id_bytes_max: usize,
    /// Bytes of a host.
    pub host_bytes_max: usize,
    /// Extra ports of an instance.
    pub ports_max: usize,
    /// Metadata entries of an instance.
    pub metadata_entries_max: usize,
    /// Bytes of a metadata key.
    pub metadata_key_bytes_max: usize,
    /// Bytes of a metadata value.
    pub metadata_value_bytes_max: usize,
    /// Bytes of all metadata keys and values of an instance.
    pub metadata_bytes_max: usize,
    /// Bytes of a request message.
    pub message_bytes_max: usize,
    /// Leases in one heartbeat.
    pub heartbeat_leases_max: usize,
    /// Services named by one watch.
    pub watch_services_max: usize,
    /// Alternatives or entries in one part of a filter.
    pub filter_entries_max: usize,
    /// Instances in total.
    pub instances_max: usize,
    /// Open connections.
    pub connections_max: usize,
    /// Concurrent calls and streams on one connection; further ones wait at the client.
    pub streams_max: usize,
    /// Queued writes.
    pub queued_writes_max: usize,
    /// Changes in the log, from which watches resume.
    pub log_changes_max: usize,
    /// Bytes of the changes in the log.
    pub log_bytes_max: usize,
    /// The time for which mass-expiry protection holds an expired lease.
    pub protection_hold_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            name_bytes_max: 128,
            id_bytes_max: 256,
            host_bytes_max: 253,
            ports_max: 64,
            metadata_entries_max: 64,
            metadata_key_bytes_max: 128,
            metadata_value_bytes_max: 4096,
            metadata_bytes_max: 16 * 1024,
            message_bytes_max: 4 * 1024 * 1024,
            heartbeat_leases_max: 65_536,
            watch_services_max: 1024,
            filter_entries_max: 64,
            instances_max: 2_000_000,
            connections_max: 65_536,
            streams_max: 10_000,
            queued_writes_max: 16_384,
            log_changes_max: 65_536,
            log_bytes_max: 64 * 1024 * 1024,
            protection_hold_max: Duration::from_secs(10 * 60),
        }
    }
}
