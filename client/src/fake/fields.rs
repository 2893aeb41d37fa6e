//! What a registry asks of the fields of a request. Pure; it names every field at fault, as a real one
//! does, and must never repeat a value.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::host;
use crate::proto::{self, Instance, RegisterRequest, UpdateRequest};

const TTL_DEFAULT: Duration = Duration::from_secs(15);
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(300);
const NAME_BYTES_MAX: usize = 128;
/// Instances in a page at most.
const PAGE_SIZE_MAX: u32 = 1_000;
/// Before the last id of a page in the token of the next one.
const TOKEN_PREFIX: &str = "after:";

/// The fields at fault.
#[derive(Default)]
pub(super) struct Faults(ErrorDetails);

impl Faults {
    fn expect(&mut self, holds: impl Into<Option<bool>>, field: &str, description: &str) {
        if holds.into() != Some(true) {
            self.0.add_bad_request_violation(field, description);
        }
    }

    /// A service that is watched, or asked for.
    pub(super) fn service(&mut self, field: &str, service: &str) {
        let form = "must be letters, digits, '.', '_' and '-', first and last a letter or digit";
        self.expect(is_name(service), field, form);
    }

    /// The page that a lookup asks for.
    pub(super) fn page(&mut self, size: u32, token: &str) -> Page {
        let after = token.strip_prefix(TOKEN_PREFIX);
        let form = "must be next_page_token of the page before";
        self.expect(token.is_empty() || after.is_some(), "page_token", form);
        let size = match (size, token) {
            (0, "") => usize::MAX,
            (0, _) => PAGE_SIZE_MAX as usize,
            (size, _) => size.min(PAGE_SIZE_MAX) as usize,
        };
        Page { size, after: after.map(str::to_owned) }
    }

    /// The refusal, where there is any fault.
    pub(super) fn refuse(self) -> Result<(), Status> {
        let Some(first) = self.0.bad_request().and_then(|bad| bad.field_violations.first()) else {
            return Ok(());
        };
        let message = format!("{}: {}", first.field, first.description);
        Err(Status::with_error_details(Code::InvalidArgument, message, self.0))
    }
}

/// A page of a lookup.
pub(super) struct Page {
    /// Instances at most.
    size: usize,
    /// The last instance of the page before.
    after: Option<String>,
}

impl Page {
    /// The page of these instances, which are in order of their ids, and the token of the next one.
    pub(super) fn cut(&self, all: impl Iterator<Item = Instance>) -> (Vec<Instance>, String) {
        let after = |one: &Instance| self.after.as_ref().is_none_or(|after| one.id > *after);
        let mut rest = all.filter(after);
        let page: Vec<_> = rest.by_ref().take(self.size).collect();
        let last = page.last().filter(|_| rest.next().is_some());
        let token = last.map(|last| format!("{TOKEN_PREFIX}{}", last.id)).unwrap_or_default();
        (page, token)
    }
}

/// Checks a registration, and gives the TTL that its lease gets.
pub(super) fn registration(request: &RegisterRequest) -> Result<Duration, Status> {
    let mut faults = Faults::default();
    let nobody = Instance::default();
    let instance = request.instance.as_ref().unwrap_or(&nobody);
    if !instance.namespace.is_empty() {
        faults.service("instance.namespace", &instance.namespace);
    }
    faults.service("instance.service", &instance.service);
    let id = instance.id.len() <= 256 && !instance.id.contains(char::is_control);
    faults.expect(id, "instance.id", "must be up to 256 bytes without control characters");
    if let Err(why) = host::check(&instance.host) {
        faults.expect(false, "instance.host", &why);
    }
    let port = (1..=65_535).contains(&instance.port);
    faults.expect(port, "instance.port", "must be 1 to 65535");
    let status = instance.status == 0 || is_status(instance.status);
    faults.expect(status, "instance.status", "must be one that callers can set");
    let ttl = request.ttl.map_or(Some(TTL_DEFAULT), duration);
    let fits = ttl.map(|ttl| (TTL_MIN..=TTL_MAX).contains(&ttl));
    faults.expect(fits, "ttl", "must be 1 s to 5 min");
    let ttl = ttl.unwrap_or(TTL_DEFAULT);
    let grace = request.disconnect_grace.map_or(Some(Duration::ZERO), duration);
    let fits = grace.map(|grace| grace <= ttl);
    faults.expect(fits, "disconnect_grace", "must be 0 s to the TTL");
    faults.refuse().map(|()| ttl)
}

/// What `before` becomes by an update.
pub(super) fn updated(before: &Instance, request: UpdateRequest) -> Result<Instance, Status> {
    let mut faults = Faults::default();
    let mut after = before.clone();
    let wanted = request.instance.unwrap_or_default();
    let paths = request.update_mask.unwrap_or_default().paths;
    faults.expect(!paths.is_empty(), "update_mask", "must name what to change");
    for (index, path) in paths.iter().enumerate() {
        match path.as_str() {
            "status" => {
                let known = is_status(wanted.status);
                faults.expect(known, "instance.status", "must be one that callers can set");
                after.status = wanted.status;
            }
            "weight" => after.weight = wanted.weight.or(Some(100)),
            "metadata" => after.metadata.clone_from(&wanted.metadata),
            "version" => after.version.clone_from(&wanted.version),
            "zone" => after.zone.clone_from(&wanted.zone),
            _ => {
                let field = format!("update_mask.paths[{index}]");
                let known = "must be status, weight, metadata, version or zone";
                faults.expect(false, &field, known);
            }
        }
    }
    faults.refuse().map(|()| after)
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= NAME_BYTES_MAX
        && text.bytes().all(inner)
        && outer(bytes.first())
        && outer(bytes.last())
}

/// Whether callers can set it.
fn is_status(status: i32) -> bool {
    use proto::Status::{Down, Draining, Starting, Up};
    matches!(proto::Status::try_from(status), Ok(Starting | Up | Draining | Down))
}

fn duration(duration: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_fault(status: &Status) -> Vec<String> {
        let bad = status.get_details_bad_request().unwrap();
        bad.field_violations.into_iter().map(|violation| violation.field).collect()
    }

    fn an_order() -> Instance {
        let (service, host) = ("orders".into(), "10.0.0.1".into());
        Instance { service, host, port: 80, ..Instance::default() }
    }

    fn asked(instance: Instance, seconds: i64) -> RegisterRequest {
        let ttl = Some(prost_types::Duration { seconds, nanos: 0 });
        RegisterRequest { instance: Some(instance), ttl, disconnect_grace: None }
    }

    #[test]
    fn every_bad_field_of_a_registration_is_named() {
        let instance =
            Instance { namespace: "-".into(), status: 5, id: "\n".into(), ..Instance::default() };
        let refused = registration(&asked(instance, 0)).unwrap_err();
        let fields = ["namespace", "service", "id", "host", "port", "status"];
        let mut fields: Vec<String> = fields.map(|field| format!("instance.{field}")).into();
        fields.push("ttl".into());
        assert_eq!(at_fault(&refused), fields);
        assert_eq!(refused.code(), Code::InvalidArgument);
    }

    #[test]
    fn a_ttl_is_taken_from_a_second_to_five_minutes() {
        assert_eq!(registration(&asked(an_order(), 300)).unwrap(), TTL_MAX);
        for seconds in [0, 301, -1, i64::MAX] {
            let refused = registration(&asked(an_order(), seconds)).unwrap_err();
            assert_eq!(at_fault(&refused), ["ttl"], "{seconds}");
        }
        let mut asked = asked(an_order(), 2);
        asked.disconnect_grace = Some(prost_types::Duration { seconds: 3, nanos: 0 });
        assert_eq!(at_fault(&registration(&asked).unwrap_err()), ["disconnect_grace"]);
    }

    #[test]
    fn an_update_changes_what_its_mask_names() {
        let wanted = Instance { weight: Some(7), zone: "b".into(), status: 5, ..an_order() };
        let request = |paths: &[&str]| UpdateRequest {
            instance: Some(wanted.clone()),
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
            ..UpdateRequest::default()
        };
        let after = updated(&an_order(), request(&["weight"])).unwrap();
        assert_eq!(after, Instance { weight: Some(7), ..an_order() });
        let refused = updated(&an_order(), request(&["zone", "host", "status"])).unwrap_err();
        assert_eq!(at_fault(&refused), ["update_mask.paths[1]", "instance.status"]);
        let refused = updated(&an_order(), request(&[])).unwrap_err();
        assert_eq!(at_fault(&refused), ["update_mask"]);
    }
}
