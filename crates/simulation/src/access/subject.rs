//! The subject of a reader, and the names of services. Pure.

use waypost_client::proto::Instance;

/// A namespace and the name of a service in it.
pub(crate) type ServiceName = (String, String);

/// The subject of a reader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    pub namespace: String,
    /// None means all.
    pub services: Vec<String>,
    /// None means all.
    pub zones: Vec<String>,
}

impl Subject {
    pub(crate) fn concerns(&self, instance: &Instance) -> bool {
        self.namespace == instance.namespace
            && (self.services.is_empty() || self.services.contains(&instance.service))
    }

    pub(crate) fn matches(&self, instance: &Instance) -> bool {
        self.concerns(instance) && (self.zones.is_empty() || self.zones.contains(&instance.zone))
    }
}
