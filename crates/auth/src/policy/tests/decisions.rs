//! Decisions by the policy of the documentation, and their explanations.

use waypost_core::{
    model::Host,
    testing::{key, name},
};

use super::{EXAMPLE, directory, grants, parse, principal};
use crate::policy::{
    Action, Denied, Grants, Policy, PrincipalLimits, PrincipalState, RecordedUse, RuleLine,
    RuleOutcome, Scope,
};

const WORKLOAD: &str = "spiffe://prod.example/ns/shop/sa/orders";
const OPERATOR: &str = "spiffe://prod.example/operators/ann";
const CONSOLE: &str = "k8s/system:serviceaccount:ops:console";

fn example() -> Policy {
    Policy::parse(EXAMPLE, directory().path()).expect("a policy")
}

fn decide(grants: &Grants, action: Action, service: &str) -> Result<u32, Denied> {
    grants.decide(action, Scope::Service(&key(service))).map(|line| line.0)
}

#[test]
fn workload_has_its_own_service_and_sees_its_namespace() {
    let grants = example().grants(&principal(WORKLOAD));
    assert_eq!(decide(&grants, Action::Register, "shop/orders"), Ok(3));
    for other in ["shop/payments", "shop/orders-2", "other/orders", "shared/orders"] {
        assert_eq!(decide(&grants, Action::Register, other), Err(Denied), "{other}");
    }
    assert_eq!(decide(&grants, Action::Discover, "shop/payments"), Ok(8));
    assert_eq!(decide(&grants, Action::Discover, "shared/a"), Ok(8));
    assert_eq!(decide(&grants, Action::Discover, "other/orders"), Err(Denied));
    assert!(grants.sight(&name("shop")).is_some_and(|sight| sight.is_whole()));
    assert_eq!(grants.sight(&name("other")), None);
    for action in [Action::Operate, Action::Status, Action::Backup, Action::Discover] {
        assert_eq!(grants.decide(action, Scope::Server), Err(Denied));
        assert!(!grants.is_unrestricted(action));
    }
    assert_eq!(grants.decide(Action::Probe, Scope::Server), Ok(RuleLine::BUILT_IN));
}

#[test]
fn operator_may_do_everything() {
    for text in [OPERATOR, CONSOLE] {
        let grants = example().grants(&principal(text));
        for action in Action::ALL {
            assert!(grants.is_unrestricted(action), "{text}: {action}");
            assert!(decide(&grants, action, "a/b").is_ok());
            assert!(grants.decide(action, Scope::Namespace(&name("a"))).is_ok());
        }
    }
    let other = example().grants(&principal("k8s/system:serviceaccount:ops:other"));
    assert!(!other.is_unrestricted(Action::Status));
}

#[test]
fn anonymous_has_only_what_rules_give() {
    let by_example = example().grants(&principal("anonymous"));
    assert_eq!(by_example.decide(Action::Probe, Scope::Server), Ok(RuleLine(16)));
    assert_eq!(decide(&by_example, Action::Discover, "shared/a"), Err(Denied));
    assert!(example().admits_without_certificate());
    let closed = "[[allow]]\nwho = 'dns/*'\nmay = 'discover'\non = '*/*'";
    assert!(grants(closed, "anonymous").decide(Action::Probe, Scope::Server).is_err());
    assert!(!parse(closed).expect("a policy").admits_without_certificate());
    let open = "[[allow]]\nwho = ['dns/a', 'anonymous']\nmay = 'discover'\non = 'shared/*'";
    assert_eq!(decide(&grants(open, "anonymous"), Action::Discover, "shared/a"), Ok(1));
    assert!(parse(open).expect("a policy").admits_without_certificate());
    let token = format!("[[token]]\nname = 'a'\nsha256 = '{}'", "0".repeat(64));
    assert!(parse(&token).expect("a policy").admits_without_certificate());
}

#[test]
fn capture_that_is_no_name_gives_nothing() {
    for service in ["-orders", "orders-", ".", "_"] {
        let text = format!("spiffe://prod.example/ns/shop/sa/{service}");
        let grants = example().grants(&principal(&text));
        assert_eq!(decide(&grants, Action::Register, "shop/orders"), Err(Denied), "{text}");
    }
    // Nor where nothing uses the capture.
    let policy = "[[allow]]\nwho = 'dns/{service}'\nmay = 'discover'\non = '*/*'";
    assert!(grants(policy, "dns/a").is_unrestricted(Action::Discover));
    assert!(!grants(policy, "dns/a-").is_unrestricted(Action::Discover));
}

#[test]
fn placeholder_takes_one_part_alone() {
    let policy = "[[allow]]\nwho = 'spiffe://d/ns/{namespace}/sa/*'\nmay = 'discover'\non = '*/*'";
    let is_allowed = |text: &str| grants(policy, text).is_unrestricted(Action::Discover);
    assert!(is_allowed("spiffe://d/ns/a.b-c_d/sa/x"));
    for other in ["/ns//sa/x", "/ns/a/b/sa/x", "/ns/a:b/sa/x", "/ns/a/sa/", "/ns/a/sa/x/y", "/ns/a"]
    {
        assert!(!is_allowed(&format!("spiffe://d{other}")), "{other}");
    }
}

#[test]
fn sight_is_the_union_of_rules() {
    let policy = "[[allow]]\nwho = 'dns/*'\nmay = 'discover'\n\
                  on = ['a/x', 'a/x-*', 'a/x-1', 'a/x-1*', 'a/y', 'a*/y', 'b/*', 'b/x']";
    let rights = grants(policy, "dns/p");
    let sight = rights.sight(&name("a")).expect("a part");
    assert!(!sight.is_whole());
    for (service, is_seen) in [
        ("x", true),
        ("x-1", true),
        ("x-0", true),
        ("x-1-2", true),
        ("y", true),
        ("w", false),
        ("xy", false),
        ("y-1", false),
        ("z", false),
    ] {
        assert_eq!(sight.includes(&name(service)), is_seen, "{service}");
    }
    assert!(rights.sight(&name("b")).is_some_and(|sight| sight.is_whole()));
    // Equal for other rules of the same effect, so that a watch goes on.
    let other = "[[allow]]\nwho = 'dns/p'\nmay = ['discover', 'operate']\n\
                 on = ['a/y', 'a/x', 'a/x-*']";
    let other = grants(other, "dns/p").sight(&name("a"));
    assert_eq!(other.as_ref(), Some(&sight));
    assert_ne!(grants(policy, "dns/p").sight(&name("ab")), other);
}

#[test]
fn without_a_policy_everything_is_allowed() {
    let all = Grants::unrestricted();
    for action in Action::ALL {
        assert_eq!(all.decide(action, Scope::Server), Ok(RuleLine::BUILT_IN));
        assert!(all.is_unrestricted(action));
    }
    assert!(all.sight(&name("a")).is_some_and(|sight| sight.is_whole()));
    assert_eq!(all.describe().len(), 1);
}

#[test]
fn decision_allocates_nothing() {
    let grants = example().grants(&principal(WORKLOAD));
    let (service, shared) = (key("shop/orders"), name("shared"));
    let host = Host::parse("orders.LOCALHOST", 253).expect("a host");
    let sight = grants.sight(&shared).expect("all of it");
    let counted = allocation_counter::measure(|| {
        assert!(grants.decide(Action::Register, Scope::Service(&service)).is_ok());
        assert!(grants.decide(Action::Discover, Scope::Namespace(&shared)).is_ok());
        assert!(grants.decide(Action::Backup, Scope::Server).is_err());
        assert!(grants.decide_register(&service, &host, None).is_err());
        assert!(sight.includes(&service.service));
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn revoked_principal_has_no_right() {
    let policy = "revoked = ['dns/a']\n[[allow]]\nwho = 'dns/*'\nmay = 'discover'\non = '*/*'";
    assert!(!grants(policy, "dns/a").is_unrestricted(Action::Probe));
    assert!(!grants(policy, "dns/a").is_unrestricted(Action::Discover));
    assert!(grants(policy, "dns/b").is_unrestricted(Action::Discover));
    let policy = example();
    assert!(policy.revokes(&principal("token/old-ci")));
    let mut sha256 = [0x9f; 32];
    assert!(!policy.revokes_certificate(&sha256));
    sha256.copy_from_slice(&[
        0x9f, 0x2c, 0x0d, 0x53, 0xa1, 0xb4, 0xe7, 0xc8, 0x6a, 0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a,
        0x69, 0x78, 0x87, 0x96, 0xa5, 0xb4, 0xc3, 0xd2, 0xe1, 0xf0, 0x01, 0x12, 0x23, 0x34, 0x45,
        0x56, 0x6a,
    ]);
    assert!(policy.revokes_certificate(&sha256));
}

#[test]
fn first_limit_that_fits_holds() {
    let policy = example();
    let workload = policy.principal_limits(&principal(WORKLOAD));
    let expected =
        PrincipalLimits { writes_per_second: 200, writes_burst: 2000, ..Default::default() };
    assert_eq!(workload, expected);
    let default = policy.principal_limits(&principal(OPERATOR));
    assert_eq!(default, PrincipalLimits::default());
    assert_eq!((default.writes_per_second, default.writes_burst), (1_000, 10_000));
    assert_eq!((default.watches, default.connections), (10_000, 10_000));
    assert_eq!(policy.instances_max(&name("shop")), Some(20_000));
    assert_eq!(policy.instances_max(&name("shop-2")), None);
    let policy = "[[limit]]\nwho = ['dns/a', 'dns/b*']\nwatches = 1\n\
                  [[limit]]\nwho = 'dns/*'\nwatches = 2\nconnections = 3\n\
                  [[limit]]\nnamespace = 'a*'\ninstances = 1\n\
                  [[limit]]\nnamespace = '*'\ninstances = 2";
    let policy = parse(policy).expect("a policy");
    let watches = |text: &str| policy.principal_limits(&principal(text)).watches;
    assert_eq!(["dns/a", "dns/b1", "dns/b", "dns/c"].map(watches), [1, 1, 2, 2]);
    let instances = |text: &str| policy.instances_max(&name(text));
    assert_eq!(["a1", "a", "b"].map(instances), [Some(1), Some(2), Some(2)]);
}

#[test]
fn rights_are_described_with_their_captures_filled_in() {
    let grants = example().grants(&principal(WORKLOAD));
    let describe = |one: crate::policy::Grant| (one.line.0, one.on, one.hosts.unwrap_or_default());
    let found: Vec<_> = grants.describe().into_iter().map(describe).collect();
    let peer = vec!["peer".to_owned()];
    let expected = [
        (0, "*/*", vec![]),
        (3, "shop/orders", peer),
        (8, "shop/*", vec![]),
        (8, "shared/*", vec![]),
    ];
    assert_eq!(found, expected.map(|(line, on, hosts)| (line, on.to_owned(), hosts)));
}

#[test]
fn explanation_lists_the_rules_that_are_for_the_principal() {
    let policy = example();
    let other = key("shop/payments");
    let found = policy.explain(&principal(WORKLOAD), Action::Register, Scope::Service(&other));
    assert_eq!((found.decision, found.principal), (Err(Denied), PrincipalState::Provable));
    let outcomes: Vec<_> =
        found.rules.into_iter().map(|rule| (rule.line.0, rule.outcome)).collect();
    let own = RuleOutcome::OtherServices(vec!["shop/orders".to_owned()]);
    let discover = RuleOutcome::OtherActions(vec![Action::Discover]);
    assert_eq!(outcomes, [(3, own), (8, discover)]);

    let odd = principal("spiffe://prod.example/ns/shop/sa/-x");
    let found = policy.explain(&odd, Action::Register, Scope::Service(&other));
    assert_eq!(found.rules[0].outcome, RuleOutcome::InvalidCapture);
    let found = policy.explain(&principal(CONSOLE), Action::Backup, Scope::Server);
    assert_eq!(found.decision, Ok(RuleLine(12)));
    assert_eq!((found.rules.len(), found.rules[0].who.as_str()), (1, CONSOLE));
    assert_eq!(found.rules[0].outcome, RuleOutcome::Allows);

    for (text, state) in [
        ("token/ci", PrincipalState::Provable),
        ("token/old-ci", PrincipalState::Revoked),
        ("token/gone", PrincipalState::Unknown),
        ("k8s/a", PrincipalState::Provable),
        ("eks/a", PrincipalState::Unknown),
        ("anonymous", PrincipalState::Provable),
        ("admin", PrincipalState::Unknown),
    ] {
        assert_eq!(policy.state(&principal(text)), state, "{text}");
    }
}

#[test]
fn recorded_uses_are_decided_again() {
    let policy = "[[allow]]\nwho = ['token/*', 'dns/*']\nmay = ['discover', 'operate']\n\
                  on = ['shop/orders', 'whole/*']\n[[token]]\nname = 'ci'\nsha256 = 'D'";
    let policy = parse(&policy.replace('D', &"0".repeat(64))).expect("a policy");
    let decide = |who: &str, action: &str, namespace: &str, service: &str| {
        let present = |text: &str| if text.is_empty() { None } else { Some(text.to_owned()) };
        let (namespace, service) = (present(namespace), present(service));
        let record = RecordedUse::parse(who, action, namespace.as_deref(), service.as_deref());
        policy.decide_again(&record.expect("a record")).is_ok()
    };
    assert!(decide("token/ci", "operate", "shop", "orders"));
    assert!(!decide("token/gone", "operate", "shop", "orders"));
    assert!(!decide("dns/a", "operate", "shop", "payments"));
    assert!(!decide("dns/a", "operate", "shop", ""));
    assert!(decide("dns/a", "operate", "whole", ""));
    // Cut to what may be seen.
    assert!(decide("dns/a", "discover", "shop", ""));
    assert!(!decide("dns/a", "discover", "other", ""));
    assert!(!decide("dns/a", "status", "", ""));
    for (record, error) in [
        (("", "probe", None, None), "principal: must be 1 to 2048 bytes of printable ASCII"),
        (
            ("a", "write", None, None),
            "action: must be one of probe, discover, register, operate, status, backup",
        ),
        (("a", "probe", Some(""), None), "namespace: must not be empty"),
        (("a", "probe", Some("a"), Some("")), "service: must not be empty"),
        (("a", "probe", None, Some("a")), "namespace: is missing, and there is a service"),
    ] {
        let (who, action, namespace, service) = record;
        let found = RecordedUse::parse(who, action, namespace, service);
        assert_eq!(found.map_err(|error| error.to_string()), Err(error.to_owned()));
    }
}
