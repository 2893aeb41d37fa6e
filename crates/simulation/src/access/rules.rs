//! The true state of a policy: the services that register, and the part of each namespace that each
//! reader sees. The oracle compares with it, and the server gets it as a policy file.
//!
//! Pure. Invariant: decides nothing by the server's code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
};

use waypost_auth::policy::Policy;

use super::{
    subject::{ServiceName, Subject},
    tokens::{INTRUDER_TOKEN, RECORDER_TOKEN, VIEWER_TOKEN, reader_token, service_token, sha256},
};

/// The namespace of the instances that probes register.
pub(crate) const PROBES: &str = "probes";
/// The services of it whose rights change.
pub(crate) const LEASED: [&str; 3] = ["leased-0", "leased-1", "leased-2"];
/// The service of the hostile client.
pub(crate) const INTRUDER_SERVICE: &str = "intruder";

/// The part of a namespace that a reader sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VisibleServices {
    Nothing,
    /// These services, each by a rule of its own.
    Listed(BTreeSet<String>),
    Whole,
}

/// The state of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRules {
    /// All services with a token.
    services: BTreeSet<ServiceName>,
    /// Those that may not register.
    pub(crate) barred: BTreeSet<ServiceName>,
    /// The names of the tokens that are revoked.
    pub(crate) revoked: BTreeSet<String>,
    /// By the node of the readers, and the namespace.
    pub(crate) visible: BTreeMap<(usize, String), VisibleServices>,
}

impl AccessRules {
    /// Rules by which each service registers itself, and each reader sees everything.
    pub fn new(
        namespaces: &[&str],
        services: &[&str],
        reader_nodes: std::ops::Range<usize>,
    ) -> Self {
        let named = |namespace: &str, service: &str| (namespace.to_owned(), service.to_owned());
        let of_namespace = |namespace: &'_ str| {
            services.iter().map(|service| named(namespace, service)).collect::<Vec<_>>()
        };
        let leased = LEASED.iter().map(|service| named(PROBES, service));
        let visible = reader_nodes.flat_map(|node| {
            let key =
                move |namespace: &&str| ((node, (*namespace).to_owned()), VisibleServices::Whole);
            namespaces.iter().map(key).collect::<Vec<_>>()
        });
        Self {
            services: namespaces.iter().flat_map(|one| of_namespace(one)).chain(leased).collect(),
            barred: BTreeSet::new(),
            revoked: BTreeSet::new(),
            visible: visible.collect(),
        }
    }

    /// All services that have a token.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.iter()
    }

    /// The services that can't register now.
    pub(crate) fn cannot_register(&self) -> BTreeSet<ServiceName> {
        let revoked = self.services.iter().filter(|one| self.revoked.contains(&service_token(one)));
        self.barred.iter().chain(revoked).cloned().collect()
    }

    /// Gives every service its rights.
    pub(crate) fn restore(&mut self) {
        self.barred.clear();
        self.revoked.clear();
    }

    /// The part of a subject that the readers on a node see; `None`: their watch is refused.
    pub(crate) fn shown(&self, node: usize, subject: &Subject) -> Option<Subject> {
        if self.revoked.contains(&reader_token(node)) {
            return None;
        }
        // The recorder has no entry, and sees all.
        let visible = self.visible.get(&(node, subject.namespace.clone()));
        let services = match visible.unwrap_or(&VisibleServices::Whole) {
            VisibleServices::Whole => return Some(subject.clone()),
            VisibleServices::Nothing => return None,
            VisibleServices::Listed(services) => services,
        };
        if subject.services.is_empty() {
            let services = services.iter().cloned().collect();
            return Some(Subject { services, ..subject.clone() });
        }
        subject.services.iter().all(|one| services.contains(one)).then(|| subject.clone())
    }

    /// The rules as a violation's report shows them.
    pub(crate) fn summary(&self) -> String {
        let Self { barred, revoked, visible, .. } = self;
        let part = visible.iter().filter(|(_, part)| **part != VisibleServices::Whole);
        let part: Vec<_> = part.collect();
        format!("barred {barred:?}, revoked {revoked:?}, parts {part:?}")
    }

    /// The policy for the server.
    pub(crate) fn policy(&self) -> Policy {
        Policy::parse(&self.text(), Path::new("/nowhere")).expect("the rules are valid")
    }

    fn text(&self) -> String {
        let mut names = vec![RECORDER_TOKEN.to_owned(), VIEWER_TOKEN.to_owned()];
        let mut text = format!(
            "revoked = {:?}\n",
            self.revoked.iter().map(|name| format!("token/{name}")).collect::<Vec<_>>()
        );
        let mut allow = |name: &str, may: &[&str], on: &str| {
            let rule = format!("[[allow]]\nwho = \"token/{name}\"\nmay = {may:?}\non = {on:?}\n");
            text.push_str(&rule);
        };
        let everything = ["discover", "register", "operate", "status", "backup"];
        allow(RECORDER_TOKEN, &everything, "*/*");
        allow(VIEWER_TOKEN, &["discover"], "*/*");
        for service in &self.services {
            let (token, on) = (service_token(service), format!("{}/{}", service.0, service.1));
            if !self.barred.contains(service) {
                allow(&token, &["register"], &on);
            }
            // A client looks up who took its identity.
            allow(&token, &["discover"], &on);
            names.push(token);
        }
        let intruder = format!("{PROBES}/{INTRUDER_SERVICE}");
        allow(INTRUDER_TOKEN, &["register", "discover"], &intruder);
        if let Some((namespace, service)) = self.services.first() {
            allow(INTRUDER_TOKEN, &["discover"], &format!("{namespace}/{service}"));
        }
        names.push(INTRUDER_TOKEN.to_owned());
        for ((node, namespace), visible) in &self.visible {
            let token = reader_token(*node);
            match visible {
                VisibleServices::Nothing => {}
                VisibleServices::Listed(services) => {
                    for service in services {
                        allow(&token, &["discover"], &format!("{namespace}/{service}"));
                    }
                }
                VisibleServices::Whole => allow(&token, &["discover"], &format!("{namespace}/*")),
            }
            if !names.contains(&token) {
                names.push(token);
            }
        }
        for name in &names {
            let sha256 = sha256(name);
            write!(text, "[[token]]\nname = {name:?}\nsha256 = {sha256:?}\n").expect("room");
        }
        text
    }
}
