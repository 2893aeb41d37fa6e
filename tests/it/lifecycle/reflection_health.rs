//! The first requests of generic clients: the list of services, their descriptors, their health.

use prost::Message;
use prost_types::FileDescriptorProto;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::TestServer;

const SERVICES: [&str; 3] = ["waypost.v1.Admin", "waypost.v1.Discovery", "waypost.v1.Registry"];

/// Sends one request to one version of reflection.
macro_rules! ask {
    ($version:ident, $server:expr, $question:ident, $text:expr, $answer:ident) => {{
        use $version::{
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let channel = $server.channel();
        let mut client = $version::server_reflection_client::ServerReflectionClient::new(channel);
        let request = $version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::$question($text.to_owned())),
        };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.expect("open").into_inner().message().await.expect("an answer");
        match answer.and_then(|answer| answer.message_response) {
            Some(MessageResponse::$answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }};
}

/// The services and methods that a file describes.
fn described(files: &[Vec<u8>]) -> Vec<String> {
    let mut methods = Vec::new();
    for file in files {
        let file = FileDescriptorProto::decode(&file[..]).expect("a file");
        for service in &file.service {
            for method in &service.method {
                methods.push(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    methods.sort();
    methods
}

#[tokio::test]
async fn both_versions_of_reflection_list_the_services() {
    let server = TestServer::start().await;
    let listed = ask!(v1, server, ListServices, "", ListServicesResponse);
    let mut names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    let listed = ask!(v1alpha, server, ListServices, "", ListServicesResponse);
    let mut alpha: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    names.sort();
    alpha.sort();
    for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(names.iter().any(|name| name == service), "{service} in {names:?}");
        assert!(alpha.iter().any(|name| name == service), "{service} in {alpha:?}");
    }
}

#[tokio::test]
async fn both_versions_of_reflection_describe_the_services() {
    let server = TestServer::start().await;
    for (service, methods) in [
        ("waypost.v1.Admin", vec!["Backup", "GetStatus", "ReleaseProtection", "WhoAmI"]),
        ("waypost.v1.Discovery", vec!["ListServices", "Resolve", "Watch"]),
        ("waypost.v1.Registry", vec!["Deregister", "Heartbeat", "KeepAlive", "Register", "Update"]),
    ] {
        let expected: Vec<_> = methods.iter().map(|method| format!("{service}/{method}")).collect();
        let files = ask!(v1, server, FileContainingSymbol, service, FileDescriptorResponse);
        assert_eq!(described(&files.file_descriptor_proto), expected);
        let files = ask!(v1alpha, server, FileContainingSymbol, service, FileDescriptorResponse);
        assert_eq!(described(&files.file_descriptor_proto), expected);
    }
    // What generic clients need to show requests and the details of errors.
    for symbol in ["waypost.v1.Instance", "waypost.v1.Change", "google.rpc.BadRequest"] {
        let files = ask!(v1, server, FileContainingSymbol, symbol, FileDescriptorResponse);
        assert!(!files.file_descriptor_proto.is_empty(), "{symbol}");
    }
    let file = "waypost/v1/types.proto";
    let files = ask!(v1, server, FileByFilename, file, FileDescriptorResponse);
    assert!(!files.file_descriptor_proto.is_empty());
}

#[tokio::test]
async fn the_server_and_its_services_are_healthy() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.channel());
    for service in SERVICES.into_iter().chain([""]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let request = HealthCheckRequest { service: "waypost.v1.Nothing".to_owned() };
    let unknown = health.check(request).await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::NotFound);
}
