//! The client crate and the tests carry their stubs as source, so that they build without `proto/`.
//! They must be what the protos generate: `BLESS=1 cargo test --test repository` writes them anew.

use std::{env, fs, path::Path};

use tonic_prost_build::Builder;

/// The stubs that every program links.
const CLIENTS: &str = "client/src/generated/waypost.v1.rs";
/// The stubs of the registry in memory, with the messages of the clients.
const SERVERS: &str = "client/src/generated/waypost.v1.servers.rs";
/// The service that tests and examples call.
const GREETER: &str = "crates/testing/src/generated/greeter.rs";

#[test]
fn client_stubs_are_what_the_protos_generate() {
    let clients = tonic_prost_build::configure().build_server(false);
    assert_current(CLIENTS, &["registry", "discovery", "admin"], clients);
}

#[test]
fn server_stubs_are_what_the_protos_generate() {
    let servers = tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".waypost.v1", "crate::proto");
    assert_current(SERVERS, &["registry", "discovery"], servers);
}

#[test]
fn greeter_stubs_are_what_their_proto_generates() {
    let protos = ["greeter.proto".to_owned()];
    let builder = tonic_prost_build::configure().build_transport(false);
    assert_generated(GREETER, "crates/testing/proto", &protos, builder);
}

fn assert_current(stubs: &str, protos: &[&str], builder: Builder) {
    let protos: Vec<_> = protos.iter().map(|name| format!("waypost/v1/{name}.proto")).collect();
    assert_generated(stubs, "proto", &protos, builder.build_transport(false).btree_map("."));
}

fn assert_generated(stubs: &str, include: &str, protos: &[String], builder: Builder) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(protos, [root.join(include)]).expect("the protos compile");
    let out = tempfile::tempdir().expect("a temporary directory");
    builder
        .emit_rerun_if_changed(false)
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("the stubs generate");
    let written = fs::read_dir(out.path()).expect("a directory").next().expect("a file of stubs");
    let generated = fs::read_to_string(written.expect("a file").path()).expect("stubs");
    if env::var_os("BLESS").is_some() {
        fs::write(root.join(stubs), &generated).expect("the stubs can be replaced");
    }
    let committed = fs::read_to_string(root.join(stubs)).unwrap_or_default();
    assert!(
        committed == generated,
        "{stubs} is out of date: run BLESS=1 cargo test --test repository"
    );
}
