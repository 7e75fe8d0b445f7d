//! Calls between services, from whole traces.
//!
//! Kinds decide where they are known: a server or consumer is called by the
//! nearest ancestor with a kind (or by the remote name it reports), a client
//! or producer without children calls the remote name it reports, and a client
//! with children leaves the link to the server it reached. Those are Zipkin's
//! rules (spec: store and query, §2.4). Spans of other protocols often have no
//! kind; for them a parent of another service is the caller, which is Jaeger's
//! rule.

use spanloom_model::{Batch, Protocol, Span, SpanId, SpanKind, TimeRange, flags, keys};
use std::collections::{BTreeMap, HashMap};

/// Calls and failed calls by caller and callee.
pub(crate) type Links = BTreeMap<(String, String), (u64, u64)>;

struct Node<'a> {
    span: &'a Span,
    parent: Option<usize>,
    children: u32,
    shared: bool,
}

/// Adds the links that the spans of one trace make which start in the range.
pub(crate) fn links(batch: &Batch, range: TimeRange, out: &mut Links) {
    let zipkin = matches!(
        batch.intake.protocol,
        Protocol::ZipkinJsonV1 | Protocol::ZipkinJsonV2 | Protocol::ZipkinThrift | Protocol::ZipkinProto
    );
    let nodes = tree(batch);
    let mut add = |span: &Span, parent: &str, child: &str, failed: bool| {
        if span.flags & flags::NO_START != 0 || range.contains(span.start) {
            let count = out.entry((parent.to_owned(), child.to_owned())).or_default();
            count.0 += 1;
            count.1 += u64::from(failed);
        }
    };
    for node in &nodes {
        let span = node.span;
        let service = named(batch.str(span.service));
        let remote = batch.get_str(span.attrs, keys::PEER_SERVICE).and_then(named);
        let above = node.parent.and_then(|p| nodes.get(p)).map(|n| n.span);
        let other = || above.and_then(|s| named(batch.str(s.service))).filter(|a| Some(*a) != service);
        let mut kind = span.kind;
        if matches!(kind, SpanKind::Unspecified | SpanKind::Internal) {
            if kind == SpanKind::Unspecified && service.is_some() && remote.is_some() {
                kind = SpanKind::Client;
            } else {
                if let (false, Some(parent), Some(child)) = (zipkin, other(), service) {
                    add(span, parent, child, span.is_error());
                }
                continue;
            }
        }
        if kind == SpanKind::Client && span.kind == SpanKind::Client && node.children > 0 {
            continue;
        }
        let mut failed = span.is_error();
        let (mut parent, child) = match kind {
            SpanKind::Server | SpanKind::Consumer => (remote, service),
            _ => (service, remote),
        };
        if matches!(kind, SpanKind::Producer | SpanKind::Consumer) {
            match (parent, child) {
                (Some(p), Some(c)) => add(span, p, c, failed),
                (None, Some(c)) if !zipkin => {
                    if let Some(p) = other() {
                        add(span, p, c, failed);
                    }
                }
                _ => {}
            }
            continue;
        }
        if let Some(ancestor) = remote_ancestor(&nodes, node)
            && let Some(name) = named(batch.str(ancestor.service))
        {
            if let (SpanKind::Client, Some(s)) = (kind, service)
                && s != name
            {
                add(span, name, s, false);
            }
            if kind == SpanKind::Server || parent.is_none() {
                parent = Some(name);
            }
            let called_by = ancestor.kind == SpanKind::Client
                && (span.parent_id == ancestor.span_id || span.span_id == ancestor.span_id);
            failed |= called_by && ancestor.is_error();
        }
        if parent.is_none() && !zipkin {
            parent = other();
        }
        if let (Some(p), Some(c)) = (parent, child) {
            add(span, p, c, failed);
        }
    }
}

fn named(s: &str) -> Option<&str> {
    (!s.is_empty()).then_some(s)
}

/// The nearest ancestor with a kind.
fn remote_ancestor<'a>(nodes: &[Node<'a>], node: &Node<'a>) -> Option<&'a Span> {
    let mut at = node.parent;
    // A damaged trace may be a ring; no tree is deeper than it has nodes.
    for _ in 0..nodes.len() {
        let above = nodes.get(at?)?;
        if !matches!(above.span.kind, SpanKind::Unspecified | SpanKind::Internal) {
            return Some(above.span);
        }
        at = above.parent;
    }
    None
}

/// Parents by position. The server half of a shared id hangs below the client
/// half; children of the id hang below the half of their own service.
fn tree(batch: &Batch) -> Vec<Node<'_>> {
    let mut spans: Vec<&Span> = batch.spans.iter().collect();
    // Clients first, so that a server half after its client is seen as shared.
    spans.sort_by_key(|s| (s.span_id, s.kind == SpanKind::Server, s.flags & flags::SHARED != 0, s.start));
    let mut nodes: Vec<Node<'_>> = Vec::with_capacity(spans.len());
    let mut plain: HashMap<SpanId, usize> = HashMap::with_capacity(spans.len());
    let mut halves: HashMap<(SpanId, &str), usize> = HashMap::new();
    for (i, span) in spans.iter().enumerate() {
        let client_before = plain
            .get(&span.span_id)
            .is_some_and(|n| nodes[*n].span.kind == SpanKind::Client && span.kind == SpanKind::Server);
        let shared = span.flags & flags::SHARED != 0 || client_before;
        nodes.push(Node { span, parent: None, children: 0, shared });
        if shared {
            halves.insert((span.span_id, batch.str(span.service)), i);
        } else {
            plain.entry(span.span_id).or_insert(i);
        }
    }
    let mut shared_any: HashMap<SpanId, usize> = HashMap::new();
    for ((id, _), i) in &halves {
        shared_any.entry(*id).and_modify(|n| *n = (*n).min(*i)).or_insert(*i);
    }
    for i in 0..nodes.len() {
        let span = nodes[i].span;
        let by_id = |id: SpanId| plain.get(&id).copied().or_else(|| shared_any.get(&id).copied());
        let parent = if nodes[i].shared && plain.contains_key(&span.span_id) {
            plain.get(&span.span_id).copied()
        } else if span.parent_id.is_zero() {
            None
        } else {
            halves.get(&(span.parent_id, batch.str(span.service))).copied().or_else(|| by_id(span.parent_id))
        };
        nodes[i].parent = parent.filter(|p| *p != i);
        if let Some(p) = nodes[i].parent {
            nodes[p].children += 1;
        }
    }
    nodes
}
