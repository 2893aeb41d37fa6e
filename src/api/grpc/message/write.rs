//! The responses of `Register` and `Update`.

use prost::Message;

use crate::api::grpc::proto;

/// A `waypost.v1.RegisterResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RegisterResponse {
    /// The bytes of a `waypost.v1.Instance`.
    #[prost(bytes = "vec", tag = "1")]
    pub(in crate::api::grpc) instance: Vec<u8>,
    #[prost(fixed64, tag = "2")]
    pub(in crate::api::grpc) lease_id: u64,
    #[prost(message, optional, tag = "3")]
    pub(in crate::api::grpc) ttl: Option<prost_types::Duration>,
    #[prost(message, optional, tag = "4")]
    pub(in crate::api::grpc) heartbeat_interval: Option<prost_types::Duration>,
    #[prost(message, optional, tag = "5")]
    pub(in crate::api::grpc) cursor: Option<proto::Cursor>,
}

/// A `waypost.v1.UpdateResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct UpdateResponse {
    /// The bytes of a `waypost.v1.Instance`.
    #[prost(bytes = "vec", tag = "1")]
    pub(in crate::api::grpc) instance: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api::grpc) cursor: Option<proto::Cursor>,
}
