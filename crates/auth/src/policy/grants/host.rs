//! The hosts at which a caller may register (`hosts`), and those at which no caller may.
//!
//! Pure. An IPv4-mapped IPv6 address is judged as the IPv4 address that it names.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use thiserror::Error;
use waypost_core::model::Host;

/// The reason why an instance may not have its host. Fixed texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum HostRefusal {
    /// `0.0.0.0` or `::`.
    #[error("the host is the unspecified address")]
    Unspecified,
    /// The address of a group.
    #[error("the host is a multicast address")]
    Multicast,
    /// `169.254.0.0/16` or `fe80::/10`, where metadata services of clouds are.
    #[error("the host is a link-local address")]
    LinkLocal,
    /// A loopback address, or `localhost`, from another machine.
    #[error("the host is a loopback address, and the caller is not on this machine")]
    Loopback,
    /// None of the rule's `hosts`.
    #[error("the host is none that the policy allows")]
    NotListed,
}

/// One of the `hosts` of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum HostRule {
    /// The address from which the caller calls.
    Peer,
    /// The addresses of a network.
    Network(IpNet),
    /// One DNS name, in lower case.
    Dns(Box<str>),
    /// The DNS names below one, in lower case; with the dot before it.
    DnsBelow(Box<str>),
}

/// The text is not one of the `hosts` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::policy) enum HostRuleError {
    #[error("must be peer, a network such as 10.0.0.0/8, or a DNS name such as *.shop.svc")]
    Unknown,
    #[error("has address bits after its prefix: write {0}")]
    BitsAfterPrefix(IpNet),
    #[error("is IPv4-mapped, and hosts are judged as IPv4: write the IPv4 network")]
    Mapped,
}

/// A host as rules see it, with the address from which the caller calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct JudgedHost<'a> {
    text: &'a str,
    address: Option<IpAddr>,
    peer: Option<IpAddr>,
}

impl<'a> JudgedHost<'a> {
    /// Judges a host by the rules that hold for every caller.
    pub(super) fn new(host: &'a Host, peer: Option<IpAddr>) -> Result<Self, HostRefusal> {
        let text = host.as_str().strip_suffix('.').unwrap_or(host.as_str());
        let address = text.parse().ok().map(|address: IpAddr| address.to_canonical());
        let peer = peer.map(|peer| peer.to_canonical());
        let is_link_local = match address {
            Some(IpAddr::V4(address)) => address.is_link_local(),
            Some(IpAddr::V6(address)) => address.is_unicast_link_local(),
            None => false,
        };
        let is_loopback = match address {
            Some(address) => address.is_loopback(),
            // RFC 6761, section 6.3: these names are the machine of the one that resolves them.
            None => text.eq_ignore_ascii_case("localhost") || is_below(text, ".localhost"),
        };
        if address.is_some_and(|address| address.is_unspecified()) {
            Err(HostRefusal::Unspecified)
        } else if address.is_some_and(|address| address.is_multicast()) {
            Err(HostRefusal::Multicast)
        } else if is_link_local {
            Err(HostRefusal::LinkLocal)
        } else if is_loopback && !peer.is_some_and(|peer| peer.is_loopback()) {
            Err(HostRefusal::Loopback)
        } else {
            Ok(Self { text, address, peer })
        }
    }

    /// Returns whether one of the rules allows the host.
    pub(super) fn is_one_of(self, rules: &[HostRule]) -> bool {
        rules.iter().any(|rule| match (rule, self.address) {
            (HostRule::Peer, Some(address)) => self.peer == Some(address),
            (HostRule::Network(network), Some(address)) => network.contains(&address),
            (HostRule::Dns(name), None) => self.text.eq_ignore_ascii_case(name),
            (HostRule::DnsBelow(suffix), None) => is_below(self.text, suffix),
            _ => false,
        })
    }
}

/// Returns whether a DNS name ends with the suffix, and has a label before it.
fn is_below(name: &str, suffix: &str) -> bool {
    let (name, suffix) = (name.as_bytes(), suffix.as_bytes());
    name.len() > suffix.len()
        && name
            .iter()
            .rev()
            .zip(suffix.iter().rev())
            .all(|(one, other)| one.eq_ignore_ascii_case(other))
}

impl FromStr for HostRule {
    type Err = HostRuleError;

    fn from_str(text: &str) -> Result<Self, HostRuleError> {
        if text == "peer" {
            return Ok(Self::Peer);
        }
        let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        if let Some(network) = network {
            return checked_network(network).map(Self::Network);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let below = name.strip_prefix('*').filter(|suffix| suffix.starts_with('.'));
        // A host of these must be valid. It is no address, which was parsed above.
        let host = below.map_or_else(|| name.clone(), |suffix| format!("x{suffix}"));
        match (Host::parse(&host, DNS_BYTES_MAX), below) {
            (Err(_), _) => Err(HostRuleError::Unknown),
            (Ok(_), Some(suffix)) => Ok(Self::DnsBelow(suffix.into())),
            (Ok(_), None) => Ok(Self::Dns(name.into())),
        }
    }
}

fn checked_network(network: IpNet) -> Result<IpNet, HostRuleError> {
    if network != network.trunc() {
        return Err(HostRuleError::BitsAfterPrefix(network.trunc()));
    }
    match network.addr() {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => Err(HostRuleError::Mapped),
        _ => Ok(network),
    }
}

/// The greatest length of a DNS name, in bytes (RFC 1035, section 2.3.4).
const DNS_BYTES_MAX: usize = 253;

impl fmt::Display for HostRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer => formatter.write_str("peer"),
            Self::Network(network) => network.fmt(formatter),
            Self::Dns(name) => formatter.write_str(name),
            Self::DnsBelow(suffix) => write!(formatter, "*{suffix}"),
        }
    }
}
