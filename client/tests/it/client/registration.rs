//! Registrations: guards, updates, refusals, lost responses.

use tonic::Code;
use waypost_client::{
    DeregisterError, RegisterError, Registration, RegistrationState, Update, UpdateError, proto,
};

use super::{an_order, client, nameless, registry, soon, until_registered_anew};
use crate::support::{Fake, Network};

#[tokio::test]
async fn instance_is_registered_renewed_and_deregistered() {
    let (_network, fake, _process, client) = registry();
    let registration = an_order().zone("a").metadata("k", "v");
    let registered = client.register(registration).await.unwrap();
    let instance = registered.instance();
    assert_eq!((instance.id.as_str(), instance.zone.as_str()), ("a", "a"));
    let lease_id = registered.lease_id().unwrap();
    fake.until(|state| state.heartbeats >= 3).await;
    assert_eq!(*registered.state().borrow(), RegistrationState::Registered { lease_id });
    soon(registered.deregister()).await.unwrap();
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn dropping_the_guard_deregisters() {
    let (_network, fake, _process, client) = registry();
    let registered = client.register(an_order()).await.unwrap();
    drop(registered);
    fake.until(|state| state.instances.is_empty()).await;
}

#[tokio::test]
async fn refused_registration_names_the_fields() {
    let (_network, _fake, _process, client) = registry();
    let refused = client.register(Registration::new("", "10.0.0.1", 80)).await;
    let Err(RegisterError::Invalid(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.violations[0].field, "instance.service");
}

#[tokio::test]
async fn restarted_registry_gets_the_last_content() {
    let (network, before) = (Network::default(), Fake::new());
    let process = before.serve(&network, "registry");
    let client = client(&network, &["registry"]);
    let mut registered = client.register(an_order()).await.unwrap();
    registered.set_weight(7).await.unwrap();
    registered.set_metadata([("k", "v")]).await.unwrap();
    drop(process);

    let after = Fake::new();
    let _process = after.serve(&network, "registry");
    after.until(|state| state.instances.contains_key("a")).await;
    let instance = after.state().instances["a"].clone();
    assert_eq!((instance.weight, instance.metadata["k"].as_str()), (Some(7), "v"));
    soon(registered.deregister()).await.unwrap();
    assert!(after.state().instances.is_empty());
}

#[tokio::test]
async fn update_detects_a_lost_lease() {
    let (_network, fake, _process, client) = registry();
    let mut registered = client.register(an_order()).await.unwrap();
    let expired = registered.lease_id();
    fake.expire_all();
    soon(registered.set_status(proto::Status::Draining)).await.unwrap();
    assert_ne!(registered.lease_id(), expired);
    assert_eq!(fake.state().instances["a"].status(), proto::Status::Draining);
    assert_eq!(registered.instance().status(), proto::Status::Draining);
}

#[tokio::test]
async fn refused_update_is_not_registered_later() {
    let (_network, fake, _process, client) = registry();
    let mut registered = client.register(an_order()).await.unwrap();
    let refused = registered.set_weight(u32::MAX).await;
    assert!(matches!(refused, Err(UpdateError::Invalid(_))), "{refused:?}");
    let expired = registered.lease_id().unwrap();
    fake.expire_all();
    until_registered_anew(&registered, expired).await;
    assert_eq!(fake.state().instances["a"].weight, Some(100));
}

#[tokio::test]
async fn registering_waits_for_a_registry() {
    let (network, fake) = (Network::default(), Fake::new());
    let client = client(&network, &["registry"]);
    let registering = tokio::spawn(async move { client.register(an_order()).await });
    // It has failed to connect by then; a late start of the task would do no harm.
    tokio::task::yield_now().await;
    let _process = fake.serve(&network, "registry");
    let registered = soon(registering).await.unwrap().unwrap();
    assert_eq!(fake.state().instances.len(), 1);
    drop(registered);
}

#[tokio::test]
async fn registration_in_background_completes_once_a_registry_is_reachable() {
    let (network, fake) = (Network::default(), Fake::new());
    let client = client(&network, &["registry"]);
    let mut registered = client.register_in_background(an_order());
    assert_eq!(*registered.state().borrow(), RegistrationState::Pending);
    assert_eq!((registered.lease_id(), &*registered.instance().id), (None, "a"));
    soon(network.until_asked(2)).await;
    let updating = registered.set_weight(7);
    let starting = async {
        soon(network.until_asked(2)).await;
        fake.serve(&network, "registry")
    };
    let (updated, _process) = tokio::join!(updating, starting);
    updated.unwrap();
    soon(registered.wait_registered()).await.unwrap();
    assert!(registered.lease_id().is_some());
    assert_eq!(fake.state().instances["a"].weight, Some(7));
    soon(registered.deregister()).await.unwrap();
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn refused_registration_is_retried_after_an_update() {
    let (_network, fake, _process, client) = registry();
    fake.alter(|state| state.refuses = Some("full"));
    let mut registered = client.register_in_background(an_order());
    let refused = soon(registered.wait_registered()).await;
    assert!(matches!(refused, Err(RegisterError::LimitReached(_))), "{refused:?}");
    let shown = registered.state().borrow().clone();
    assert!(matches!(shown, RegistrationState::Refused(_)), "{shown:?}");
    fake.alter(|state| state.refuses = None);
    soon(registered.set_weight(7)).await.unwrap();
    assert_eq!(fake.state().instances["a"].weight, Some(7));
    drop(registered);
}

#[tokio::test]
async fn deregistering_what_was_never_registered_ends_at_once() {
    let client = client(&Network::default(), &["registry"]);
    let registered = client.register_in_background(an_order());
    let mut state = registered.state();
    soon(registered.deregister()).await.unwrap();
    assert_eq!(*state.borrow_and_update(), RegistrationState::Deregistered);
}

#[tokio::test]
async fn lost_response_leaves_no_second_instance() {
    let (_network, fake, _process, client) = registry();
    fake.alter(|state| state.answers_lost = 3);
    let registered = soon(client.register(nameless())).await.unwrap();
    let state = fake.state();
    assert_eq!((state.registrations, state.instances.len()), (4, 1));
    let id = registered.instance().id.clone();
    assert!(state.instances.contains_key(&id));
    soon(registered.deregister()).await.unwrap();
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn two_registrations_without_id_are_two_instances() {
    let (_network, fake, _process, client) = registry();
    let (first, second) = tokio::join!(client.register(nameless()), client.register(nameless()));
    assert_eq!(fake.state().instances.len(), 2);
    drop((first, second));
}

#[tokio::test]
async fn cancelled_registration_with_a_late_response_deregisters() {
    for registration in [an_order(), nameless()] {
        let (_network, fake, _process, client) = registry();
        fake.alter(|state| state.answers_wait = true);
        tokio::select! {
            registered = client.register(registration) => panic!("{registered:?}"),
            () = fake.until(|state| !state.instances.is_empty()) => {}
        }
        fake.alter(|state| state.answers_wait = false);
        fake.until(|state| state.instances.is_empty()).await;
    }
}

#[tokio::test]
async fn cancelled_registration_after_lost_responses_deregisters() {
    let (_network, fake, _process, client) = registry();
    fake.alter(|state| state.answers_lost = u64::MAX);
    tokio::select! {
        registered = client.register(nameless()) => panic!("{registered:?}"),
        () = fake.until(|state| state.registrations > 1) => {}
    }
    fake.until(|state| state.instances.is_empty()).await;
}

#[tokio::test]
async fn cancelled_registration_leaves_another_holder_of_its_id() {
    let (_network, fake, _process, client) = registry();
    fake.alter(|state| state.answers_lost = u64::MAX);
    tokio::select! {
        registered = client.register(an_order()) => panic!("{registered:?}"),
        () = fake.until(|state| state.registrations > 1) => {}
    }
    fake.alter(|state| state.answers_lost = 0);
    let registered = soon(client.register(an_order())).await.unwrap();
    fake.until(|state| state.heartbeats > 2).await;
    assert!(fake.state().instances.contains_key("a"));
    soon(registered.deregister()).await.unwrap();
}

#[tokio::test]
async fn deregistering_after_a_lost_response_leaves_no_instance() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(nameless())).await.unwrap();
    fake.alter(|state| state.answers_lost = u64::MAX);
    fake.expire_all();
    fake.until(|state| state.registrations > 2).await;
    soon(registered.deregister()).await.unwrap();
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn deregistering_reports_an_id_that_may_still_be_registered() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    fake.alter(|state| state.answers_lost = u64::MAX);
    fake.expire_all();
    fake.until(|state| state.registrations > 2).await;
    let closed = soon(registered.deregister()).await;
    let Err(error @ DeregisterError::Unreachable(_)) = closed else { panic!("{closed:?}") };
    let reason = Code::Unavailable.description();
    assert_eq!(error.to_string(), format!("the registry could not be reached: {reason}"));
}

#[tokio::test]
async fn state_changed_before_it_is_observed_is_not_missed() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    let mut watching = registered.state();
    fake.alter(|state| state.refuses = Some("full"));
    fake.expire_all();
    let refused = |state: &RegistrationState| matches!(state, RegistrationState::Refused(_));
    soon(watching.wait_for(refused)).await.unwrap();
    let mut late = registered.state();
    soon(late.changed()).await.unwrap();
    assert!(refused(&late.borrow_and_update()));
    drop(registered);
    let closed = |state: &RegistrationState| *state == RegistrationState::Deregistered;
    soon(late.wait_for(closed)).await.unwrap();
}

#[tokio::test]
async fn update_does_not_return_an_earlier_refusal() {
    let (_network, fake, _process, client) = registry();
    let mut registered = soon(client.register(an_order())).await.unwrap();
    let mut state = registered.state();
    for round in 1..20 {
        fake.alter(|state| state.refuses = Some("full"));
        fake.expire_all();
        let refused = |state: &RegistrationState| matches!(state, RegistrationState::Refused(_));
        soon(state.wait_for(refused)).await.unwrap();
        fake.alter(|state| state.refuses = None);
        soon(registered.update(Update::new().weight(round))).await.unwrap();
        assert_eq!(fake.state().instances["a"].weight, Some(round));
        // Renewals in between, so that the next loss is noticed at once.
        let heartbeats = fake.state().heartbeats;
        fake.until(|state| state.heartbeats > heartbeats + 2).await;
        if round > 3 {
            break;
        }
    }
}

#[test]
fn registration_reports_the_end_of_its_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_network, fake, _process, client) = registry();
    let (first, second) = (runtime(), runtime());
    let mut registered = first.block_on(client.register(an_order())).unwrap();
    drop(first);
    fake.expire_all();
    second.block_on(async {
        let updated = soon(registered.set_weight(1)).await;
        assert!(matches!(updated, Err(UpdateError::Stopped)), "{updated:?}");
        assert_eq!(*registered.state().borrow(), RegistrationState::Deregistered);
        assert!(matches!(soon(registered.deregister()).await, Err(DeregisterError::Stopped)));
    });
}
