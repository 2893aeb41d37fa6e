//! One write: the request, and its effect on an identity.

use tonic::{Code, Status, transport::Channel};
use waypost_client::proto::{
    Cursor, DeregisterRequest, Instance, RegisterRequest, UpdateRequest,
    registry_client::RegistryClient,
};
use waypost_testing::registry::Identity;

/// A request about an identity.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) identity: Identity,
    pub(crate) request: Request,
    /// The refusal that it has to get, if it has to get one.
    pub(crate) refusal: Option<Code>,
}

#[derive(Debug)]
pub(crate) enum Request {
    Register(Box<RegisterRequest>),
    Update(Box<UpdateRequest>),
    Deregister(DeregisterRequest),
}

/// The response to an accepted write.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) instance: Option<Instance>,
    /// The lease of a registration.
    pub(crate) lease: Option<u64>,
    pub(crate) cursor: Cursor,
}

impl Write {
    pub(crate) async fn send(
        &self,
        registry: &mut RegistryClient<Channel>,
    ) -> Result<Answer, Status> {
        let (instance, lease, cursor) = match &self.request {
            Request::Register(request) => {
                let answer = registry.register(request.as_ref().clone()).await?.into_inner();
                (answer.instance, Some(answer.lease_id), answer.cursor)
            }
            Request::Update(request) => {
                let answer = registry.update(request.as_ref().clone()).await?.into_inner();
                (answer.instance, None, answer.cursor)
            }
            Request::Deregister(request) => {
                let answer = registry.deregister(request.clone()).await?.into_inner();
                (None, None, answer.cursor)
            }
        };
        Ok(Answer { instance, lease, cursor: cursor.expect("an answer has a cursor") })
    }

    /// Its effect on an identity, without the fields that the registry adds.
    pub(crate) fn outcome(&self, before: Option<&Instance>) -> Option<Instance> {
        let before = before.map(content);
        match &self.request {
            _ if self.refusal.is_some() => before,
            Request::Register(request) => request.instance.clone(),
            Request::Update(request) => before.map(|before| patched(before, request)),
            Request::Deregister(_) => None,
        }
    }
}

/// The instance without what the registry adds.
pub(crate) fn content(instance: &Instance) -> Instance {
    Instance { created_revision: 0, modified_revision: 0, registered_at: None, ..instance.clone() }
}

fn patched(mut instance: Instance, request: &UpdateRequest) -> Instance {
    let new = request.instance.clone().unwrap_or_default();
    for path in request.update_mask.iter().flat_map(|mask| &mask.paths) {
        match path.as_str() {
            "status" => instance.status = new.status,
            "weight" => instance.weight = new.weight,
            "metadata" => instance.metadata.clone_from(&new.metadata),
            "version" => instance.version.clone_from(&new.version),
            "zone" => instance.zone.clone_from(&new.zone),
            path => panic!("no writer changes {path}"),
        }
    }
    instance
}
