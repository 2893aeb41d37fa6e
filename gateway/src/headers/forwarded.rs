//! The origin of a request, for instances: `X-Forwarded-*`, and `Forwarded` of RFC 7239. Pure.
//! Invariant: nothing that a caller claims reaches an instance; claims count from trusted proxies
//! alone, and only as far back as the proxies are trusted.

use std::{fmt::Write as _, net::IpAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{FORWARDED, HOST},
};
use ipnet::IpNet;

use super::hop_by_hop::remove_prefixed;
use crate::{
    guard::{is_authority, members},
    routes::PathPrefix,
};

static FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The prefix of all `X-Forwarded-*`, standard or not.
const FIELD_PREFIX: &str = "x-forwarded-";

/// Other fields that software reads as the address of a caller.
static OTHER_FIELDS: [HeaderName; 5] = [
    FORWARDED,
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("x-real-ip"),
];

/// The length of most lists.
const LIST_LEN: usize = 48;

/// The most hops that are read of proxies' claims.
const HOPS_MAX: usize = 16;

/// The scheme of a request at the first trusted hop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// Returns its form in a URL.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The networks of trusted proxies.
///
/// ```
/// use waypost_gateway::TrustedProxies;
///
/// let trusted = TrustedProxies::new(["10.0.0.0/8".parse().expect("a network")]);
/// assert!(trusted.contain("10.1.2.3".parse().expect("an address")));
/// assert!(!trusted.contain("192.0.2.1".parse().expect("an address")));
/// ```
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts these networks; none: no proxy is trusted.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Returns true for an address in one of the networks. IPv4 addresses are compared in any form.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The arrival of a request, as the gateway observed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    /// The address of the connection's other end.
    pub(crate) peer: IpAddr,
    /// The scheme of the connection.
    pub(crate) scheme: Scheme,
    /// The authority of the target, or `Host`: the guard has checked that they agree. Absent from
    /// some requests of HTTP/1.0.
    pub(crate) host: Option<&'a str>,
}

/// The origin of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    /// From the gateway's peer back to the first address that is not a trusted proxy's. Never
    /// empty.
    hops: Vec<IpAddr>,
    scheme: Scheme,
    host: Option<HeaderValue>,
    /// The prefix that trusted proxies removed; empty: none.
    prefix: PathPrefix,
}

impl Origin {
    /// Returns the origin of a request with these `headers`.
    ///
    /// `X-Forwarded-For` is read from its end while the hop before it is trusted. A trusted peer's
    /// `X-Forwarded-Proto`, `-Host` and `-Prefix` count if there is one of each and it is
    /// well-formed. `Forwarded` is never read: a proxy that writes only one of the two passes the
    /// caller's other on.
    pub(crate) fn read(
        headers: &HeaderMap,
        arrival: Arrival<'_>,
        trusted: &TrustedProxies,
    ) -> Self {
        let mut origin = Self {
            hops: vec![arrival.peer.to_canonical()],
            scheme: arrival.scheme,
            host: arrival.host.and_then(|host| HeaderValue::from_str(host).ok()),
            prefix: PathPrefix::default(),
        };
        if !trusted.contain(arrival.peer) {
            return origin;
        }
        let claimed: Vec<&[u8]> = members(headers, &FOR).collect();
        for claim in claimed.iter().rev() {
            let is_trusted = origin.hops.last().is_some_and(|hop| trusted.contain(*hop));
            let Some(hop) = parse_address(claim).filter(|_| is_trusted) else { break };
            if origin.hops.len() == HOPS_MAX {
                break;
            }
            origin.hops.push(hop);
        }
        origin.scheme = claimed_scheme(headers).unwrap_or(origin.scheme);
        origin.host = claimed_host(headers).or(origin.host);
        origin.prefix = claimed_prefix(headers).unwrap_or_default();
        origin
    }

    /// Returns the address of the caller: the nearest one that is not a trusted proxy's.
    pub(crate) fn client(&self) -> IpAddr {
        // There is always one.
        self.hops.last().copied().unwrap_or(IpAddr::from([0; 4]))
    }

    /// Writes the fields for the instance, in place of all such fields of the request. `stripped`
    /// is the prefix that the instance's path is without. `X-Forwarded-Prefix` has it, behind the
    /// prefix that trusted proxies removed, so that the instance can build links that lead back to
    /// it.
    pub(crate) fn write(&self, headers: &mut HeaderMap, stripped: [&str; 2]) {
        remove_prefixed(headers, FIELD_PREFIX);
        for name in &OTHER_FIELDS {
            headers.remove(name);
        }
        headers.insert(&PROTO, HeaderValue::from_static(self.scheme.as_str()));
        if let Some(host) = &self.host {
            headers.insert(&FORWARDED_HOST, host.clone());
        }
        let [first, second] = stripped;
        let prefix = [self.prefix.as_str(), first, second].concat();
        if !prefix.is_empty()
            && let Ok(prefix) = HeaderValue::try_from(prefix)
        {
            headers.insert(&PREFIX, prefix);
        }
        let (chain, forwarded) = self.lists();
        // Addresses, and a host that was a value before: always a value.
        for (name, list) in [(&FOR, chain), (&FORWARDED, forwarded)] {
            if let Ok(value) = HeaderValue::try_from(list) {
                headers.insert(name, value);
            }
        }
    }

    /// Returns `X-Forwarded-For`, and `Forwarded`, whose first element has the caller's host and
    /// scheme.
    fn lists(&self) -> (String, String) {
        let mut chain = String::with_capacity(LIST_LEN);
        let mut forwarded = String::with_capacity(2 * LIST_LEN);
        for (index, hop) in self.hops.iter().rev().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            // Writing to a string can't fail.
            let _written = write!(chain, "{comma}{hop}");
            let _written = match hop {
                IpAddr::V4(hop) => write!(forwarded, "{comma}for={hop}"),
                IpAddr::V6(hop) => write!(forwarded, "{comma}for=\"[{hop}]\""),
            };
            if index == 0 {
                if let Some(host) = self.host.as_ref().and_then(|host| host.to_str().ok()) {
                    let _written = write!(forwarded, ";host=\"{host}\"");
                }
                let _written = write!(forwarded, ";proto={}", self.scheme.as_str());
            }
        }
        (chain, forwarded)
    }
}

/// Parses an address, with or without a port, which some proxies add.
fn parse_address(claim: &[u8]) -> Option<IpAddr> {
    let claim = str::from_utf8(claim).ok()?;
    let address = claim.parse().or_else(|_| {
        let with_port = claim.parse::<std::net::SocketAddr>();
        with_port.map(|address| address.ip()).or_else(|_| bracketed(claim).parse())
    });
    address.ok().map(|address| address.to_canonical())
}

fn bracketed(claim: &str) -> &str {
    claim.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(claim)
}

/// Returns the value of a field that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn claimed_scheme(headers: &HeaderMap) -> Option<Scheme> {
    let claim = only(headers, &PROTO)?.as_bytes();
    [Scheme::Http, Scheme::Https]
        .into_iter()
        .find(|scheme| claim.eq_ignore_ascii_case(scheme.as_str().as_bytes()))
}

fn claimed_host(headers: &HeaderMap) -> Option<HeaderValue> {
    only(headers, &FORWARDED_HOST).filter(|claim| is_authority(claim.as_bytes())).cloned()
}

/// Returns a prefix that can't be read as another host, or as a path elsewhere.
fn claimed_prefix(headers: &HeaderMap) -> Option<PathPrefix> {
    only(headers, &PREFIX)?.to_str().ok()?.parse().ok()
}

/// Returns the host of a request, for [`Arrival`].
pub(crate) fn host_of(parts: &http::request::Parts) -> Option<&str> {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| parts.headers.get(HOST).and_then(|host| host.to_str().ok()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const PROXIES: &str = "10.0.0.0/8";
    const PROXIES_6: &str = "fd00::/8";
    const CALLER: &str = "192.0.2.1";
    const SPOOFED: &str = "198.51.100.66";

    fn address(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn read(peer: &str, fields: &[(&'static str, &str)]) -> Origin {
        let trusted = TrustedProxies::new([PROXIES, PROXIES_6].map(|text| text.parse().unwrap()));
        let arrival =
            Arrival { peer: address(peer), scheme: Scheme::Http, host: Some("shop.example:8080") };
        Origin::read(&headers(fields), arrival, &trusted)
    }

    /// Returns the fields that an instance gets.
    fn written(peer: &str, fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut written = headers(fields);
        read(peer, fields).write(&mut written, ["", ""]);
        written
    }

    /// Returns the prefix that an instance gets, where the gateway removes `stripped`.
    fn prefix(peer: &str, claimed: &[&str], stripped: [&str; 2]) -> Option<String> {
        let fields: Vec<_> = claimed.iter().map(|claim| ("x-forwarded-prefix", *claim)).collect();
        let mut written = headers(&fields);
        read(peer, &fields).write(&mut written, stripped);
        let prefix = only(&written, &PREFIX)?;
        Some(prefix.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_instance_gets_the_removed_prefix() {
        for (claimed, stripped, expected) in [
            (&[][..], ["", ""], None),
            (&[], ["/v1/orders", ""], Some("/v1/orders")),
            (&[], ["/", "orders"], Some("/orders")),
            (&["/edge"], ["", ""], Some("/edge")),
            (&["/edge/eu/"], ["/v1", ""], Some("/edge/eu/v1")),
            (&["/"], ["/v1", ""], Some("/v1")),
            // Neither of two counts, nor anything but a path.
            (&["/a", "/b"], ["/v1", ""], Some("/v1")),
            (&["/a, /b"], ["", ""], None),
            (&["//evil.example"], ["/v1", ""], Some("/v1")),
            (&["https://evil.example"], ["", ""], None),
            (&["/a/../b"], ["", ""], None),
            (&["/a%2e"], ["", ""], None),
            (&["/\"x"], ["", ""], None),
            (&["/a?b"], ["", ""], None),
        ] {
            let got = prefix("10.0.0.1", claimed, stripped);
            assert_eq!(got.as_deref(), expected, "{claimed:?} {stripped:?}");
            let own = stripped.concat();
            let own = (!own.is_empty()).then_some(own);
            assert_eq!(prefix(CALLER, claimed, stripped), own, "a caller is not trusted");
        }
    }

    #[test]
    fn an_instance_gets_the_origin() {
        let written = written(CALLER, &[]);
        assert_eq!(written["x-forwarded-for"], "192.0.2.1");
        assert_eq!(written["x-forwarded-proto"], "http");
        assert_eq!(written["x-forwarded-host"], "shop.example:8080");
        assert_eq!(written["forwarded"], "for=192.0.2.1;host=\"shop.example:8080\";proto=http");
        assert_eq!(written.len(), 4);
    }

    #[test]
    fn claims_of_a_caller_are_replaced() {
        let claims = [
            ("x-forwarded-for", SPOOFED),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", SPOOFED),
            ("true-client-ip", SPOOFED),
            ("x-client-ip", SPOOFED),
            ("x-cluster-client-ip", SPOOFED),
            ("forwarded", "for=198.51.100.66"),
        ];
        assert_eq!(written(CALLER, &claims), written(CALLER, &[]));
        assert_eq!(read(CALLER, &claims).client(), address(CALLER));
    }

    #[test]
    fn claims_of_a_trusted_proxy_count() {
        let claims = [
            ("x-forwarded-for", CALLER),
            ("x-forwarded-proto", "HTTPS"),
            ("x-forwarded-host", "www.example"),
        ];
        let origin = read("10.0.0.1", &claims);
        assert_eq!(origin.client(), address(CALLER));
        assert_eq!(origin.scheme, Scheme::Https);
        let written = written("10.0.0.1", &claims);
        assert_eq!(written["x-forwarded-for"], "192.0.2.1, 10.0.0.1");
        assert_eq!(written["x-forwarded-proto"], "https");
        assert_eq!(written["x-forwarded-host"], "www.example");
        let forwarded = "for=192.0.2.1;host=\"www.example\";proto=https, for=10.0.0.1";
        assert_eq!(written["forwarded"], forwarded);
    }

    #[test]
    fn claims_before_an_untrusted_hop_do_not_count() {
        let chain = format!("{SPOOFED}, 10.9.9.9, {CALLER}, 10.0.0.2");
        let origin = read("10.0.0.1", &[("x-forwarded-for", &chain)]);
        assert_eq!(origin.client(), address(CALLER));
        let written = written("10.0.0.1", &[("x-forwarded-for", &chain)]);
        assert_eq!(written["x-forwarded-for"], "192.0.2.1, 10.0.0.2, 10.0.0.1");
    }

    #[test]
    fn a_chain_is_read_over_all_its_lines() {
        let claims = [("x-forwarded-for", SPOOFED), ("x-forwarded-for", CALLER)];
        assert_eq!(read("10.0.0.1", &claims).client(), address(CALLER));
    }

    #[test]
    fn a_malformed_address_ends_the_chain() {
        for claim in ["unknown", "_hidden", "10.0.0.256", "", "a, \u{7f}", "[10.0.0.1"] {
            let Ok(claim) = HeaderValue::from_str(&format!("{SPOOFED}, {claim}, 10.0.0.2")) else {
                continue;
            };
            let client = read("10.0.0.1", &[("x-forwarded-for", claim.to_str().unwrap())]).client();
            let skipped = claim.to_str().unwrap().contains(", ,");
            let expected = if skipped { SPOOFED } else { "10.0.0.2" };
            assert_eq!(client, address(expected), "{claim:?}");
        }
    }

    #[test]
    fn an_address_may_have_a_port() {
        for (claim, expected) in [
            ("192.0.2.1:4711", "192.0.2.1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            let origin = read("10.0.0.1", &[("x-forwarded-for", claim)]);
            assert_eq!(origin.client(), address(expected), "{claim}");
        }
    }

    #[test]
    fn a_chain_is_bounded() {
        let chain = vec!["10.0.0.2"; 1000].join(",");
        let origin = read("10.0.0.1", &[("x-forwarded-for", &chain)]);
        assert_eq!(origin.hops.len(), HOPS_MAX);
    }

    #[test]
    fn malformed_claims_of_a_trusted_proxy_do_not_count() {
        let plain = written("10.0.0.1", &[]);
        for claims in [
            vec![("x-forwarded-proto", "https, http")],
            vec![("x-forwarded-proto", "ftp")],
            vec![("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")],
            vec![("x-forwarded-host", "a/b")],
            vec![("x-forwarded-host", "a\", for=\"b")],
            vec![("x-forwarded-host", "a"), ("x-forwarded-host", "b")],
            vec![("forwarded", "for=198.51.100.66;proto=https")],
        ] {
            assert_eq!(written("10.0.0.1", &claims), plain, "{claims:?}");
        }
    }

    #[test]
    fn ipv6_addresses_are_bracketed_in_forwarded() {
        let written = written("fd00::1", &[("x-forwarded-for", "2001:db8::1")]);
        assert_eq!(written["x-forwarded-for"], "2001:db8::1, fd00::1");
        let forwarded =
            "for=\"[2001:db8::1]\";host=\"shop.example:8080\";proto=http, for=\"[fd00::1]\"";
        assert_eq!(written["forwarded"], forwarded);
    }

    #[test]
    fn an_ipv4_mapped_peer_is_an_ipv4_peer() {
        let origin = read("::ffff:10.0.0.1", &[("x-forwarded-for", CALLER)]);
        assert_eq!(origin.client(), address(CALLER));
        assert_eq!(read("::ffff:192.0.2.1", &[]).client(), address(CALLER));
    }

    #[test]
    fn a_request_may_have_no_host() {
        let arrival = Arrival { peer: address(CALLER), scheme: Scheme::Https, host: None };
        let mut headers = HeaderMap::new();
        Origin::read(&headers, arrival, &TrustedProxies::default()).write(&mut headers, ["", ""]);
        assert_eq!(headers["forwarded"], "for=192.0.2.1;proto=https");
        assert!(!headers.contains_key("x-forwarded-host"));
    }

    #[test]
    fn the_authority_comes_before_the_host_field() {
        let of = |target: &str, host: &str| {
            let request = Request::get(target).header("host", host).body(()).unwrap();
            host_of(&request.into_parts().0).map(str::to_owned)
        };
        assert_eq!(of("http://a/", "b").as_deref(), Some("a"));
        assert_eq!(of("/", "b").as_deref(), Some("b"));
    }
}
