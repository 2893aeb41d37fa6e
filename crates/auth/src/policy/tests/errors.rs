//! Invalid policies: each kind of error, with its line and message.

use std::fs;

use serde_json::json;

use super::{directory, parse};
use crate::{policy::Policy, testing::SigningKey};

const DIGEST: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
const OTHER_DIGEST: &str = "3c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

const PRINCIPAL_FORM: &str =
    "must be spiffe://DOMAIN/PATH, dns/NAME, token/NAME, ISSUER/SUB or anonymous";
const SPIFFE_FORM: &str = "must be spiffe://DOMAIN/PATH, with the domain in lower case, of letters, \
                           digits, '.', '_' and '-' in parts that are not empty, '.' or '..'";
const UNDELIMITED: &str = "has a placeholder before a letter, a digit, '.', '_', '-' or another \
                           placeholder: it takes all of these, so nothing would be left to match";
const PART: &str = "must be letters, digits, '.', '_' and '-' that begin and end with a letter or \
                    digit, in each part; a part may end with one *, {namespace} or {service}";
const NAME: &str =
    "must be letters, digits, '.', '_' and '-', and begin and end with a letter or a digit";
const HOST: &str = "must be peer, a network such as 10.0.0.0/8, or a DNS name such as *.shop.svc";
const TIME: &str = "must be a time in UTC, such as 2027-01-01T00:00:00Z";
const HEX: &str = "must be the 64 hex digits of a SHA-256, in lower case";

/// Checks that a text has exactly these errors.
#[track_caller]
fn check(text: &str, errors: &[String]) {
    let found = parse(text).expect_err(text).to_string();
    assert_eq!(found, errors.join("\n"), "{text}");
}

/// Checks that a rule, whose header is on line 1, has one error.
#[track_caller]
fn check_rule(rule: &str, line: u32, error: &str) {
    check(&format!("[[allow]]\n{rule}"), &[format!("line {line}: allow[0].{error}")]);
}

#[test]
fn file_has_known_keys_of_known_types() {
    check("allow = ", &["line 1: string values must be quoted, expected literal string".into()]);
    check("enforced = true", &["line 1: enforced: is no known key".into()]);
    let error = "enforce: must be true or false, and is of type string";
    check("\nenforce = 'no'", &[format!("line 2: {error}")]);
    check(
        "allow = 1",
        &["line 1: allow: must be an array of tables, each of which begins with [[allow]]".into()],
    );
    let error = "allow[0]: must be a table, and is of type integer";
    check("allow = [1]", &[format!("line 1: {error}")]);
    check(
        "token = {}",
        &["line 1: token: must be an array of tables, each of which begins with [[token]]".into()],
    );
    check("issuer = 1", &["line 1: issuer: must be a table, and is of type integer".into()]);
    check("revoked = 'a'", &["line 1: revoked: must be an array, and is of type string".into()]);
    check("a = 1\na = 2", &["line 2: duplicate key".into()]);
}

#[test]
fn rule_has_its_keys() {
    let is_missing = ["who", "may"].map(|key| format!("line 1: allow[0].{key}: is missing"));
    check("[[allow]]", &is_missing);
    let rule = "who = 'dns/a'\nmay = 'register'\non = '*/*'";
    check_rule(&format!("{rule}\nhost = 'peer'"), 5, "host: is no known key");
    check_rule("who = []\nmay = 'status'", 2, "who: must not be empty");
    check_rule("who = 'dns/a'\nmay = []", 3, "may: must not be empty");
    check_rule("who = 'dns/a'\nmay = 'discover'\non = []", 4, "on: must not be empty");
    check_rule(&format!("{rule}\nhosts = []"), 5, "hosts: must not be empty");
    let error = "who: must be a string, and is of type integer";
    check_rule("who = 1\nmay = 'status'", 2, error);
    let error = "may: 'write' must be one of probe, discover, register, operate, status, backup";
    check_rule("who = 'dns/a'\nmay = 'write'", 3, error);
    let error = "on: is missing: operate needs it, and */* is everything";
    check_rule("who = 'dns/a'\nmay = ['status', 'operate']", 1, error);
    let many = vec!["'dns/a'"; 1025].join(",");
    let error = "who: has 1025 values, at most 1024";
    check_rule(&format!("who = [{many}]\nmay = 'status'"), 2, error);
}

#[test]
fn who_is_a_principal_that_a_credential_can_prove() {
    let check_who = |who: &str, error: &str| {
        let rule = format!("may = 'discover'\non = '*/*'\nwho = [\n{who:?}]");
        check_rule(&rule, 5, &format!("who[0]: {error}"));
    };
    let invalid = |who: &str, error: &str| check_who(who, &format!("'{who}' {error}"));
    invalid("", "must be 1 to 2048 bytes of printable ASCII");
    check_who("dns/\u{e4}", "'dns/ä' must be 1 to 2048 bytes of printable ASCII");
    check_who("dns/a\n", "'dns/a\\n' must be 1 to 2048 bytes of printable ASCII");
    let long = format!("dns/{}", "a".repeat(2045));
    invalid(&long, "must be 1 to 2048 bytes of printable ASCII");
    for unknown in ["*", "admin", "*/a", "/a", "k8s/", "spiffe:/d/a", "Anonymous", "anonymous*"] {
        invalid(unknown, PRINCIPAL_FORM);
    }
    for spiffe in ["spiffe://d", "spiffe://d/", "spiffe://D/a", "spiffe:///a", "spiffe://d//a"] {
        invalid(spiffe, SPIFFE_FORM);
    }
    for spiffe in ["spiffe://d/a/", "spiffe://d/../a", "spiffe://d/a%2f", "spiffe://d:1/a"] {
        invalid(spiffe, SPIFFE_FORM);
    }
    for dns in ["dns/", "dns/A", "dns/a/b"] {
        invalid(dns, "must be dns/NAME, with the name in lower case");
    }
    invalid("token/a/b", "must be token/NAME, with the name of a [[token]]");
    let unknown = "is no token of this policy: there is no [[token]] of this name";
    invalid("token/ci", unknown);
    invalid("token/*", unknown);
    invalid("k8s/a", "is of an unknown issuer: there is no [issuer.k8s]");
    for brace in ["dns/{host}", "dns/{", "dns/}", "dns/{Namespace}"] {
        invalid(brace, "has a brace, which is for {namespace} and {service} alone");
    }
    for undelimited in ["dns/**", "dns/*.shop", "dns/{service}.shop", "dns/{service}{namespace}"] {
        invalid(undelimited, UNDELIMITED);
    }
    invalid("spiffe://{service}/{service}", "captures {namespace} or {service} twice");
    let secret = format!("waypost_{}", "A".repeat(43));
    check_who(&secret, "must not be the text of a token: keep it out of this file");
}

#[test]
fn on_is_a_pattern_of_services() {
    let check_on = |on: &str, error: &str| {
        let rule = format!("who = 'spiffe://d/{{service}}'\nmay = 'discover'\non = {on:?}");
        check_rule(&rule, 4, &format!("on: '{on}' {error}"));
    };
    for parts in ["", "shop", "shop/a/b", "*"] {
        check_on(parts, "must be NAMESPACE/SERVICE, such as shop/orders, shop/* or */*");
    }
    for part in ["/a", "a/", "-a/*", "a-/b", "*a/b", "a/b*c", "a/**", "a/{host}", "-*/a", "a b/c"] {
        check_on(part, PART);
    }
    for part in ["{service}-x/*", "{service}*/a", "{service}{service}/a", "_{service}/a", "a/.*"] {
        check_on(part, PART);
    }
    check_on("{namespace}/*", "uses {namespace}, which not every pattern of who captures");
    let rule = "who = ['dns/{service}', 'dns/a']\nmay = 'discover'\non = ['a/*',\n'a/{service}']";
    let error = "on[1]: 'a/{service}' uses {service}, which not every pattern of who captures";
    check_rule(rule, 5, error);
}

#[test]
fn actions_fit_who_and_on() {
    for action in ["probe", "status", "backup"] {
        let rule = format!("who = 'dns/a'\nmay = ['discover', '{action}']\non = 'shop/*'");
        let error = format!("on: {action} is on the server as a whole: it needs */*");
        check_rule(&rule, 4, &error);
    }
    for action in ["register", "operate", "status", "backup"] {
        let rule = format!("who = ['dns/a', 'anonymous']\nmay = ['probe', '{action}']\non = '*/*'");
        let error = format!("may: {action} is not for anonymous: it may probe and discover");
        check_rule(&rule, 3, &error);
    }
}

#[test]
fn hosts_are_of_registrations() {
    let check_host = |host: &str, error: &str| {
        let rule = format!("who = 'dns/a'\nmay = 'register'\non = '*/*'\nhosts = {host:?}");
        check_rule(&rule, 5, &format!("hosts: '{host}' {error}"));
    };
    for host in ["", "*", "10.0.0.0/33", "10.0.0", "0x7f.1", "a b", "*.*.svc", "a.*", "*.1", "*."] {
        check_host(host, HOST);
    }
    check_host("10.0.0.1/8", "has address bits after its prefix: write 10.0.0.0/8");
    let mapped = "is IPv4-mapped, and hosts are judged as IPv4: write the IPv4 network";
    check_host("::ffff:10.0.0.0/104", mapped);
    check_host("::ffff:10.0.0.1", mapped);
    let rule = "who = 'dns/a'\nmay = 'discover'\non = '*/*'\nhosts = 'peer'";
    check_rule(rule, 5, "hosts: is for register, which the rule does not allow");
}

#[test]
fn tokens_are_distinct_and_have_digests() {
    let check_token = |token: &str, line: u32, error: &str| {
        check(&format!("[[token]]\n{token}"), &[format!("line {line}: token[0].{error}")]);
    };
    let sha256 = format!("sha256 = '{DIGEST}'");
    let is_missing = ["name", "sha256"].map(|key| format!("line 1: token[0].{key}: is missing"));
    check("[[token]]", &is_missing);
    check_token(&format!("name = 'a/b'\n{sha256}"), 2, &format!("name: 'a/b' {NAME}"));
    let long = "a".repeat(129);
    let error = format!("name: '{long}' has 129 bytes, at most 128 are allowed");
    check_token(&format!("name = '{long}'\n{sha256}"), 2, &error);
    for digest in ["", &DIGEST[1..], &DIGEST.to_uppercase(), &DIGEST.replace('2', "g"), "secret"] {
        check_token(&format!("name = 'a'\nsha256 = '{digest}'"), 3, &format!("sha256: {HEX}"));
    }
    for time in ["'soon'", "2027-01-01", "2027-01-01T00:00:00+02:00", "1"] {
        let token = format!("name = 'a'\n{sha256}\nexpires = {time}");
        check_token(&token, 4, &format!("expires: {TIME}"));
    }
    check_token(&format!("name = 'a'\n{sha256}\nmay = 'x'"), 4, "may: is no known key");
    let two = |name: &str, digest: &str| {
        format!("[[token]]\nname = 'a'\n{sha256}\n[[token]]\nname = '{name}'\nsha256 = '{digest}'")
    };
    check(
        &two("a", OTHER_DIGEST),
        &["line 5: token[1].name: 'a' is the name of another token".into()],
    );
    check(&two("b", DIGEST), &["line 6: token[1].sha256: is the digest of another token".into()]);
}

#[test]
fn revoked_are_principals_and_certificates() {
    let check_revoked = |text: &str, error: &str| {
        check(&format!("revoked = [\n'{text}',\n]"), &[format!("line 2: revoked[0]: {error}")]);
    };
    let hex = "must be sha256: and 64 hex digits in lower case";
    check_revoked("sha256:", hex);
    check_revoked(&format!("sha256:{}", DIGEST.to_uppercase()), hex);
    check_revoked("dns/*", "'dns/*' must be one principal, not a pattern");
    let error = "'anonymous' has no credential to revoke: remove the rules that allow it";
    check_revoked("anonymous", error);
    check_revoked("spifee://d/a", &format!("'spifee://d/a' {PRINCIPAL_FORM}"));
    let error = "'k8s/a' is of an unknown issuer: there is no [issuer.k8s]";
    check_revoked("k8s/a", error);
    check_revoked("spiffe://D/a", &format!("'spiffe://D/a' {SPIFFE_FORM}"));
    let secret = format!("waypost_{}", "A".repeat(43));
    check_revoked(&secret, "must not be the text of a token: keep it out of this file");
    assert!(parse("revoked = ['token/gone', 'dns/a']").is_ok());
}

#[test]
fn issuers_have_public_keys() {
    let directory = directory();
    let secret = json!({ "keys": [SigningKey::secret(&[7; 48]).jwk("HS256", "a")] });
    fs::write(directory.path().join("secret.json"), secret.to_string()).expect("a file");
    fs::write(directory.path().join("large.json"), vec![b' '; (1 << 20) + 1]).expect("a file");
    let check = |text: &str, errors: &[&str]| {
        let found = Policy::parse(text, directory.path()).expect_err(text).to_string();
        assert_eq!(found, errors.join("\n"), "{text}");
    };
    let missing =
        ["issuer", "audience", "keys"].map(|key| format!("line 1: issuer.k8s.{key}: is missing"));
    check("[issuer.k8s]", &missing.each_ref().map(String::as_str));
    let issuer = |name: &str, keys: &str| {
        format!("[issuer.{name}]\nissuer = 'i'\naudience = 'w'\nkeys = '{keys}'\n")
    };
    for name in ["token", "dns", "spiffe", "anonymous", "'a/b'", "''"] {
        let error = format!(
            "line 1: issuer.{}: must have a name of letters, digits, '.', '_' and '-', and none of \
             anonymous, dns, spiffe, token",
            name.trim_matches('\'')
        );
        check(&issuer(name, "keys.json"), &[&error]);
    }
    let error = "line 4: issuer.k8s.keys: secret.json: keys[0]: is a symmetric key, and only \
                 public keys may be here";
    check(&issuer("k8s", "secret.json"), &[error]);
    let error = "line 4: issuer.k8s.keys: cannot read none.json: No such file or directory (os \
                 error 2)";
    check(&issuer("k8s", "none.json"), &[error]);
    let error = "line 4: issuer.k8s.keys: large.json is longer than 1 MiB";
    check(&issuer("k8s", "large.json"), &[error]);
    let two = issuer("a", "keys.json") + &issuer("b", "keys.json");
    check(&two, &["line 6: issuer.b.issuer: is that of another issuer"]);
    let one = issuer("k8s", "keys.json");
    let extra = format!("{one}extra = 1");
    check(&extra, &["line 5: issuer.k8s.extra: is no known key"]);
    let empty = one.replace("'w'", "''");
    check(&empty, &["line 3: issuer.k8s.audience: must not be empty"]);
    let policy = Policy::parse(&one, directory.path()).expect("a policy");
    assert_eq!(policy.files(), [directory.path().join("keys.json")]);
    let set = fs::read(directory.path().join("keys.json")).expect("keys");
    let policy = Policy::parse_with(&one, "x".as_ref(), &|_| Ok(set.clone())).expect("a policy");
    assert_eq!(policy.files(), ["x/keys.json".as_ref() as &std::path::Path]);
    let invalid = issuer("k8s", "none.json") + "[[allow]]";
    assert_eq!(Policy::key_files(&invalid, directory.path()), [directory.path().join("none.json")]);
    assert!(Policy::key_files("issuer = ", directory.path()).is_empty());
}

#[test]
fn limits_are_of_principals_or_of_a_namespace() {
    let check_limit = |limit: &str, line: u32, error: &str| {
        check(&format!("[[limit]]\n{limit}"), &[format!("line {line}: limit[0].{error}")]);
    };
    check_limit("", 1, "who: is missing, and so is namespace");
    let both = "who = 'dns/a'\nwatches = 1\nnamespace = 'a'\ninstances = 1";
    check_limit(both, 4, "namespace: is not for a limit with who");
    let error = "writes: is missing, and so are watches and connections";
    check_limit("who = 'dns/a'", 1, error);
    check_limit("namespace = 'a'", 1, "instances: is missing");
    check_limit("namespace = 'a'\ninstances = 0", 3, "instances: '0' must be 1 or more");
    let error = "watches: '0' must be 1 to 4294967295";
    check_limit("who = 'dns/a'\nwatches = 0", 3, error);
    let error = "connections: must be an integer, and is of type string";
    check_limit("who = 'dns/a'\nconnections = 'all'", 3, error);
    let limit = "who = 'dns/a'\nwrites = { per_second = 1 }";
    check_limit(limit, 3, "writes.burst: is missing");
    let limit = "who = 'dns/a'\nwrites = { per_second = 1, burst = 1, x = 1 }";
    check_limit(limit, 3, "writes.x: is no known key");
    check_limit("who = 'dns/a'\nwrites = 1", 3, "writes: must be a table, and is of type integer");
    let error = "who: 'dns/{service}' has a capture, and a limit has no use for it: write *";
    check_limit("who = 'dns/{service}'\nwatches = 1", 2, error);
    let error = "who: 'k8s/a' is of an unknown issuer: there is no [issuer.k8s]";
    check_limit("who = 'k8s/a'\nwatches = 1", 2, error);
    for namespace in ["*a", "{namespace}", "a/b", ""] {
        let limit = format!("namespace = '{namespace}'\ninstances = 1");
        check_limit(&limit, 2, &format!("namespace: '{namespace}' {PART}"));
    }
}

#[test]
fn policy_has_a_bounded_size() {
    let rule = "[[allow]]\nwho = 'dns/a'\nmay = 'status'\n";
    assert!(parse(&rule.repeat(4096)).is_ok());
    check(&rule.repeat(4097), &["line 1: allow: has 4097 tables, at most 4096".into()]);
    let limit = "[[limit]]\nwho = 'dns/a'\nwatches = 1\n";
    check(&limit.repeat(4097), &["line 1: limit: has 4097 tables, at most 4096".into()]);
    let error = "the policy is longer than 4 MiB";
    check(&" ".repeat((4 << 20) + 1), &[error.into()]);
    assert!(parse(&" ".repeat(4 << 20)).is_ok());

    let directory = directory();
    let path = directory.path().join("policy.toml");
    let read = || Policy::read(&path).map(|_| ()).expect_err("no policy").to_string();
    assert!(read().ends_with("policy.toml: No such file or directory (os error 2)"));
    fs::write(&path, "a\n\u{e4}").expect("a file");
    fs::write(&path, b"#\n\xff").expect("a file");
    assert_eq!(read(), "line 2: must be UTF-8");
    fs::write(&path, vec![b' '; (4 << 20) + 1]).expect("a file");
    assert!(read().ends_with("policy.toml is longer than 4 MiB"));
}

#[test]
fn all_errors_are_reported_in_the_order_of_the_file() {
    let text = "enforce = 1\n[[limit]]\nwho = 'a'\n[[allow]]\nwho = 'b'\nmay = 'c'\non = 'd'\n\
                [[token]]\nname = 'ci'\nsha256 = 'x'\n[[allow]]\nwho = 'token/ci'\nmay = 'status'";
    let lines: Vec<_> =
        parse(text).expect_err("errors").0.into_iter().map(|error| error.line).collect();
    // The invalid token has no consequences for rules that name it.
    assert_eq!(lines, [1, 2, 3, 5, 6, 7, 10].map(Some));
}
