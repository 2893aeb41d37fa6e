//! Compiles `proto/` with protox, so that no protoc is needed. Makes the server's stubs, and the
//! descriptor set that reflection serves.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const PROTOS: [&str; 3] =
    ["waypost/v1/registry.proto", "waypost/v1/discovery.proto", "waypost/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .btree_map(".")
        // Responses with instances are written from bytes, most of them shared.
        .extern_path(".waypost.v1.RegisterResponse", "crate::api::grpc::message::RegisterResponse")
        .extern_path(".waypost.v1.UpdateResponse", "crate::api::grpc::message::UpdateResponse")
        .extern_path(".waypost.v1.ResolveResponse", "crate::api::grpc::message::ResolveResponse")
        .extern_path(".waypost.v1.WatchResponse", "crate::api::grpc::message::WatchResponse")
        .codec_path("crate::api::grpc::message::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
