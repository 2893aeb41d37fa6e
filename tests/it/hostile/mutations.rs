//! Valid messages with random bytes changed.

use prost::Message;
use tonic::Code;
use waypost_client::proto::{
    HeartbeatRequest, ListServicesRequest, RegisterRequest, ResolveRequest,
};
use waypost_testing::{
    http2::{RawClient, framed},
    registry::{millis, resolve_all},
    seed::seed,
};

use super::{
    cases::{HEARTBEAT, LIST_SERVICES, REGISTER, RESOLVE, UPDATE, registering, update},
    populated,
};

#[tokio::test]
async fn mutated_messages_are_accepted_or_refused() {
    let (server, lease, kept) = populated().await;
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = RawClient::connect(server.address()).await;
    let messages = [
        (
            REGISTER,
            RegisterRequest { ttl: Some(millis(300_000)), ..registering(|_| {}) }.encode_to_vec(),
        ),
        (UPDATE, update(lease, &["zone", "weight"], registering(|_| {}).instance).encode_to_vec()),
        (HEARTBEAT, HeartbeatRequest { lease_ids: vec![lease; 5] }.encode_to_vec()),
        (RESOLVE, ResolveRequest { service: "kept".into(), ..Default::default() }.encode_to_vec()),
        (LIST_SERVICES, ListServicesRequest { page_size: 3, ..Default::default() }.encode_to_vec()),
    ];
    let mut refused = 0;
    for round in 0..1_000 {
        let (path, message) = &messages[round % messages.len()];
        let mut message = message.clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..message.len());
            match random.u8(..4) {
                0 => message[at] = random.u8(..),
                1 => message[at] ^= 1 << random.u8(..8),
                2 => message.insert(at, random.u8(..)),
                _ if message.len() > 1 => {
                    message.remove(at);
                }
                _ => {}
            }
        }
        let answer = client.grpc(path, framed(&message)).await;
        let code = answer.status().code();
        let known = [
            Code::Ok,
            Code::InvalidArgument,
            Code::ResourceExhausted,
            Code::NotFound,
            Code::FailedPrecondition,
        ];
        assert!(
            known.contains(&code),
            "{path} {message:02x?} (seed {seed}): {:?}",
            answer.status()
        );
        refused += u32::from(code != Code::Ok);
    }
    assert!(refused > 100, "mutations do harm: {refused} refused");
    // An update may have hit its mark; the rest is untouched.
    let there = resolve_all(&mut server.discovery(), "kept").await.instances;
    assert_eq!(there[..4], kept[..4]);
    assert_eq!(there.len(), kept.len());
}
