//! URLs as Go's `net/url` reads request URIs, whose verdict Kuma's rules are
//! written in.

/// Parts of a request URI.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    pub(crate) scheme: String,
    pub(crate) opaque: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
}

impl<'a> Url<'a> {
    /// What `url.ParseRequestURI` accepts; a fragment is part of the path.
    pub(crate) fn request_uri(text: &'a str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return None;
        }
        if text == "*" {
            return Some(Self { path: "*", ..Self::default() });
        }
        let mut url = Self::default();
        let mut rest = text;
        for (i, b) in text.bytes().enumerate() {
            match b {
                b'a'..=b'z' | b'A'..=b'Z' => {}
                b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
                b':' if i == 0 => return None,
                b':' => {
                    url.scheme = text[..i].to_ascii_lowercase();
                    rest = &text[i + 1..];
                    break;
                }
                _ => break,
            }
        }
        if let Some((before, query)) = rest.split_once('?') {
            (rest, url.query) = (before, query);
        }
        if !rest.starts_with('/') {
            // Without a scheme it is a relative reference, which is no request.
            url.opaque = rest;
            return (!url.scheme.is_empty()).then_some(url);
        }
        if !url.scheme.is_empty()
            && let Some(authority) = rest.strip_prefix("//")
        {
            let end = authority.find('/').unwrap_or(authority.len());
            let (authority, path) = authority.split_at(end);
            rest = path;
            url.host = match authority.rsplit_once('@') {
                Some((user, host)) => {
                    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
                    if !user.bytes().all(plain) || !escapes(user) {
                        return None;
                    }
                    url.user = Some(user);
                    host
                }
                None => authority,
            };
            if !host_is_valid(url.host) {
                return None;
            }
        }
        url.path = rest;
        escapes(rest).then_some(url)
    }

    /// The port as written, without its colon.
    pub(crate) fn port(&self) -> &'a str {
        let after = self.host.rfind(']').map_or(0, |i| i + 1);
        self.host[after..].rfind(':').map_or("", |i| &self.host[after + i + 1..])
    }
}

/// Whether every `%` begins an escape.
fn escapes(text: &str) -> bool {
    let b = text.as_bytes();
    (0..b.len())
        .filter(|i| b[*i] == b'%')
        .all(|i| b.get(i + 1..i + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}

fn host_is_valid(host: &str) -> bool {
    let port = match host.strip_prefix('[') {
        Some(inside) => match inside.find(']') {
            Some(end) => &inside[end + 1..],
            None => return false,
        },
        None => host.rfind(':').map_or("", |i| &host[i..]),
    };
    let port_fits =
        port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    // No escapes but of non-ASCII bytes; nothing that separates parts.
    let plain = |b: u8| b >= 0x80 || b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"%".contains(&b);
    port_fits && host.bytes().all(plain) && (host.starts_with('[') || escapes(host))
}

/// What the validator of MeshTrace takes for a URL (`govalidator.IsURL`): the
/// scheme may be missing, the host must look like one.
pub(crate) fn looks_like_url(text: &str) -> bool {
    if text.len() < 3
        || text.chars().count() >= 2083
        || text.starts_with('.')
        || text.contains(char::is_whitespace)
    {
        return false;
    }
    let rest = match text.split_once("://") {
        Some((scheme, rest)) => {
            if !["ftp", "tcp", "udp", "ws", "wss", "http", "https"].contains(&scheme) {
                return false;
            }
            rest
        }
        None => text,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
    let (host, port) = match host_port.strip_prefix('[') {
        Some(inside) => match inside.split_once(']') {
            Some((ip, after)) => return ip.parse::<std::net::Ipv6Addr>().is_ok() && port_is_short(after),
            None => return false,
        },
        None => host_port.find(':').map_or((host_port, ""), |i| host_port.split_at(i)),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |l: &str| {
        let inner = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
        let ends = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        l.chars().all(inner) && ends(l.chars().next()) && ends(l.chars().next_back())
    };
    // A name without scheme, dot and port would be a path.
    let is_host = text.contains("://") || host.contains('.') || !port.is_empty();
    is_host && !host.is_empty() && host.split('.').all(label) && port_is_short(port)
}

fn port_is_short(port: &str) -> bool {
    port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|p| (1..=5).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_uris_are_told_from_other_texts() {
        for right in [
            "http://h:1/p",
            "/api/v2/spans",
            "http://h",
            "http://[::1]:9411/x?q=1",
            "mailto:x",
            "http://u:p@h:1",
            "*",
            "http:///x",
            "http://h:/",
        ] {
            assert!(Url::request_uri(right).is_some(), "{right}");
        }
        for wrong in [
            "",
            "zipkin.us",
            "jaeger",
            ":1",
            "http://h:port/",
            "http://a b/",
            "http://h/%zz",
            "http://[::1",
            "h\n",
            "%",
            "1http://h",
        ] {
            assert!(Url::request_uri(wrong).is_none(), "{wrong}");
        }
        // A name and a port read as a scheme and something opaque.
        let opaque = Url::request_uri("jaeger:9411").unwrap();
        assert_eq!((opaque.scheme.as_str(), opaque.opaque, opaque.port()), ("jaeger", "9411", ""));
        let url = Url::request_uri("HTTP://u@[::1]:80/a?b#c").unwrap();
        assert_eq!(
            (url.scheme.as_str(), url.port(), url.path, url.query, url.user),
            ("http", "80", "/a", "b#c", Some("u"))
        );
    }

    #[test]
    fn urls_may_miss_their_scheme() {
        for right in [
            "http://jaeger:9411/api/v2/spans",
            "jaeger:9411/api",
            "zipkin.us",
            "https://1.2.3.4",
            "http://[::1]:9411/",
        ] {
            assert!(looks_like_url(right), "{right}");
        }
        for wrong in
            ["", "notaurl", "http://", "gopher://x.y", "http://a b", ".com", "http://h:123456", "/api/v2"]
        {
            assert!(!looks_like_url(wrong), "{wrong}");
        }
    }
}
