//! The shape of a workload's instances. Pure.

use waypost_client::proto::{Instance, Status};

/// The namespace, services and payload of a workload's instances.
#[derive(Clone, Debug)]
pub(crate) struct InstancePlan {
    pub(crate) namespace: String,
    pub(crate) per_service: u64,
    /// Bytes of an instance's metadata values, in four entries.
    pub(crate) payload: usize,
}

impl InstancePlan {
    const ENTRIES: usize = 4;

    /// Builds the instance of an index; its version is the number of its last change.
    pub(crate) fn instance(&self, index: u64, number: u64) -> Instance {
        let value = |entry: usize| {
            let bytes =
                self.payload * (entry + 1) / Self::ENTRIES - self.payload * entry / Self::ENTRIES;
            let mut value = format!("{index:0bytes$}");
            value.truncate(bytes);
            value
        };
        Instance {
            namespace: self.namespace.clone(),
            service: self.service(index / self.per_service),
            id: format!("0190c5c2-7c1f-7a5e-9b1d-{index:012}"),
            host: "10.0.0.1".to_owned(),
            port: 8080,
            status: Status::Up.into(),
            zone: "zone-a".to_owned(),
            version: number.to_string(),
            metadata: (0..Self::ENTRIES).map(|it| (format!("key-{it}"), value(it))).collect(),
            ..Instance::default()
        }
    }

    pub(crate) fn service(&self, service: u64) -> String {
        format!("service-{service}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_differ_and_carry_their_payload() {
        for payload in [0, 1, 7, 64, 1000] {
            let plan = InstancePlan { namespace: "load".into(), per_service: 20, payload };
            let instance = plan.instance(41, 7);
            let bytes: usize = instance.metadata.values().map(String::len).sum();
            assert_eq!((bytes, instance.metadata.len()), (payload, 4));
            assert_eq!((&*instance.service, &*instance.version), ("service-2", "7"));
            assert!(instance.id.ends_with("-000000000041"));
        }
    }
}
