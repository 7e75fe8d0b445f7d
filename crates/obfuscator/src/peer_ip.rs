//! IP addresses in peer tags: replaced before aggregation, since each would
//! be a series of its own. Rules: `datadog-agent:pkg/obfuscate/ip_address.go`.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use memchr::memchr;

const BLOCKED: &str = "blocked-ip-address";

/// Local and metadata addresses, the same everywhere.
const ALLOWED: [&str; 5] = ["127.0.0.1", "::1", "169.254.169.254", "fd00:ec2::254", "169.254.170.2"];

const SCHEMES: [&str; 5] = ["dnspoll", "ftp", "file", "http", "https"];

/// Replaces the addresses of a comma-separated peer tag value and drops
/// repetitions.
pub fn quantize_peer_ip(value: &str) -> Cow<'_, str> {
    if memchr(b',', value.as_bytes()).is_none() {
        return quantize_one(value);
    }
    if is_list_of_others(value) {
        return Cow::Borrowed(value);
    }
    let mut seen = foldhash::HashSet::default();
    let mut out = String::with_capacity(value.len());
    for part in value.split(',') {
        let part = quantize_one(part);
        if !seen.contains(&part) {
            if !seen.is_empty() {
                out.push(',');
            }
            out.push_str(&part);
            seen.insert(part);
        }
    }
    if out == value { Cow::Borrowed(value) } else { Cow::Owned(out) }
}

/// A short list without addresses and repetitions: what most lists are.
fn is_list_of_others(list: &str) -> bool {
    let mut seen = [""; 8];
    for (count, part) in list.split(',').enumerate() {
        if count == seen.len() || seen[..count].contains(&part) || quantize_one(part) != part {
            return false;
        }
        seen[count] = part;
    }
    true
}

fn quantize_one(part: &str) -> Cow<'_, str> {
    let (prefix, host, port) = match split_plain(part) {
        Some((host, port)) => ("", host, port),
        None => {
            let (prefix, rest) = split_prefix(part);
            let (host, port) = split_port(rest).unwrap_or((rest, ""));
            (prefix, host, port)
        }
    };
    let Some(end) = address_end(host) else { return Cow::Borrowed(part) };
    let (address, suffix) = host.split_at(end);
    if ALLOWED.contains(&address) {
        return Cow::Borrowed(part);
    }
    let colon = if port.is_empty() { "" } else { ":" };
    let pieces = [prefix, BLOCKED, colon, port, suffix];
    let mut out = String::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    pieces.iter().for_each(|piece| out.push_str(piece));
    Cow::Owned(out)
}

/// Host and port of what is no more than that: `None` where a prefix, brackets or
/// a second colon may have a meaning.
fn split_plain(part: &str) -> Option<(&str, &str)> {
    let mut colon = None;
    for (at, b) in part.bytes().enumerate() {
        match b {
            b'/' | b'[' | b']' => return None,
            b':' if colon.replace(at).is_some() => return None,
            _ => {}
        }
    }
    match colon {
        _ if part.starts_with("ip-") => None,
        Some(at) => Some((&part[..at], &part[at + 1..])),
        None => Some((part, "")),
    }
}

/// `ip-` of EC2 host names, or a scheme with two or three slashes. What stands
/// before a scheme is dropped, as in the reference.
fn split_prefix(part: &str) -> (&str, &str) {
    if let Some(rest) = part.strip_prefix("ip-") {
        return ("ip-", rest);
    }
    for scheme in SCHEMES {
        let Some(start) = part.find(scheme) else { continue };
        for separator in [":///", "://"] {
            let end = start + scheme.len() + separator.len();
            if end < part.len() && part[start + scheme.len()..].starts_with(separator) {
                return (&part[start..end], &part[end..]);
            }
        }
    }
    ("", part)
}

/// `host:port` or `[host]:port`.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let colon = text.rfind(':')?;
    let host = if let Some(inner) = text.strip_prefix('[') {
        let (host, _) = inner.split_once(']')?;
        if host.len() + 2 != colon || inner.contains('[') || text[colon..].contains(']') {
            return None;
        }
        host
    } else {
        if text[..colon].contains(':') || text.contains(['[', ']']) {
            return None;
        }
        &text[..colon]
    };
    Some((host, &text[colon + 1..]))
}

/// Where the address at the front of `text` ends, if there is one.
fn address_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(|b| b.is_ascii_hexdigit() || *b == b':') {
        return None;
    }
    match bytes.iter().find(|b| matches!(b, b'.' | b'-' | b'_' | b':' | b'%'))? {
        b':' => is_v6(text).then_some(text.len()),
        b'%' => None,
        &separator => v4_end(bytes, separator),
    }
}

fn is_v6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(a, z)| (a, Some(z)));
    zone != Some("") && address.parse::<Ipv6Addr>().is_ok()
}

fn v4_end(bytes: &[u8], separator: u8) -> Option<usize> {
    let mut value = 0u32;
    let mut digits = 0;
    let mut fields = 0;
    for (at, &b) in bytes.iter().enumerate() {
        match b {
            b'0'..=b'9' => {
                if digits == 1 && value == 0 {
                    return None;
                }
                value = value * 10 + u32::from(b - b'0');
                digits += 1;
                if value > 255 {
                    return None;
                }
            }
            _ if b == separator => {
                if at == 0 || at == bytes.len() - 1 || bytes[at - 1] == separator {
                    return None;
                }
                if fields == 3 {
                    return Some(at);
                }
                fields += 1;
                value = 0;
                digits = 0;
            }
            _ => return (fields == 3 && digits > 0).then_some(at),
        }
    }
    (fields == 3).then_some(bytes.len())
}
