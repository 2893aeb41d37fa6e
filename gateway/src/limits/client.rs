//! The key under which the requests of a client are counted.

use std::net::{IpAddr, Ipv6Addr};

use waypost_auth::{AuthMethod, Identity};

/// A client: an identity, or else an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey<'a>(KeyKind<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum KeyKind<'a> {
    Identity(AuthMethod, &'a str),
    Address(IpAddr),
}

impl<'a> ClientKey<'a> {
    /// Returns the key of an identity, or else of the `address`: of IPv6 its first 64 bits, as a
    /// client that has one address has all of its network.
    pub(crate) fn new(identity: Option<&'a Identity>, address: IpAddr) -> Self {
        Self(match (identity, address.to_canonical()) {
            (Some(identity), _) => KeyKind::Identity(identity.method, &identity.subject),
            (None, IpAddr::V4(address)) => KeyKind::Address(address.into()),
            (None, IpAddr::V6(address)) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                KeyKind::Address(Ipv6Addr::from_bits(network).into())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_network_are_one_client() {
        let key = |address: &str| ClientKey::new(None, address.parse().expect("an address"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
