//! Endpoints. The service of a span's local endpoint is [`Span::service`];
//! everything else of the two endpoints becomes attributes under the names of
//! the mapping table:
//!
//! | part | attribute | bit of `flags::ENDPOINT_PARTS` |
//! |---|---|---|
//! | local IPv4 | `net.host.ip` | 0 |
//! | local IPv6 | `net.host.ip`, with an IPv4 beside it `net.host.ipv6` | 1 |
//! | local port | `net.host.port` (integer) | 2 |
//! | remote service | `peer.service` | 3 |
//! | remote IPv4 | `net.peer.ip` | 4 |
//! | remote IPv6 | `net.peer.ip`, with an IPv4 beside it `net.peer.ipv6` | 5 |
//! | remote port | `net.peer.port` (integer) | 6 |
//!
//! The bit tells the part from a tag of the same name. Where a span has both,
//! the tag keeps the name and the part stands under `zipkin.` + name.

use crate::DecodeError;
use crate::build::Build;
use spanloom_model::{Attr, Batch, Span, Text, Value, flags, keys};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One side of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Endpoint {
    /// Service name in lower case; empty if not known.
    pub service: Text,
    /// IPv4 address in dotted form; empty if not known.
    pub ipv4: Text,
    /// IPv6 address in canonical form; empty if not known.
    pub ipv6: Text,
    /// Port; 0 if not known.
    pub port: u16,
}

impl Endpoint {
    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Endpoints {
    /// The side that recorded the span.
    pub local: Endpoint,
    /// The other side.
    pub remote: Endpoint,
}

const FIRST_BIT: u32 = flags::ENDPOINT_PARTS.trailing_zeros();

struct Part {
    bit: u32,
    key: &'static str,
    /// Where a tag has the key.
    other: &'static str,
}

const fn part(bit: u32, key: &'static str, other: &'static str) -> Part {
    Part { bit, key, other }
}

const LOCAL: [Part; 4] = [
    part(0, "net.host.ip", "zipkin.net.host.ip"),
    part(1, "net.host.ip", "zipkin.net.host.ip"),
    part(1, "net.host.ipv6", "zipkin.net.host.ipv6"),
    part(2, "net.host.port", "zipkin.net.host.port"),
];
const REMOTE: [Part; 4] = [
    part(4, "net.peer.ip", "zipkin.net.peer.ip"),
    part(5, "net.peer.ip", "zipkin.net.peer.ip"),
    part(5, "net.peer.ipv6", "zipkin.net.peer.ipv6"),
    part(6, "net.peer.port", "zipkin.net.peer.port"),
];
const SERVICE: Part = part(3, keys::PEER_SERVICE, keys::ZIPKIN_PEER_SERVICE);

/// Adds an address to an endpoint; an IPv6 address that only embeds an IPv4
/// address (`::ffff:1.2.3.4`, `::1.2.3.4`) counts as that. What is not an
/// address is ignored, as by Zipkin.
pub(super) fn add_address(build: &mut Build, endpoint: &mut Endpoint, address: IpAddr, text: Option<Text>) {
    let address = match address {
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    let is_same = |build: &Build, t: Text, printed: &str| build.batch.str(t) == printed;
    let place = if address.is_ipv4() { &mut endpoint.ipv4 } else { &mut endpoint.ipv6 };
    let printed = address.to_string();
    *place = match text {
        Some(t) if is_same(build, t, &printed) => t,
        _ => build.batch.arena.push(&printed),
    };
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        // `::` and `::1` mean themselves.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Nothing else is in this block that was never handed out.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => address.to_ipv4(),
        _ => None,
    }
}

/// As [`add_address`], from a text.
pub(super) fn parse_address(build: &mut Build, endpoint: &mut Endpoint, text: Text) {
    // The common case needs no printing: this parser takes the canonical form only.
    let parsed = build.batch.str(text);
    if parsed.parse::<Ipv4Addr>().is_ok() {
        endpoint.ipv4 = text;
    } else if let Ok(address) = parsed.parse::<Ipv6Addr>() {
        add_address(build, endpoint, IpAddr::V6(address), Some(text));
    }
}

/// Adds the attributes of both endpoints to the span being read; gives the
/// flags to set.
pub(super) fn push(build: &mut Build, mark: usize, both: &Endpoints) -> Result<u64, DecodeError> {
    let mut bits = 0;
    for (end, [v4, v6, v6_second, port]) in [(&both.local, &LOCAL), (&both.remote, &REMOTE)] {
        let v6 = if end.ipv4.is_empty() { v6 } else { v6_second };
        bits |= push_part(build, mark, v4, !end.ipv4.is_empty(), Value::Str(end.ipv4))?;
        bits |= push_part(build, mark, v6, !end.ipv6.is_empty(), Value::Str(end.ipv6))?;
        bits |= push_part(build, mark, port, end.port != 0, Value::Int(i64::from(end.port)))?;
    }
    let service = both.remote.service;
    bits |= push_part(build, mark, &SERVICE, !service.is_empty(), Value::Str(service))?;
    Ok(bits << FIRST_BIT)
}

fn push_part(
    build: &mut Build,
    mark: usize,
    part: &Part,
    known: bool,
    value: Value,
) -> Result<u64, DecodeError> {
    if !known {
        return Ok(0);
    }
    let taken = build
        .pending(mark)
        .iter()
        .any(|a| a.key.len() == part.key.len() && build.batch.arena.bytes(a.key) == part.key.as_bytes());
    let key = build.batch.arena.push_static(if taken { part.other } else { part.key });
    build.attr(key, value)?;
    Ok(1 << part.bit)
}

/// The endpoints of a span that came as Zipkin.
pub(super) fn of_zipkin(batch: &Batch, span: &Span) -> Endpoints {
    let mut both = Endpoints::default();
    both.local.service = span.service;
    for attr in batch.attrs(span.attrs) {
        let Some(part) = part_of(batch, span, attr) else { continue };
        let (text, port) = match attr.value {
            Value::Str(t) => (t, 0),
            Value::Int(n) => (Text::EMPTY, u16::try_from(n).unwrap_or(0)),
            _ => continue,
        };
        match part.bit {
            0 => both.local.ipv4 = text,
            1 => both.local.ipv6 = text,
            2 => both.local.port = port,
            3 => both.remote.service = text,
            4 => both.remote.ipv4 = text,
            5 => both.remote.ipv6 = text,
            _ => both.remote.port = port,
        }
    }
    both
}

/// Whether an attribute of a span that came as Zipkin is part of an endpoint.
pub(super) fn is_part(batch: &Batch, span: &Span, attr: &Attr) -> bool {
    part_of(batch, span, attr).is_some()
}

fn part_of(batch: &Batch, span: &Span, attr: &Attr) -> Option<&'static Part> {
    if span.flags & flags::ENDPOINT_PARTS == 0 || !matches!(attr.value, Value::Str(_) | Value::Int(_)) {
        return None;
    }
    let key = batch.str(attr.key);
    if !key.starts_with("net.") && !key.starts_with("peer.") && !key.starts_with("zipkin.") {
        return None;
    }
    let has = |bit: u32| span.flags & (1 << (FIRST_BIT + bit)) != 0;
    let both = |parts: &[Part; 4]| has(parts[0].bit) && has(parts[1].bit);
    let candidates = LOCAL.iter().chain(&REMOTE).chain(std::iter::once(&SERVICE));
    let part = candidates.filter(|p| has(p.bit)).find(|p| {
        if key != p.key && key != p.other {
            return false;
        }
        // The IPv6 address has the shorter name only when it stands alone.
        match p.bit {
            1 => both(&LOCAL) == p.key.ends_with("v6"),
            5 => both(&REMOTE) == p.key.ends_with("v6"),
            _ => true,
        }
    })?;
    // The plain name is a tag if the part had to make way for it.
    if key == part.key && batch.get(span.attrs, part.other).is_some() {
        return None;
    }
    Some(part)
}
