//! Which hosts are reached without a proxy.

use http::Uri;
use std::net::IpAddr;

/// Cloud metadata addresses are never proxied
/// (`datadog-agent:pkg/config/setup/config.go`).
const METADATA: [&str; 2] = ["169.254.169.254", "100.100.100.200"];

pub(crate) struct NoProxy {
    entries: Vec<String>,
    nonexact: bool,
}

impl NoProxy {
    /// `proxy_metadata`: cloud metadata is no exception.
    pub(crate) fn new(entries: &[String], nonexact: bool, proxy_metadata: bool) -> Self {
        let entries = entries.iter().map(|e| e.trim().to_ascii_lowercase()).filter(|e| !e.is_empty());
        let metadata = METADATA.iter().filter(|_| !proxy_metadata).map(|m| (*m).to_owned());
        Self { entries: entries.chain(metadata).collect(), nonexact }
    }

    /// Whether the destination is reached directly.
    pub(crate) fn covers(&self, uri: &Uri) -> bool {
        let Some(host) = uri.host() else { return false };
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let with_port = format!("{host}:{}", uri.port_u16().unwrap_or(default));
        let with_scheme = format!("{}://{host}", uri.scheme_str().unwrap_or_default());
        self.entries.iter().any(|e| {
            *e == host
                || *e == with_port
                || *e == with_scheme
                || (self.nonexact && covers_loosely(e, &host, &with_port))
        })
    }
}

/// Go's `httpproxy`: `*`, domains with and without a leading dot, networks.
fn covers_loosely(entry: &str, host: &str, with_port: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Some((network, bits)), Ok(ip)) = (entry.split_once('/'), host.parse::<IpAddr>()) {
        return in_network(network, bits, ip);
    }
    let domain = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.')).unwrap_or(entry);
    let under = |name: &str| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    under(host) || under(with_port) || (entry.starts_with("*.") && host == domain)
}

fn in_network(network: &str, bits: &str, ip: IpAddr) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (network, ip) {
        (IpAddr::V4(n), IpAddr::V4(ip)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            n.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V6(n), IpAddr::V6(ip)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            n.to_bits() & mask == ip.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(entry: &str, nonexact: bool, uri: &str) -> bool {
        NoProxy::new(&[entry.to_owned()], nonexact, false).covers(&uri.parse().unwrap())
    }

    #[test]
    fn entries_are_exact_unless_told_otherwise() {
        assert!(covers("Intake.Example", false, "https://intake.example/x"));
        assert!(covers("intake.example:443", false, "https://intake.example/x"));
        assert!(!covers("example", false, "https://intake.example/x"));
        assert!(covers(".example", true, "https://intake.example/x"));
        assert!(!covers("ample", true, "https://intake.example/x"));
        assert!(covers("10.0.0.0/8", true, "http://10.2.3.4:8126/"));
        assert!(!covers("10.0.0.0/8", true, "http://11.2.3.4:8126/"));
        assert!(covers("*", true, "http://any/"));
        assert!(covers("", false, "http://169.254.169.254/latest"));
    }
}
