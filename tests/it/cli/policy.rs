//! `waypost policy` and `waypost token`: a policy is judged, and tokens are made for it.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use waypost_auth::policy::{Policy, Unauthenticated};

use super::support::{Finished, finish, program};

const ORDERS: &str = "spiffe://waypost.internal/ns/shop/sa/orders";

/// A directory with the policy of `ca init`.
async fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    assert_eq!(run(&place, &["ca", "init", "--dir", "."]).await.code, 0);
    place
}

async fn run(place: &TempDir, arguments: &[&str]) -> Finished {
    finish(program(arguments).current_dir(place.path())).await
}

async fn json(place: &TempDir, arguments: &[&str]) -> (i32, Value) {
    let finished = run(place, &[arguments, &["--output", "json"]].concat()).await;
    (finished.code, serde_json::from_str(&finished.stdout).unwrap())
}

#[tokio::test]
async fn generated_policy_is_valid_and_grants_what_it_promises() {
    let place = place().await;
    let checked = run(&place, &["policy", "check", "policy.toml"]).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    assert!(checked.stdout.starts_with("valid     policy.toml\nenforced  yes\nsha256    "));
    let admin = "spiffe://waypost.internal/operators/admin";
    let server = "spiffe://waypost.internal/server";
    let other_domain = "spiffe://other.internal/operators/admin";
    for (principal, action, target, allowed) in [
        (ORDERS, "register", "shop/orders", true),
        (ORDERS, "discover", "shop/payments", true),
        (ORDERS, "discover", "shop/*", true),
        (ORDERS, "probe", "*/*", true),
        (ORDERS, "register", "shop/payments", false),
        (ORDERS, "register", "default/orders", false),
        (ORDERS, "discover", "default/orders", false),
        (ORDERS, "operate", "shop/orders", false),
        (ORDERS, "status", "*/*", false),
        (ORDERS, "backup", "*/*", false),
        (admin, "register", "shop/orders", true),
        (admin, "operate", "shop/*", true),
        (admin, "discover", "*/*", true),
        (admin, "status", "*/*", true),
        (admin, "backup", "*/*", true),
        (server, "discover", "shop/orders", false),
        (server, "status", "*/*", false),
        (other_domain, "discover", "shop/orders", false),
        ("token/ci", "probe", "*/*", false),
        ("anonymous", "probe", "*/*", false),
        ("anonymous", "discover", "shop/orders", false),
    ] {
        let explain = ["policy", "explain", "policy.toml", principal, action, target];
        let (code, explained) = json(&place, &explain).await;
        let decision = if allowed { "allowed" } else { "denied" };
        assert_eq!((code == 0, &explained["decision"]), (allowed, &json!(decision)), "{explain:?}");
    }
}

#[tokio::test]
async fn all_errors_of_a_policy_have_their_lines() {
    let place = place().await;
    let text = "enforced = true\n[[allow]]\nwho = 'k8s/a'\nmay = 'operat'\non = 'shop'\n";
    fs::write(place.path().join("bad.toml"), text).unwrap();
    for command in ["check", "explain"] {
        let principal = if command == "check" { None } else { Some(ORDERS) };
        let arguments: Vec<_> =
            ["policy", command, "bad.toml"].into_iter().chain(principal).collect();
        let Finished { code, stdout, stderr } = run(&place, &arguments).await;
        assert_eq!((code, stdout.as_str()), (64, ""), "{stderr}");
        assert!(stderr.starts_with("waypost: invalid policy, 4 error(s):\n"), "{stderr}");
        for (line, path) in [(1, "enforced"), (3, "allow[0].who"), (4, "allow[0].may"), (5, "on")] {
            assert!(stderr.contains(&format!("bad.toml: line {line}: ")), "{line} in {stderr}");
            assert!(stderr.contains(path), "{path} in {stderr}");
        }
    }
    let missing = run(&place, &["policy", "check", "none.toml"]).await;
    assert_eq!(missing.code, 64);
    assert!(missing.stderr.contains("none.toml"), "{}", missing.stderr);
}

#[tokio::test]
async fn explain_names_the_line() {
    let place = place().await;
    let policy = fs::read_to_string(place.path().join("policy.toml")).unwrap();
    let first = 1 + policy.lines().position(|line| line == "[[allow]]").unwrap();
    let explain = ["policy", "explain", "policy.toml", ORDERS];
    let allowed = run(&place, &[&explain[..], &["register", "shop/orders"]].concat()).await;
    let sentence = format!("policy.toml:{first}: allows {ORDERS} to register shop/orders\n");
    assert_eq!((allowed.code, allowed.stdout), (0, sentence));
    let denied = run(&place, &[&explain[..], &["register", "shop/a"]].concat()).await;
    let sentence = format!("policy.toml: no rule allows {ORDERS} to register shop/a\n");
    assert!(denied.stdout.starts_with(&sentence), "{}", denied.stdout);
    let rules: Vec<_> = denied.stdout.lines().skip(1).collect();
    assert!(rules[0].starts_with(&format!("policy.toml:{first}: who = ")), "{rules:?}");
    assert!(rules[0].ends_with(" allows it on shop/orders"), "{rules:?}");
    assert!(rules.len() == 2 && rules[1].ends_with(" allows discover"), "{rules:?}");
    assert_eq!(denied.code, 1);
    let unknown = run(&place, &["policy", "explain", "policy.toml", "token/ci"]).await;
    let sentence = "token/ci: no token or issuer of the policy has this name\n";
    assert_eq!((unknown.code, unknown.stdout.as_str()), (0, sentence));
    let rights = run(&place, &explain).await.stdout;
    let rows: Vec<Vec<&str>> =
        rights.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["-", "probe", "*/*", "-"]);
    assert_eq!(rows[2], [&first.to_string(), "register", "shop/orders", "-"]);
    assert_eq!(rows[3][1..], ["discover", "shop/*", "-"]);
    let revoked = format!("revoked = ['{ORDERS}']\nenforce = false\n{policy}");
    fs::write(place.path().join("policy.toml"), revoked).unwrap();
    let denied = run(&place, &[&explain[..], &["register", "shop/orders"]].concat()).await;
    assert_eq!((denied.code, denied.stdout), (1, format!("policy.toml: {ORDERS}: is revoked\n")));
    assert!(denied.stderr.contains("enforce = false"), "{}", denied.stderr);
    for wrong in [
        &["policy", "explain", "policy.toml"][..],
        &["policy", "explain", "policy.toml", "ä"],
        &["policy", "explain", "policy.toml", ORDERS, "register"],
        &["policy", "explain", "policy.toml", ORDERS, "fly", "shop/orders"],
        &["policy", "explain", "policy.toml", ORDERS, "register", "shop"],
    ] {
        assert_eq!(run(&place, wrong).await.code, 2, "{wrong:?}");
    }
}

/// A line of an audit file.
fn record(action: &str, service: &str, outcome: &str, count: Option<u64>) -> String {
    let mut record = json!({"time": "2026-11-30T20:00:00Z", "kind": "call", "via": "certificate",
        "principal": ORDERS, "action": action, "namespace": "shop", "service": service,
        "outcome": outcome, "epoch": 1});
    if let Some(count) = count {
        record["count"] = count.into();
    }
    format!("{record}\n")
}

#[tokio::test]
async fn replay_shows_the_decisions_that_would_change() {
    let place = place().await;
    let same = record("register", "orders", "allowed", None)
        + &record("register", "payments", "denied", Some(7))
        + "{\"kind\":\"trust\",\"epoch\":2}\n{\"kind\":\"call\",\n"
        + &record("register", "orders", "limited", None)
        + &record("register", "orders", "unauthenticated", None);
    fs::write(place.path().join("audit"), &same).unwrap();
    let check = ["policy", "check", "policy.toml", "--replay", "audit"];
    let replayed = run(&place, &check).await;
    assert_eq!((replayed.code, replayed.stdout.as_str()), (0, "9 decisions, none would change\n"));
    assert!(
        replayed.stderr.contains("passed over 1 lines that are not JSON"),
        "{}",
        replayed.stderr
    );

    let changed = record("register", "payments", "allowed", Some(3))
        + &record("discover", "payments", "denied", None)
        + &record("register", "payments", "allowed", None);
    fs::write(place.path().join("audit"), same + &changed).unwrap();
    let (code, replayed) = json(&place, &check).await;
    assert_eq!((code, &replayed["decisions"], &replayed["changed"]), (1, &json!(14), &json!(5)));
    let changes: Vec<_> = replayed["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            let text = |key: &str| change[key].as_str().unwrap();
            (change["count"].as_u64().unwrap(), text("action"), text("on"), text("after"))
        })
        .collect();
    let expected =
        [(1, "discover", "shop/payments", "allowed"), (4, "register", "shop/payments", "denied")];
    assert_eq!(changes, expected);
    let table = run(&place, &check).await;
    assert!(table.stdout.ends_with("14 decisions, 5 would change\n"), "{}", table.stdout);
    assert_eq!(table.code, 1);

    fs::write(place.path().join("audit"), "hello\n").unwrap();
    run(&place, &check).await.refused("audit: has no audit records of decisions");
    fs::remove_file(place.path().join("audit")).unwrap();
    run(&place, &check).await.refused("audit: No such file");
}

#[tokio::test]
async fn replay_decides_calls_without_credentials_as_anonymous() {
    let place = place().await;
    let check = ["policy", "check", "policy.toml", "--replay", "audit"];
    let anonymous = json!({"kind": "call", "action": "discover", "namespace": "shop",
        "service": "orders", "outcome": "unauthenticated", "reason": "NO_CREDENTIALS"});
    fs::write(place.path().join("audit"), anonymous.to_string()).unwrap();
    assert_eq!(run(&place, &check).await.stdout, "1 decisions, none would change\n");
    let rule = "\n[[allow]]\nwho = 'anonymous'\nmay = 'discover'\non = 'shop/*'\n";
    let path = place.path().join("open.toml");
    fs::write(path, fs::read_to_string(place.path().join("policy.toml")).unwrap() + rule).unwrap();
    let (code, opened) = json(&place, &["policy", "check", "open.toml", "--replay", "audit"]).await;
    assert_eq!((code, &opened["changes"][0]["principal"]), (1, &json!("anonymous")));
}

#[tokio::test]
async fn token_is_that_of_its_entry() {
    let place = place().await;
    let made = run(&place, &["token", "new", "ci", "--expires", "2d"]).await;
    assert_eq!((made.code, made.stderr.as_str()), (0, ""));
    let (entry, token) = made.stdout.split_once("\n\ntoken, shown this once: ").unwrap();
    let token = token.strip_suffix('\n').unwrap();
    assert!(token.starts_with("waypost_") && !entry.contains(token), "{}", made.stdout);
    let policy = Policy::parse(entry, Path::new("")).unwrap();
    let now = SystemTime::now();
    let authenticated = policy.authenticate_token(token, now).unwrap();
    assert_eq!(authenticated.principal.as_str(), "token/ci");
    let late = policy.authenticate_token(token, now + Duration::from_secs(2 * 24 * 60 * 60 + 1));
    assert_eq!(late, Err(Unauthenticated::CredentialsExpired));
    // A policy that got all of the output is no policy.
    assert!(Policy::parse(&made.stdout, Path::new("")).is_err());

    let (code, other) = json(&place, &["token", "new", "ci"]).await;
    assert_eq!((code, &other["principal"]), (0, &json!("token/ci")));
    assert_ne!(other["token"], token);
    assert!(!entry.contains(other["sha256"].as_str().unwrap()));
    for wrong in [
        &["token", "new"][..],
        &["token", "new", "a b"],
        &["token", "new", "ci", "--expires", "0s"],
        &["token", "new", "ci", "--expires", "20years"],
        &["token", "new", "ci", "--expires", "soon"],
    ] {
        assert_eq!(run(&place, wrong).await.code, 2, "{wrong:?}");
    }
}
