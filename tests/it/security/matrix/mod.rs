//! Each method that reflection lists, called by each kind of caller over each way in, answers what
//! one table has (S1).

mod callers;
mod requests;
mod table;

use std::{collections::BTreeSet, io};

use prost::Message;
use tonic::Code;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use waypost_client::proto::registry_client::RegistryClient;

use self::{
    callers::{Transport, WAYS, Way, caller, invalid, policy},
    requests::{changed, has_unknown_lease, message, reading, registered},
    table::{CALLERS, Outcome, Row, TABLE, outcome, rows},
};
use super::support::{
    Place, Protocol, RawCaller, TokenChannel, connect_tls, handshake_error, serve, static_token,
    with_token,
};
use crate::support::TestServer;

/// Refused credentials on one connection; the fifth closes it.
const REFUSALS_MAX: u32 = 4;

/// A server, and a connection to it whose caller may do all.
struct Port {
    server: TestServer,
    operator: TokenChannel,
}

async fn port(place: &Place, transport: Transport) -> Port {
    let config = match transport {
        Transport::Tls => place.with_tls(),
        Transport::ClearText => place.clear_text(),
    };
    let server = serve(config).await;
    let channel = match transport {
        Transport::Tls => connect_tls(server.address(), place.authority.connector(None)).await,
        Transport::ClearText => server.channel(),
    };
    Port { server, operator: with_token(channel, &static_token("all")) }
}

/// Calls the methods of all rows as one caller by one way. Returns the cells that are wrong.
async fn call_all(
    column: usize,
    way: (Way, Protocol, Transport),
    place: &Place,
    port: &Port,
) -> Vec<String> {
    let name = CALLERS[column];
    let Some(mut caller) = caller(name, way, place, &port.server) else { return Vec::new() };
    let mut registry = RegistryClient::new(port.operator.clone());
    let (mut wrong, mut refusals) = (Vec::new(), 0);
    for (index, row) in rows().iter().enumerate() {
        let Row { method, request, answers } = row;
        let expected = outcome(answers[column], invalid(way.0));
        let id = format!("{way:?}-{name}-{index}").replace([' ', '(', ')', ','], "");
        let lease = match changed(method, request) {
            Some(service) => Some(registered(&mut registry, service, &id).await),
            None => None,
        };
        let message = message(method, request, &id, lease);
        let called = call(&mut caller, method, &message).await.expect("a response");
        if called != expected {
            wrong.push(format!("{method} {request} by {name} {way:?}: {called:?}"));
        }
        if called.code == Code::Unauthenticated {
            refusals += 1;
            if refusals == REFUSALS_MAX {
                (refusals, _) = (0, caller.disconnect());
            }
        }
    }
    wrong
}

async fn call(caller: &mut RawCaller, method: &str, message: &[u8]) -> io::Result<Outcome> {
    let body = waypost_testing::http2::framed(message);
    let answer = caller.send(&format!("/{method}"), body, reading(method)).await?;
    let (code, reason) = answer.outcome();
    let visible = answer.headers.get("waypost-visible");
    Ok(Outcome {
        code,
        reason,
        visible: visible.map(|value| value.to_str().expect("a text").to_owned()),
        is_unknown: has_unknown_lease(method, &answer),
    })
}

#[tokio::test]
async fn every_method_answers_every_caller_as_the_table_has_it() {
    let place = Place::new(&policy());
    let ports = [
        (Transport::Tls, port(&place, Transport::Tls).await),
        (Transport::ClearText, port(&place, Transport::ClearText).await),
    ];
    for (_, port) in &ports {
        let mut registry = RegistryClient::new(port.operator.clone());
        for service in ["shop/orders", "shop/payments", "bank/ledger"] {
            registered(&mut registry, service, "there").await;
        }
    }
    let calls = WAYS.into_iter().flat_map(|way| {
        let port = ports.iter().find(|(transport, _)| *transport == way.2).map(|(_, port)| port);
        let port = port.expect("a port of each transport");
        let place = &place;
        (0..CALLERS.len()).map(move |column| call_all(column, way, place, port))
    });
    let wrong: Vec<_> = futures_util::future::join_all(calls).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} cells are wrong: {wrong:#?}", wrong.len());
    // The one cell that is none: the handshake refuses.
    let expired = place.authority.issue_expired("spiffe://test/role/expired");
    let tls = place.authority.connector(Some(&expired));
    let refused = handshake_error(ports[0].1.server.address(), tls).await;
    assert!(refused.contains("CertificateExpired"), "{refused}");
}

/// The methods of a service, by reflection.
async fn methods(client: &mut ServerReflectionClient<TokenChannel>) -> BTreeSet<String> {
    let mut ask = async |request| {
        let request =
            ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.expect("open").into_inner().message().await.expect("an answer");
        answer.and_then(|answer| answer.message_response).expect("a response")
    };
    let listed = ask(MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
    let mut methods = BTreeSet::new();
    for service in listed.service {
        let described = ask(MessageRequest::FileContainingSymbol(service.name.clone())).await;
        let MessageResponse::FileDescriptorResponse(files) = described else {
            panic!("{described:?}")
        };
        for file in &files.file_descriptor_proto {
            let file = prost_types::FileDescriptorProto::decode(&file[..]).expect("a file");
            let package = file.package().to_owned();
            for one in &file.service {
                let full = format!("{package}.{}", one.name());
                let names = one.method.iter().map(|method| format!("{full}/{}", method.name()));
                methods.extend(names.filter(|_| full == service.name));
            }
        }
    }
    methods
}

#[tokio::test]
async fn every_method_of_reflection_has_a_row() {
    let place = Place::new(&policy());
    let port = port(&place, Transport::ClearText).await;
    let listed = methods(&mut ServerReflectionClient::new(port.operator.clone())).await;
    let rows: BTreeSet<_> = TABLE.iter().map(|(method, _)| (*method).to_owned()).collect();
    let missing: Vec<_> = listed.difference(&rows).collect();
    assert!(missing.is_empty(), "methods without a row: {missing:?}");
    // The library of health has not implemented `List`; each version of reflection lists itself
    // alone.
    let unlisted = ["Health/List", "v1alpha.", "Nothing"];
    let is_listed = |name: &&String| !unlisted.iter().any(|part| name.contains(part));
    let gone: Vec<_> = rows.difference(&listed).filter(is_listed).collect();
    assert!(gone.is_empty(), "rows without a method: {gone:?}");
    assert!(listed.len() >= 15, "{listed:?}");
}
