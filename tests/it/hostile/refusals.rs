//! Bad requests get the right refusal, in few bytes, and change nothing.

use prost::Message;
use tonic::Code;
use waypost_client::proto::{HeartbeatRequest, RegisterRequest, UpdateRequest, WatchRequest};
use waypost_testing::{
    http2::{HEADER_BYTES_MAX, RawClient, RawResponse, framed, full},
    registry::bad_fields,
};

use super::{
    cases::{
        Case, KEEP_ALIVE, MESSAGE_MAX, REGISTER, Refusal, SECRET, UPDATE, WATCH, registering,
        seconds, table,
    },
    populated, quota_subjects, unharmed,
};

/// The error in a refusal.
fn errors(answer: &RawResponse, refusal: &Refusal) -> Vec<String> {
    let status = answer.status();
    let fields = bad_fields(&status);
    let subjects = quota_subjects(&status);
    let mut errors = Vec::new();
    let mut check = |right: bool, what: String| {
        if !right {
            errors.push(what);
        }
    };
    let code = match refusal {
        Refusal::Malformed(expected) => {
            check(fields == *expected, format!("names {fields:?}, not {expected:?}"));
            Code::InvalidArgument
        }
        Refusal::TooMuch(expected) => {
            check(fields == [*expected], format!("names {fields:?}, not {expected:?}"));
            check(subjects == [*expected], format!("quota of {subjects:?}, not {expected:?}"));
            Code::ResourceExhausted
        }
        Refusal::TooLarge => {
            check(!subjects.is_empty(), "has no quota failure".to_owned());
            Code::ResourceExhausted
        }
        Refusal::Code(code) => *code,
    };
    check(status.code() == code, format!("is {status:?}, not {code:?}"));
    check(answer.http == 200, format!("is HTTP {}", answer.http));
    // The framework's own refusal of an unknown method needs no words.
    let says_why = code == Code::Unimplemented || !status.message().is_empty();
    check(says_why, "says nothing".to_owned());
    check(!tells_secret(answer), "repeats a metadata value".to_owned());
    let bytes = answer.status_bytes();
    check(bytes < HEADER_BYTES_MAX as usize, format!("has {bytes} bytes"));
    errors
}

fn tells_secret(answer: &RawResponse) -> bool {
    let status = answer.status();
    let contains = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    contains(status.message().as_bytes())
        || contains(status.details())
        || format!("{:?}{:?}", answer.headers, answer.trailers).contains(SECRET)
}

#[tokio::test]
async fn bad_input_is_refused_by_field_and_changes_nothing() {
    let (server, lease, kept) = populated().await;
    let revision = server.status().await.revision;
    let cases = table(lease);
    eprintln!("{} kinds of bad input", cases.len());
    assert!(cases.len() >= 80);
    let mut wrong = Vec::new();
    let mut client = RawClient::connect(server.address()).await;
    for Case { what, path, body, refusal } in cases {
        match client.send(path, "application/grpc", full(body)).await {
            Ok(answer) => {
                let errors = errors(&answer, &refusal);
                wrong.extend(errors.into_iter().map(|mistake| format!("{what}: {mistake}")));
            }
            Err(error) => {
                wrong.push(format!("{what}: is not answered: {error:?}"));
                client = RawClient::connect(server.address()).await;
            }
        }
        let status = server.status().await;
        if status.revision != revision + wrong_changes(&wrong) {
            wrong.push(format!("{what}: leaves a trace"));
        }
    }
    assert!(wrong.is_empty(), "{} errors:\n{}", wrong.len(), wrong.join("\n"));
    unharmed(&server, &kept).await;
    server.stop().await;
}

/// Changes that were wrongly made so far; they are complained of once.
fn wrong_changes(wrong: &[String]) -> u64 {
    wrong.iter().filter(|mistake| mistake.ends_with("leaves a trace")).count() as u64
}

#[tokio::test]
async fn refusal_stays_small_with_many_bad_fields() {
    let (server, lease, kept) = populated().await;
    let mut client = RawClient::connect(server.address()).await;
    let wild = |seed: usize| format!("{seed}{}", "\u{7}ä\"\\".repeat(2_000));
    let everything = RegisterRequest {
        ttl: seconds(-1, 0),
        disconnect_grace: seconds(-1, 0),
        ..registering(|one| {
            one.namespace = wild(1);
            one.service = wild(2);
            one.id = wild(3);
            one.host = wild(4);
            one.port = 70_000;
            one.status = -7;
            one.zone = wild(5);
            one.version = wild(6);
            one.ports = (0..60).map(|port| (wild(port), 70_000)).collect();
            one.metadata = (0..60).map(|entry| (wild(entry), SECRET.repeat(1_000))).collect();
        })
    };
    let paths: Vec<String> = (0..5_000).map(wild).collect();
    let masked = UpdateRequest {
        lease_id: lease,
        update_mask: Some(prost_types::FieldMask { paths: paths[..200].to_vec() }),
        ..UpdateRequest::default()
    };
    let watched = WatchRequest { services: paths[..200].to_vec(), ..WatchRequest::default() };
    for (path, message) in [
        (REGISTER, everything.encode_to_vec()),
        (UPDATE, masked.encode_to_vec()),
        (WATCH, watched.encode_to_vec()),
    ] {
        assert!(message.len() < MESSAGE_MAX);
        let answer = client.grpc(path, framed(&message)).await;
        let status = answer.status();
        assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status:?}");
        assert!(answer.status_bytes() < HEADER_BYTES_MAX as usize, "{}", answer.status_bytes());
        assert!(bad_fields(&status).len() > 3, "{path} names several");
        assert!(!tells_secret(&answer), "{path} repeats a metadata value");
        assert!(!status.message().contains(char::is_control), "{:?}", status.message());
    }
    unharmed(&server, &kept).await;
}

#[tokio::test]
async fn refused_stream_ends_after_earlier_responses() {
    let (server, lease, kept) = populated().await;
    let mut client = RawClient::connect(server.address()).await;
    let good = framed(&HeartbeatRequest { lease_ids: vec![lease, 3] }.encode_to_vec());
    let bad = framed(&HeartbeatRequest { lease_ids: vec![1; 65_537] }.encode_to_vec());
    let body = [&good[..], &bad, &good].concat();
    let answer = client.grpc(KEEP_ALIVE, body.into()).await;
    assert_eq!(answer.status().code(), Code::ResourceExhausted);
    let expected = framed(&HeartbeatRequest { lease_ids: vec![3] }.encode_to_vec());
    assert_eq!(answer.body, expected, "one answer, for the request before the bad one");
    unharmed(&server, &kept).await;
}
