//! Random policies, as texts that are valid, and random principals that their rules often fit.

use std::fmt;

use fastrand::Rng;

use crate::policy::Action;

pub(super) const NAMESPACES: [&str; 7] = ["a", "b", "a-b", "shop", "shop-2", "shop.x", "x"];
pub(super) const SERVICES: [&str; 9] =
    ["a", "b", "x", "x-1", "x-1-2", "xy", "b-c", "orders", "orders_2"];
/// Parts of principals that are no names, or of other lengths and forms.
const ODD: [&str; 8] = ["-a", "a-", "_", ".", "a:b", "a/b", "", "a b"];

const WHO: [&str; 22] = [
    "spiffe://d/ns/{namespace}/sa/{service}",
    "spiffe://d/ns/{namespace}/sa/{service}",
    "spiffe://d/ns/{namespace}/sa/*",
    "spiffe://d/ns/*/sa/{service}",
    "spiffe://d/ns/{service}/sa/{namespace}",
    "spiffe://d/ns/shop-{namespace}/sa/*",
    "spiffe://d/ns/*/sa/*",
    "spiffe://d/ns/shop/sa/orders",
    "spiffe://d/ns/shop/sa/x*",
    "spiffe://d/ns/a/sa/{service}",
    "spiffe://*/ns/{namespace}/sa/{service}",
    "spiffe://d/*/*/*/*",
    "spiffe://d/operators/*",
    "dns/*",
    "dns/{service}",
    "dns/x{namespace}",
    "token/*",
    "token/ci",
    "token/c*",
    "k8s/system:serviceaccount:{namespace}:{service}",
    "k8s/*:*:{namespace}:*",
    "anonymous",
];
const ON: [&str; 20] = [
    "*/*",
    "shop/*",
    "a/*",
    "shop/orders",
    "a/x",
    "*/x",
    "*/x*",
    "shop*/*",
    "shop/x-*",
    "shop/x-1*",
    "a*/orders",
    "x/x-1",
    "{namespace}/*",
    "{namespace}/{service}",
    "{namespace}/{service}",
    "*/{service}",
    "shop/{service}",
    "shop-{namespace}/*",
    "{service}/x-{namespace}",
    "{namespace}/b-{service}",
];
const HOSTS: [&str; 11] = [
    "peer",
    "peer",
    "10.0.0.0/8",
    "10.1.2.3",
    "127.0.0.0/8",
    "0.0.0.0/0",
    "::/0",
    "fd00::/8",
    "*.shop.svc",
    "db.example",
    "*.Example.",
];

pub(super) struct RuleModel {
    pub(super) who: Vec<&'static str>,
    pub(super) may: Vec<Action>,
    /// `None`: the key is missing.
    pub(super) on: Option<Vec<&'static str>>,
    pub(super) hosts: Option<Vec<&'static str>>,
}

pub(super) struct PolicyModel {
    pub(super) revoked: Vec<String>,
    pub(super) rules: Vec<RuleModel>,
}

/// Lines of the text before the first rule.
const LINES_BEFORE: u32 = 11;
/// Lines of a rule.
const LINES: u32 = 5;

impl PolicyModel {
    pub(super) fn random(random: &mut Rng) -> Self {
        let revoked = (0..random.usize(..4)).map(|_| random_principal(random));
        Self {
            revoked: revoked.filter(|text| is_revocable(text)).collect(),
            rules: (0..random.usize(1..12)).map(|_| RuleModel::random(random)).collect(),
        }
    }

    /// The line of a rule.
    pub(super) fn line(index: usize) -> u32 {
        LINES_BEFORE + 1 + LINES * u32::try_from(index).expect("few rules")
    }
}

/// Whether a principal can be in `revoked`: a credential can prove it.
fn is_revocable(text: &str) -> bool {
    let path = text.strip_prefix("spiffe://").unwrap_or(text);
    let is_part = |part: &str| !part.is_empty() && part != "." && !part.contains([':', ' ']);
    let is_dns = !text.starts_with("dns/") || text.matches('/').count() == 1;
    text != "anonymous" && is_dns && path.split('/').all(is_part)
}

fn some(random: &mut Rng, from: &[&'static str]) -> Vec<&'static str> {
    let count = 1 + random.usize(..3).saturating_sub(1);
    (0..count).map(|_| *random.choice(from).expect("a choice")).collect()
}

impl RuleModel {
    fn random(random: &mut Rng) -> Self {
        let who = some(random, &WHO);
        let is_anonymous = who.contains(&"anonymous");
        let choices: &[Action] = match random.u32(..6) {
            _ if is_anonymous => &[Action::Probe, Action::Discover],
            0 => &[Action::Probe, Action::Status, Action::Backup],
            1 => &Action::ALL,
            _ => &[Action::Discover, Action::Register, Action::Operate],
        };
        let mut may: Vec<Action> = choices.iter().copied().filter(|_| random.bool()).collect();
        if may.is_empty() {
            may.push(choices[0]);
        }
        let mut on = some(random, &ON);
        let lacks = |capture| who.iter().any(|pattern: &&str| !pattern.contains(capture));
        for capture in ["{namespace}", "{service}"] {
            if lacks(capture) {
                on.retain(|pattern| !pattern.contains(capture));
            }
        }
        let is_on_server = may.iter().any(|action| action.is_on_server());
        if is_on_server || on.is_empty() {
            on.insert(random.usize(..=on.len()), if is_on_server { "*/*" } else { "shop/*" });
        }
        let is_all_on_server = may.iter().all(|action| action.is_on_server());
        let registers = may.contains(&Action::Register);
        Self {
            on: if is_all_on_server && random.bool() { None } else { Some(on) },
            hosts: if registers && random.u32(..3) > 0 { Some(some(random, &HOSTS)) } else { None },
            who,
            may,
        }
    }
}

impl fmt::Display for PolicyModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = |digit: &str| digit.repeat(64);
        writeln!(formatter, "revoked = {:?}", self.revoked)?;
        writeln!(formatter, "[issuer.k8s]\nissuer = 'i'\naudience = 'w'\nkeys = 'keys.json'")?;
        writeln!(formatter, "[[token]]\nname = 'ci'\nsha256 = '{}'", digest("1"))?;
        writeln!(formatter, "[[token]]\nname = 'cd'\nsha256 = '{}'", digest("2"))?;
        for rule in &self.rules {
            let may: Vec<&str> = rule.may.iter().map(|action| action.name()).collect();
            let line = |key: &str, list: Option<&Vec<&str>>| {
                list.map_or_else(String::new, |list| format!("{key} = {list:?}"))
            };
            writeln!(formatter, "[[allow]]\n{}", line("who", Some(&rule.who)))?;
            writeln!(formatter, "{}", line("may", Some(&may)))?;
            writeln!(formatter, "{}", line("on", rule.on.as_ref()))?;
            writeln!(formatter, "{}", line("hosts", rule.hosts.as_ref()))?;
        }
        Ok(())
    }
}

/// A principal that rules often fit.
pub(super) fn random_principal(random: &mut Rng) -> String {
    let mut part = |texts: &[&'static str]| {
        let texts = if random.u32(..20) == 0 { &ODD } else { texts };
        *random.choice(texts).expect("a text")
    };
    let (namespace, service) = (part(&NAMESPACES), part(&SERVICES));
    let domain = if random.u32(..10) == 0 { "e" } else { "d" };
    match random.u32(..16) {
        0..8 => format!("spiffe://{domain}/ns/{namespace}/sa/{service}"),
        8 => format!("spiffe://{domain}/operators/{service}"),
        9 => format!("dns/{service}"),
        10 => "token/ci".to_owned(),
        11 => "token/cd".to_owned(),
        12 | 13 => format!("k8s/system:serviceaccount:{namespace}:{service}"),
        14 => format!("spiffe://{domain}/ns/{namespace}/sa/{service}/more"),
        _ => "anonymous".to_owned(),
    }
}
