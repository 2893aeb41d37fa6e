//! The audit log has who did what, and who was refused.

use std::path::Path;

use serde_json::{Value, json};
use tonic::{Code, Status};
use waypost_client::proto::{
    BackupRequest, DeregisterRequest, GetStatusRequest, HeartbeatRequest, Instance,
    ListServicesRequest, ReleaseProtectionRequest, ResolveRequest, UpdateRequest,
    registry_client::RegistryClient,
};
use waypost_testing::{
    process::output,
    registry::{instance, register_request, watch_of},
};

use super::tokens::{Authorized, TokenRegistry};
use crate::support::{serve, waypost};

const RULES: &str = r#"[[allow]]
who = "token/orders"
may = ["register", "discover"]
on = "default/orders"
[[allow]]
who = "token/admin"
may = ["register", "discover", "operate", "status", "backup"]
on = "*/*"
"#;

/// The records of writes, without what is another in each run. `o` is `token/orders`, `a` is
/// `token/admin`. Refusals wait for equal ones.
const WRITES: &str = r#"
o {"method":"Register","action":"register","namespace":"default","service":"orders","instance":"a","outcome":"allowed","code":"OK","rule":1,"revision":1}
o {"method":"Update","action":"register","namespace":"default","service":"orders","instance":"a","outcome":"allowed","code":"OK","rule":1,"revision":2}
o {"method":"Update","outcome":"failed","code":"NOT_FOUND"}
a {"method":"Register","action":"register","namespace":"default","service":"payments","instance":"p","outcome":"allowed","code":"OK","rule":5,"revision":3}
a {"method":"Deregister","action":"operate","namespace":"default","service":"payments","instance":"p","outcome":"allowed","code":"OK","rule":5,"revision":4}
a {"method":"Deregister","action":"operate","namespace":"default","service":"payments","instance":"p","outcome":"failed","code":"NOT_FOUND","rule":5}
o {"method":"Deregister","action":"register","namespace":"default","service":"orders","instance":"a","outcome":"allowed","code":"OK","rule":1,"revision":5}
o {"method":"Register","action":"register","namespace":"default","service":"payments","instance":"p","outcome":"denied","code":"PERMISSION_DENIED","reason":"NOT_ALLOWED"}
o {"method":"Deregister","action":"register","namespace":"default","service":"payments","outcome":"denied","code":"NOT_FOUND","reason":"NOT_ALLOWED"}
"#;

/// The records of reads.
const READS: &str = r#"
o {"method":"Watch","action":"discover","namespace":"default","service":"orders","outcome":"allowed","code":"OK","rule":1}
o {"method":"Watch","action":"discover","namespace":"default","outcome":"allowed","code":"OK","rule":1}
a {"method":"ReleaseProtection","action":"operate","namespace":"shop","outcome":"allowed","code":"OK","rule":5,"revision":0}
a {"method":"Backup","action":"backup","outcome":"failed","code":"FAILED_PRECONDITION","rule":5}
o {"method":"Resolve","action":"discover","namespace":"default","service":"payments","outcome":"denied","code":"PERMISSION_DENIED","reason":"NOT_ALLOWED","count":3}
o {"method":"ListServices","action":"discover","namespace":"shop","outcome":"denied","code":"PERMISSION_DENIED","reason":"NOT_ALLOWED"}
- {"method":"GetStatus","outcome":"unauthenticated","code":"UNAUTHENTICATED","reason":"NO_CREDENTIALS"}
"#;

/// The records of a policy that is not enforced.
const LET_THROUGH: &str = r#"
o {"method":"Register","action":"register","namespace":"default","service":"payments","instance":"p","outcome":"denied","code":"OK","reason":"NOT_ALLOWED","revision":1}
- {"method":"Register","action":"register","namespace":"default","service":"payments","instance":"p","outcome":"unauthenticated","code":"OK","reason":"NO_CREDENTIALS","revision":1}
"#;

fn code<T>(result: &Result<T, Status>) -> Code {
    result.as_ref().map_or_else(Status::code, |_| Code::Ok)
}

/// Returns the records of a text.
fn expected(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| !line.is_empty());
    let record = |line: &str| {
        let (caller, fields) = line.split_at(1);
        let mut record: Value = serde_json::from_str(fields).unwrap();
        let (principal, via, credential) = match caller {
            "o" => ("token/orders", "token", json!("orders")),
            "a" => ("token/admin", "token", json!("admin")),
            _ => ("anonymous", "anonymous", Value::Null),
        };
        record["principal"] = principal.into();
        record["via"] = via.into();
        if !credential.is_null() {
            record["credential"] = credential;
        }
        record
    };
    lines.map(record).collect()
}

/// Checks the records of calls, in the order in which they were written.
fn assert_calls(records: &[Value], text: &str) {
    let calls = records.iter().filter(|record| record["kind"] == "call");
    let comparable = |record: &Value| {
        let mut record = record.as_object().unwrap().clone();
        assert!(record.remove("time").is_some_and(|time| time.is_string()));
        assert!(record.remove("peer").unwrap().as_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!(record.remove("correlation_id"), Some("call-7".into()));
        assert_eq!(record.remove("epoch"), Some(1.into()));
        record.remove("kind");
        Value::Object(record)
    };
    let calls: Vec<_> = calls.map(comparable).collect();
    assert_eq!(calls, expected(text), "{calls:#?}");
}

/// Judges the records by a policy. Returns the exit code, and what was printed.
async fn replay(policy: &Path, audit: &Path) -> (i32, String) {
    let mut command = waypost(Path::new("."));
    command.args(["policy", "check"]).arg(policy).arg("--replay").arg(audit);
    let output = output(command).await;
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn by_lease(lease_id: u64) -> DeregisterRequest {
    DeregisterRequest { lease_id, ..DeregisterRequest::default() }
}

/// Writes of both callers, with each outcome.
async fn write(orders: &mut RegistryClient<Authorized>, admin: &mut RegistryClient<Authorized>) {
    let registered = orders.register(register_request(instance("orders", "a"))).await.unwrap();
    let lease_id = registered.into_inner().lease_id;
    let denied = orders.register(register_request(instance("payments", "p"))).await;
    assert_eq!(code(&denied), Code::PermissionDenied);
    orders.heartbeat(HeartbeatRequest { lease_ids: vec![lease_id, 7] }).await.unwrap();
    let update = |lease_id| UpdateRequest {
        lease_id,
        instance: Some(Instance { weight: Some(7), ..Instance::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["weight".to_owned()] }),
        ..UpdateRequest::default()
    };
    orders.update(update(lease_id)).await.unwrap();
    assert_eq!(code(&orders.update(update(1 << 40 | 12_345)).await), Code::NotFound);
    // A request that names nothing is refused before a decision, and no record.
    assert_eq!(code(&orders.update(UpdateRequest::default()).await), Code::InvalidArgument);
    let payments = admin.register(register_request(instance("payments", "p"))).await.unwrap();
    let foreign = payments.into_inner().lease_id;
    assert_eq!(code(&orders.deregister(by_lease(foreign)).await), Code::NotFound);
    let by_identity = DeregisterRequest {
        service: "payments".to_owned(),
        id: "p".to_owned(),
        ..DeregisterRequest::default()
    };
    admin.deregister(by_identity.clone()).await.unwrap();
    assert_eq!(code(&admin.deregister(by_identity).await), Code::NotFound);
    orders.deregister(by_lease(lease_id)).await.unwrap();
}

#[tokio::test]
async fn every_write_and_refusal_is_a_record() {
    let mut server = TokenRegistry::start(RULES, &["orders", "admin"]).await;
    let (mut orders, mut admin) = (server.registry("orders").await, server.registry("admin").await);
    write(&mut orders, &mut admin).await;
    let records = server.records().await;
    assert_calls(&records, WRITES);
    let of = |kind: &str| -> Vec<_> {
        let of_kind = records.iter().filter(|record| record["kind"] == kind);
        of_kind.map(|one| (&one["principal"], &one["outcome"], &one["epoch"])).collect()
    };
    let (allowed, first) = (json!("allowed"), json!(1));
    let (orders, admin) = (json!("token/orders"), json!("token/admin"));
    assert_eq!(of("session"), [(&orders, &allowed, &first), (&admin, &allowed, &first)]);
    assert_eq!(of("trust"), [(&Value::Null, &allowed, &first)]);

    // A replay reads what the server wrote.
    let (policy, audit) = (server.policy(), server.audit());
    let (code, printed) = replay(&policy, &audit).await;
    assert_eq!((code, printed.as_str()), (0, "8 decisions, none would change\n"));
    let text = std::fs::read_to_string(&policy).unwrap();
    let narrower = text.replacen("\"register\", \"discover\"", "\"discover\"", 1);
    std::fs::write(&policy, narrower).unwrap();
    let (code, printed) = replay(&policy, &audit).await;
    assert!(code == 1 && printed.contains("8 decisions, 3 would change"), "{printed}");
}

#[tokio::test]
async fn reads_are_records_where_they_last_or_are_refused() {
    let mut server = TokenRegistry::start(RULES, &["orders", "admin"]).await;
    let mut orders = server.discovery("orders").await;
    let resolve =
        |service: &str| ResolveRequest { service: service.to_owned(), ..ResolveRequest::default() };
    orders.resolve(resolve("orders")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(code(&orders.resolve(resolve("payments")).await), Code::PermissionDenied);
    }
    let namespace = "shop".to_owned();
    let list = ListServicesRequest { namespace, ..ListServicesRequest::default() };
    assert_eq!(code(&orders.list_services(list).await), Code::PermissionDenied);
    let one = orders.watch(watch_of(&["orders"])).await.unwrap();
    let all = orders.watch(watch_of(&[])).await.unwrap();
    let mut admin = server.admin("admin").await;
    admin.get_status(GetStatusRequest {}).await.unwrap();
    let release = ReleaseProtectionRequest { namespace: "shop".to_owned() };
    admin.release_protection(release).await.unwrap();
    // The memory store has nothing to copy.
    assert_eq!(code(&admin.backup(BackupRequest {}).await), Code::FailedPrecondition);
    let mut stranger = server.admin("anonymous").await;
    assert_eq!(code(&stranger.get_status(GetStatusRequest {}).await), Code::Unauthenticated);
    drop((orders, stranger, one, all));
    assert_calls(&server.records().await, READS);
}

#[tokio::test]
async fn policy_that_is_not_enforced_records_what_it_would_refuse() {
    let rules = format!("enforce = false\n{RULES}");
    let mut server = TokenRegistry::start(&rules, &["orders", "admin"]).await;
    let mut orders = server.registry("orders").await;
    let payments = register_request(instance("payments", "p"));
    orders.register(payments.clone()).await.unwrap();
    server.registry("anonymous").await.register(payments).await.unwrap();
    assert_calls(&server.records().await, LET_THROUGH);
}

#[tokio::test]
async fn without_a_file_records_are_lines_of_the_log() {
    let place = tempfile::tempdir().unwrap();
    let policy = place.path().join("policy.toml");
    let rules = "[[allow]]\nwho = \"anonymous\"\nmay = [\"probe\"]\n";
    std::fs::write(&policy, rules).unwrap();
    let policy = ["--policy".into(), policy.into_os_string()];
    let serve = serve().log("waypost::audit=info").arguments(policy);
    let mut process = serve.start().await;
    let mut registry = RegistryClient::new(process.channel().await);
    let refused = registry.register(register_request(instance("orders", "a"))).await;
    assert_eq!(code(&refused), Code::Unauthenticated);
    drop(registry);
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.end().await.code(), Some(0));
    process.logs("NO_CREDENTIALS").await;
    let log = process.log();
    let line = log.lines().find(|line| line.contains("NO_CREDENTIALS")).unwrap();
    let record: Value = serde_json::from_str(line).unwrap();
    let (target, method) = (json!("waypost::audit"), json!("Register"));
    assert_eq!((&record["target"], &record["method"]), (&target, &method));
}
