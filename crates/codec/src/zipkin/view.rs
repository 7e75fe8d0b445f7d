//! Any span in the words of Zipkin.

use super::endpoint;
use crate::json;
use crate::view::{
    self, DEBUG, LINK_PREFIX, NO_START, Origin, SCOPE_NAME, SCOPE_VERSION, TRACE_STATE, ZIPKIN_SHARED,
};
use spanloom_model::{Attr, Batch, Chunk, Event, Link, Span, SpanKind, Status, Value, flags, keys};
use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// One side of a call, as Zipkin prints it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointView<'a> {
    /// Service name in lower case; empty if not known.
    pub service: Cow<'a, str>,
    /// IPv4 address in dotted form; empty if not known.
    pub ipv4: &'a str,
    /// IPv6 address; empty if not known.
    pub ipv6: &'a str,
    /// Port; 0 if not known.
    pub port: u16,
}

impl EndpointView<'_> {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Local and remote endpoint of a span of any protocol.
///
/// The service of the remote endpoint is what Zipkin's `remoteServices` and
/// its dependency links speak of.
pub fn endpoints<'a>(batch: &'a Batch, span: &Span) -> [EndpointView<'a>; 2] {
    if Origin::of(span) == Origin::Zipkin {
        let both = endpoint::of_zipkin(batch, span);
        return [both.local, both.remote].map(|end| EndpointView {
            service: lower(batch.str(end.service)),
            ipv4: batch.str(end.ipv4),
            ipv6: batch.str(end.ipv6),
            port: end.port,
        });
    }
    let mut local = EndpointView { service: lower(batch.str(span.service)), ..EndpointView::default() };
    let mut remote = EndpointView::default();
    for attr in batch.attrs(span.attrs) {
        match place_of(batch, attr) {
            Some(Place::RemoteService) => remote.service = lower(text(batch, attr)),
            Some(Place::Address(side)) => {
                let end = if side == Side::Local { &mut local } else { &mut remote };
                let address = text(batch, attr);
                if address.contains(':') {
                    end.ipv6 = address;
                } else {
                    end.ipv4 = address;
                }
            }
            Some(Place::Port(side)) => {
                let end = if side == Side::Local { &mut local } else { &mut remote };
                end.port = attr.value.as_f64().map_or(0, |n| n as u16);
            }
            None => {}
        }
    }
    [local, remote]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Local,
    Remote,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    RemoteService,
    Address(Side),
    Port(Side),
}

fn text<'a>(batch: &'a Batch, attr: &Attr) -> &'a str {
    attr.value.as_text().map(|t| batch.str(t)).unwrap_or_default()
}

/// Part of an endpoint that an attribute names, if its value can be one.
fn place_of(batch: &Batch, attr: &Attr) -> Option<Place> {
    let key = batch.str(attr.key);
    let place = match key {
        keys::PEER_SERVICE => Place::RemoteService,
        "net.host.ip" | "net.host.ipv6" | "network.host.ip" => Place::Address(Side::Local),
        "net.peer.ip" | "net.peer.ipv6" | "out.host" | "network.peer.address" => Place::Address(Side::Remote),
        "net.host.port" => Place::Port(Side::Local),
        "net.peer.port" | "network.destination.port" | "network.peer.port" => Place::Port(Side::Remote),
        _ => return None,
    };
    let fits = match (place, attr.value) {
        (Place::RemoteService, Value::Str(t)) => !t.is_empty(),
        (Place::Address(_), Value::Str(t)) => {
            let text = batch.str(t);
            text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok()
        }
        (Place::Port(_), Value::Int(n)) => (1..=65535).contains(&n),
        (Place::Port(_), Value::Double(n)) => (1.0..=65535.0).contains(&n) && n.fract() == 0.0,
        _ => false,
    };
    fits.then_some(place)
}

/// Whether an endpoint says all that an attribute says, so that it need not be
/// a tag too. Datadog's tags are always kept.
fn said_by_endpoint(batch: &Batch, span: &Span, attr: &Attr) -> bool {
    if Origin::of(span) == Origin::Datadog {
        return false;
    }
    match place_of(batch, attr) {
        Some(Place::RemoteService) => matches!(lower(text(batch, attr)), Cow::Borrowed(_)),
        Some(_) => !batch.str(attr.key).starts_with("network."),
        None => false,
    }
}

/// The lower-case form, borrowed if the text is that already.
pub(super) fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(text);
    }
    let lower = text.to_lowercase();
    if lower == text { Cow::Borrowed(text) } else { Cow::Owned(lower) }
}

/// Value of a tag: printed only when it is written.
#[derive(Clone, Debug)]
pub(super) enum Tag<'a> {
    Value(Value),
    Text(Cow<'a, str>),
}

/// Fills `out` with the tags of a span, sorted by key, each key once.
pub(super) fn tags<'a>(batch: &'a Batch, chunk: &Chunk, span: &Span, out: &mut Vec<(Cow<'a, str>, Tag<'a>)>) {
    out.clear();
    if Origin::of(span) == Origin::Zipkin {
        for attr in batch.attrs(span.attrs) {
            if !endpoint::is_part(batch, span, attr) {
                out.push((Cow::Borrowed(batch.str(attr.key)), Tag::Value(attr.value)));
            }
        }
    } else {
        foreign_tags(batch, chunk, span, out);
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    // Of equal keys the later and more specific one counts.
    out.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
}

fn foreign_tags<'a>(batch: &'a Batch, chunk: &Chunk, span: &Span, out: &mut Vec<(Cow<'a, str>, Tag<'a>)>) {
    let mut put = |key: &'a str, value: Tag<'a>| out.push((Cow::Borrowed(key), value));
    view::resource_attrs(batch, &view::resource(batch, chunk), span.service, |key, value| {
        if key != keys::SERVICE_NAME {
            put(key, Tag::Value(value));
        }
    });
    if let Some(scope) = view::scope(batch, span) {
        for (key, text) in [(SCOPE_NAME, scope.name), (SCOPE_VERSION, scope.version)] {
            if !text.is_empty() {
                put(key, Tag::Value(Value::Str(text)));
            }
        }
    }
    let consumed: Vec<&str> = batch
        .attrs(span.attrs)
        .iter()
        .filter(|a| said_by_endpoint(batch, span, a))
        .map(|a| batch.str(a.key))
        .collect();
    view::span_attrs(batch, chunk, span, |key, value| {
        let native = matches!(key, ZIPKIN_SHARED | DEBUG | NO_START) && value == Value::Bool(true);
        if !native && !consumed.contains(&key) {
            put(key, Tag::Value(value));
        }
    });
    if batch.role(span) == SpanKind::Internal {
        put(keys::SPAN_KIND, Tag::Text("internal".into()));
    }
    match view::status(span) {
        Status::Unset => {}
        Status::Ok => put(keys::STATUS_CODE, Tag::Text("OK".into())),
        Status::Error => {
            put(keys::STATUS_CODE, Tag::Text("ERROR".into()));
            // Zipkin knows failures by this tag; a text that is there stays.
            if batch.get_text(span.attrs, keys::ERROR).is_none_or(|t| t.is_empty()) {
                put(keys::ERROR, Tag::Text("true".into()));
            }
        }
    }
    let message = view::status_message(batch, span);
    if !message.is_empty() {
        put(keys::STATUS_DESCRIPTION, Tag::Text(message.into()));
    }
    if !span.trace_state.is_empty() {
        put(TRACE_STATE, Tag::Value(Value::Str(span.trace_state)));
    }
    for (key, n) in [
        ("otel.dropped_attributes_count", span.dropped[0]),
        ("otel.dropped_events_count", span.dropped[1]),
        ("otel.dropped_links_count", span.dropped[2]),
    ] {
        if n != 0 {
            put(key, Tag::Text(n.to_string().into()));
        }
    }
    for (i, link) in batch.span_links(span).iter().enumerate() {
        out.push((Cow::Owned(format!("{LINK_PREFIX}{i}")), Tag::Text(print_link(batch, link).into())));
    }
}

/// `trace|span|state|{attributes}|dropped`, as the OpenTelemetry Collector
/// writes links.
fn print_link(batch: &Batch, link: &Link) -> String {
    let mut json = Vec::new();
    view::write_json_map(batch, batch.attrs(link.attrs), &mut json::Writer::new(&mut json));
    format!(
        "{}|{}|{}|{}|{}",
        link.trace_id,
        link.span_id,
        batch.str(link.trace_state),
        String::from_utf8(json).unwrap_or_default(),
        link.dropped
    )
}

/// The value of an annotation: the name, or `name|{attributes}|dropped`.
pub(super) fn print_event(batch: &Batch, event: &Event, out: &mut String) {
    out.push_str(batch.str(event.name));
    if event.attrs.is_empty() && event.dropped == 0 {
        return;
    }
    let mut json = Vec::new();
    view::write_json_map(batch, batch.attrs(event.attrs), &mut json::Writer::new(&mut json));
    out.push('|');
    out.push_str(&String::from_utf8(json).unwrap_or_default());
    out.push('|');
    out.push_str(&event.dropped.to_string());
}

/// Start in microseconds; 0 if absent.
pub(super) fn timestamp(span: &Span) -> i64 {
    if span.flags & flags::NO_START != 0 { 0 } else { (span.start / 1000).max(0) }
}

/// Duration in microseconds; 0 if absent. Less than a microsecond is one.
pub(super) fn duration(span: &Span) -> i64 {
    match span.duration {
        _ if span.flags & flags::NO_DURATION != 0 => 0,
        n if n <= 0 => 0,
        n => (n / 1000).max(1),
    }
}
