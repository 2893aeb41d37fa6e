//! The promises of Registry, Discovery and Admin, method by method.

mod leases;
mod lookups;
mod pages;
mod registrations;
mod services;
mod status;
mod updates;
use waypost_client::proto::{DeregisterRequest, Instance, UpdateRequest};

fn update(lease_id: u64, paths: &[&str], instance: Instance) -> UpdateRequest {
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    UpdateRequest {
        lease_id,
        instance: Some(instance),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..UpdateRequest::default()
    }
}

fn update_named(service: &str, id: &str, paths: &[&str], instance: Instance) -> UpdateRequest {
    let request = update(0, paths, instance);
    UpdateRequest { service: service.to_owned(), id: id.to_owned(), ..request }
}

fn by_lease(lease_id: u64) -> DeregisterRequest {
    DeregisterRequest { lease_id, ..DeregisterRequest::default() }
}

fn by_name(service: &str, id: &str) -> DeregisterRequest {
    DeregisterRequest { service: service.into(), id: id.into(), ..DeregisterRequest::default() }
}

fn weighing(weight: u32) -> Instance {
    Instance { weight: Some(weight), ..Instance::default() }
}

fn seconds(duration: Option<prost_types::Duration>) -> f64 {
    let duration = duration.expect("a duration");
    f64::from(u32::try_from(duration.seconds).expect("seconds")) + f64::from(duration.nanos) / 1e9
}
