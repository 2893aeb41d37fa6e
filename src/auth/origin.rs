//! Requests in clear text on loopback come from this machine, but a web page in its browser can
//! send them, too: to a name that it made resolve to loopback, or to loopback itself. Both show in
//! the host that the request names, or in its origin.
//!
//! Pure.

use std::net::IpAddr;

use http::{HeaderMap, Request, Uri, header, uri::Authority};

/// Returns whether a request was meant for this machine: the authority, the `Host` and the `Origin`
/// that it has are all `localhost`, a name below it, or a loopback address (RFC 6761, section 6.3).
pub(super) fn is_local<B>(request: &Request<B>) -> bool {
    let authority = request.uri().authority();
    authority.is_none_or(|authority| is_loopback(authority.host()))
        && has_local_fields(request.headers())
}

/// Returns whether the `Host` and the `Origin` that a request has are of this machine.
pub(super) fn has_local_fields(headers: &HeaderMap) -> bool {
    all(headers, &header::HOST, |host| {
        host.parse::<Authority>().is_ok_and(|host| is_loopback(host.host()))
    }) && all(headers, &header::ORIGIN, |origin| {
        origin
            .parse::<Uri>()
            .is_ok_and(|origin| origin.scheme().is_some() && origin.host().is_some_and(is_loopback))
    })
}

fn all(headers: &HeaderMap, name: &header::HeaderName, holds: impl Fn(&str) -> bool) -> bool {
    headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(&holds))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            // The last label, without the dot that may end a name.
            let name = host.strip_suffix('.').unwrap_or(host);
            name.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = headers.iter().fold(Request::builder().uri(uri), |request, (name, value)| {
            request.header(*name, *value)
        });
        request.body(()).unwrap()
    }

    #[test]
    fn hosts_and_origins_of_this_machine_are_local() {
        for host in [
            "localhost",
            "LocalHost:7510",
            "localhost.",
            "a.localhost:80",
            "a.b.localhost.",
            "127.0.0.1:7510",
            "127.9.9.9",
            "[::1]:7510",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_local(&request(&format!("http://{host}/"), &[])), "{host}");
            assert!(is_local(&request("/", &[("host", host)])), "{host}");
            let origin = format!("http://{host}");
            assert!(is_local(&request("/", &[("origin", &origin)])), "{host}");
        }
        assert!(is_local(&request("/", &[])), "a program, as browsers always name a host");
    }

    #[test]
    fn other_hosts_and_origins_are_not_local() {
        for host in [
            "evil.example",
            "evil.example:7510",
            "localhost.evil.example",
            "notlocalhost",
            "10.0.0.1",
            "0.0.0.0:7510",
            "127.0.0.1.evil.example",
            "[::]:7510",
            "[2001:db8::1]",
        ] {
            assert!(!is_local(&request(&format!("http://{host}/"), &[])), "{host}");
            assert!(!is_local(&request("/", &[("host", host)])), "{host}");
            let origin = format!("https://{host}");
            assert!(!is_local(&request("/", &[("origin", &origin)])), "{host}");
            let both = [("host", "localhost"), ("host", host)];
            assert!(!is_local(&request("/", &both)), "{host} beside localhost");
        }
        for header in ["null", "", "file://", "localhost", "http://"] {
            assert!(!is_local(&request("/", &[("origin", header)])), "{header:?}");
        }
        for host in ["", "a b", "user@evil.example"] {
            assert!(!is_local(&request("/", &[("host", host)])), "{host:?}");
        }
    }
}
