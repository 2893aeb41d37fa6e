//! Bodies that are too large, cut off, compressed, or not messages.

use bytes::Bytes;
use prost::Message;
use tonic::Code;
use waypost_testing::http2::framed;

use super::{KEEP_ALIVE, MESSAGE_MAX, REGISTER, Refusal, Table, padded, registering};

pub(crate) fn sizes_and_frames(table: &mut Table) {
    let request = registering(|_| {}).encode_to_vec();
    table.raw("4 MiB and 1 byte", REGISTER, framed(&padded(&request, MESSAGE_MAX + 1)), {
        Refusal::TooLarge
    });
    table.raw("4 MiB and 1 byte", KEEP_ALIVE, framed(&padded(&[], MESSAGE_MAX + 1)), {
        Refusal::TooLarge
    });
    let announced = [&[0, 0xff, 0xff, 0xff, 0xff][..], &request].concat();
    table.raw("4 GiB announced", REGISTER, announced.into(), Refusal::TooLarge);
    let flagged = |flag: u8| Bytes::from([&[flag], &framed(&request)[1..]].concat());
    table.raw("compressed as nobody said", REGISTER, flagged(1), Refusal::Code(Code::Internal));
    table.raw("a flag that does not exist", REGISTER, flagged(2), Refusal::Code(Code::Internal));
    for path in [
        "/waypost.v1.Registry/Nothing",
        "/waypost.v1.Registry/",
        "/waypost.v1.Nothing/Register",
        "/waypost.v2.Registry/Register",
        "/",
        "/../../etc/passwd",
    ] {
        let refusal = Refusal::Code(Code::Unimplemented);
        table.raw("no such method", path, framed(&request), refusal);
    }
}
