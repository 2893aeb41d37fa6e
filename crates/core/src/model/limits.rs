//! How much of everything is taken. Beyond it there is an error that names the limit.

use std::time::Duration;

/// The limits of the registry. [`Limits::default`] is what the documentation promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a service's, namespace's, zone's or port's name, and of a version.
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
    /// Services that one watch names.
    pub watch_services_max: usize,
    /// Alternatives or entries in one part of a filter.
    pub filter_entries_max: usize,
    /// Instances in all.
    pub instances_max: usize,
    /// Connections at a time.
    pub connections_max: usize,
    /// Calls and streams at a time on one connection; further ones wait at the client.
    pub streams_max: usize,
    /// Writes that wait for their turn.
    pub queued_writes_max: usize,
    /// Changes that the log holds for watches that resume.
    pub log_changes_max: usize,
    /// Bytes that the log's changes occupy.
    pub log_bytes_max: usize,
    /// How long mass-expiry protection keeps an instance whose lease ran out.
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
