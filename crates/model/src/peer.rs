//! What a span says about the two ends of a call.
//!
//! Most clients say it in attributes. A Zipkin span has endpoints, which its
//! decoder keeps as attributes of the same names; bits of [`Span::flags`] tell
//! them from tags that only happen to be called so. Where a span has both, the
//! tag keeps the name and the part stands under `zipkin.` + name.

use crate::{Batch, Span, Value, flags, keys};

/// Name of the service on the other side of the call, if the span tells one.
pub fn remote_service<'a>(batch: &'a Batch, span: &Span) -> Option<&'a str> {
    let parts = [(flags::REMOTE_SERVICE, keys::PEER_SERVICE, keys::ZIPKIN_PEER_SERVICE)];
    text(batch, part(batch, span, &parts)?)
}

/// Address of the side that recorded the span: IPv4, IPv6, port.
pub(crate) fn local_address<'a>(
    batch: &'a Batch,
    span: &Span,
) -> (Option<&'a str>, Option<&'a str>, Option<f64>) {
    let v4 = [(flags::LOCAL_IPV4, "net.host.ip", "zipkin.net.host.ip")];
    let v6 = [
        (flags::LOCAL_IPV6, "net.host.ipv6", "zipkin.net.host.ipv6"),
        // The shorter name is the IPv4 address's where there is one.
        (flags::LOCAL_IPV6, "net.host.ip", "zipkin.net.host.ip"),
    ];
    let v6 = if span.flags & flags::LOCAL_IPV4 == 0 { &v6[..] } else { &v6[..1] };
    let port = [(flags::LOCAL_PORT, "net.host.port", "zipkin.net.host.port")];
    (
        part(batch, span, &v4).and_then(|v| text(batch, v)),
        part(batch, span, v6).and_then(|v| text(batch, v)),
        part(batch, span, &port).and_then(Value::as_f64),
    )
}

/// The first of these parts that the span has: (bit, key, key beside a tag).
fn part(batch: &Batch, span: &Span, parts: &[(u64, &str, &str)]) -> Option<Value> {
    parts.iter().find_map(|&(bit, key, beside)| {
        if span.flags & flags::FROM_ZIPKIN == 0 {
            return batch.get(span.attrs, key);
        }
        let has = span.flags & bit != 0;
        has.then(|| batch.get(span.attrs, beside).or_else(|| batch.get(span.attrs, key))).flatten()
    })
}

fn text(batch: &Batch, value: Value) -> Option<&str> {
    value.as_text().map(|t| batch.str(t)).filter(|s| !s.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::{Draft, batch};

    #[test]
    fn a_zipkin_tag_is_not_an_endpoint() {
        let zipkin = || Draft::new(1, 1).flag(flags::FROM_ZIPKIN);
        let b = batch(&[
            Draft::new(1, 1).tag("peer.service", "db"),
            zipkin().tag("peer.service", "a tag"),
            zipkin().flag(flags::REMOTE_SERVICE).tag("peer.service", "db"),
            zipkin()
                .flag(flags::REMOTE_SERVICE)
                .tag("peer.service", "a tag")
                .tag("zipkin.peer.service", "db"),
        ]);
        let named: Vec<_> = b.spans.iter().map(|s| remote_service(&b, s)).collect();
        assert_eq!(named, [Some("db"), None, Some("db"), Some("db")]);
    }

    #[test]
    fn an_address_alone_has_the_short_name_whichever_it_is() {
        let zipkin = |bits| Draft::new(1, 1).flag(flags::FROM_ZIPKIN | bits).tag("net.host.ip", "::1");
        let b = batch(&[zipkin(0), zipkin(flags::LOCAL_IPV6), zipkin(flags::LOCAL_IPV4)]);
        let found: Vec<_> = b.spans.iter().map(|s| local_address(&b, s)).collect();
        assert_eq!(found, [(None, None, None), (None, Some("::1"), None), (Some("::1"), None, None)]);
    }
}
