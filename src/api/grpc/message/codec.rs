//! The codec of the services: protobuf, with errors that name the field that can't be decoded.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec as TonicCodec, DecodeBuf, Decoder as TonicDecoder},
};
use tonic_prost::ProstEncoder;

use super::violations::Violations;

/// The initial size of a call's buffers, one for requests and one for responses. They grow on
/// demand, and stay small for long-lived calls with small messages.
const BUFFER_BYTES: usize = 1024;
/// The size up to which responses that are ready are sent together.
const YIELD_BYTES: usize = 32 * 1024;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// A codec that encodes `T` and decodes `U`.
#[derive(Debug)]
pub(crate) struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> TonicCodec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(PhantomData)
    }
}

/// Decodes messages of one type.
#[derive(Debug)]
pub(crate) struct Decoder<U>(PhantomData<U>);

impl<U: Message + Default> TonicDecoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buffer).map(Some).map_err(|error| undecodable(&error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

/// Makes the status of bytes that are not the message. prost has the field only in the text of its
/// error: `failed to decode Protobuf message: B.c: A.b: reason`, the innermost field first.
fn undecodable(error: &str) -> Status {
    let mut rest = error.split_once("message: ").map_or(error, |(_, rest)| rest);
    let mut fields = Vec::new();
    while let Some((place, deeper)) = rest.split_once(": ")
        && let Some((_, field)) = place.split_once('.')
        && !place.contains(' ')
    {
        fields.push(field);
        rest = deeper;
    }
    fields.reverse();
    let path = if fields.is_empty() { "message".to_owned() } else { fields.join(".") };
    let mut violations = Violations::default();
    violations.bad(path, format!("can't be decoded: {rest}"));
    violations.into_status()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::grpc::proto::RegisterRequest;
    use tonic_types::StatusExt;

    #[test]
    fn undecodable_message_names_its_field() {
        // RegisterRequest.instance (1) with Instance.host (4) that is not UTF-8.
        let bytes: &[u8] = &[0x0a, 0x03, 0x22, 0x01, 0xff];
        let error = RegisterRequest::decode(bytes).expect_err("not UTF-8");
        let status = undecodable(&error.to_string());
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        let details = status.get_details_bad_request().expect("details");
        assert_eq!(details.field_violations[0].field, "instance.host");
    }

    #[test]
    fn garbage_is_an_undecodable_message() {
        let error = RegisterRequest::decode(&[0xff; 16][..]).expect_err("garbage");
        let status = undecodable(&error.to_string());
        let details = status.get_details_bad_request().expect("details");
        assert_eq!(details.field_violations[0].field, "message");
    }
}
