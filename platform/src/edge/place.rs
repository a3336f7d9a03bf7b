//! The host that a request is for, read once and strictly, so that nobody behind the edge reads another one.

use std::fmt;

use hyper::Request;
use hyper::header::HOST;

/// A host, and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// In lower case, without the dot of the root.
    pub host: String,
    /// As the client said it.
    pub port: Option<u16>,
}

impl Place {
    /// What a request is for; `None` if it does not say, or says it twice.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        if let Some(authority) = request.uri().authority() {
            return Self::read(authority.as_str());
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = hosts.next()?.to_str().ok()?;
        // Two of them are a trick.
        if hosts.next().is_some() { None } else { Self::read(host) }
    }

    /// Reads `host`, `host:port`, and both with an address of IPv6 in brackets. Nothing else may be there, such as a user before `@`.
    pub fn read(authority: &str) -> Option<Self> {
        let behind_address = authority.rfind(']').map_or(0, |end| end.saturating_add(1));
        let (address, rest) = authority.split_at_checked(behind_address)?;
        let (name, port) = rest.split_once(':').map_or((rest, ""), |(name, port)| (name, port));
        let host = if address.is_empty() { name.strip_suffix('.').unwrap_or(name) } else { address };
        let is_right = if address.is_empty() { is_name(host) } else { name.is_empty() && is_address(address) };
        if !is_right || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // A colon may have no port behind it (RFC 3986, section 3.2.3).
        let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
        Some(Self { host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn is_address(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_in_lower_case_and_the_port_is_apart() {
        for (authority, host, port, said) in [
            ("A.example", "a.example", None, "a.example"),
            ("a.example:443", "a.example", Some(443), "a.example:443"),
            ("a.example.:0443", "a.example", Some(443), "a.example:443"),
            ("a.example:", "a.example", None, "a.example"),
            ("[::1]:80", "[::1]", Some(80), "[::1]:80"),
            ("[FD00::1]", "[fd00::1]", None, "[fd00::1]"),
            ("10.0.0.1:1", "10.0.0.1", Some(1), "10.0.0.1:1"),
        ] {
            let place = Place::read(authority).unwrap();
            assert_eq!((place.host.as_str(), place.port, place.to_string().as_str()), (host, port, said));
        }
    }

    #[test]
    fn a_host_with_anything_else_before_or_behind_it_is_refused() {
        for authority in [
            "",
            ":443",
            "a.example:80@evil.example",
            "user@a.example",
            "a.example:65536",
            "a.example:+80",
            "a.example:80:80",
            "a.example:80/x",
            "a.example, b.example",
            "a example",
            "a.example\u{e9}",
            "::1",
            "[::1]x:80",
            "x[::1]:80",
            "[a.example]:80",
            "[::1",
        ] {
            assert_eq!(Place::read(authority), None, "{authority}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let place = |uri: &str, hosts: &[&str]| {
            let mut builder = Request::get(uri);
            for host in hosts {
                builder = builder.header(HOST, *host);
            }
            Place::of(&builder.body(()).unwrap()).map(|place| place.to_string())
        };
        assert_eq!(place("/", &["a.example:1"]).as_deref(), Some("a.example:1"));
        assert_eq!(place("https://a.example/", &["b.example"]).as_deref(), Some("a.example"));
        assert_eq!((place("/", &[]), place("/", &[""]), place("/", &["a.example", "b.example"])), (None, None, None));
        assert_eq!(place("https://user@a.example/", &["a.example"]), None);
    }
}
