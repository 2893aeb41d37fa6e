//! The fields that `waypost.v1.Instance` and the store's record of an instance have in common.
//!
//! Invariant: neither message gives another number to one of these fields.

use super::{Fields, number_len, text_len};
use crate::model::Instance;

/// Writes the fields 1 to 11: the identity and the content. The messages number statuses by
/// themselves, and `put_weight` decides whether a weight of 0 is written.
pub(crate) fn put_identity_and_content<'a>(
    fields: &mut Fields<'a>,
    instance: &Instance,
    status: u64,
    put_weight: impl FnOnce(&mut Fields<'a>, u32, u64),
) {
    let content = instance.content.view();
    fields.text(1, instance.service.namespace.as_str());
    fields.text(2, instance.service.service.as_str());
    fields.text(3, instance.id.as_str());
    fields.text(4, content.host);
    fields.number(5, content.port.get().into());
    for (name, port) in content.ports() {
        let port = u64::from(port.get());
        fields.begin(6, text_len(name) + number_len(port));
        fields.text(1, name);
        fields.number(2, port);
    }
    fields.number(7, status);
    fields.text(8, content.zone);
    fields.text(9, content.version);
    put_weight(fields, 10, content.weight.into());
    for (key, value) in content.metadata() {
        fields.begin(11, text_len(key) + text_len(value));
        fields.text(1, key);
        fields.text(2, value);
    }
}
