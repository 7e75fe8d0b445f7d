//! Calls between services, read off the spans of one trace. Like
//! [`crate::Expr`], this is here rather than in a store so that all stores
//! agree by construction.
//!
//! The rules are Zipkin's (openzipkin/zipkin:zipkin/src/main/java/zipkin2/internal/
//! `DependencyLinker.java`, `SpanNode.java`, `Trace.java`): one call per RPC
//! although client and server report it, the remote name where the other side
//! reports nothing, brokers between producers and consumers.

use crate::peer::{local_address, remote_service};
use crate::{Batch, Dependency, Span, SpanId, SpanKind, TimeRange, flags};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Sums up calls over many traces.
#[derive(Clone, Debug, Default)]
pub struct Links {
    sums: BTreeMap<(String, String), (u64, u64, u64)>,
}

/// What of a call [`Links`] counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Plain,
    Failed,
    Implied,
}

impl Links {
    /// Counts the calls of one trace if some span of it starts in `range`: a
    /// trace counts whole or not at all, as with Zipkin and Jaeger. The batch
    /// must hold all spans of the trace that are known, and of no other.
    pub fn add_trace(&mut self, trace: &Batch, range: TimeRange) {
        if !trace.spans.iter().any(|s| s.flags & flags::NO_START == 0 && range.contains(s.start)) {
            return;
        }
        let mut nodes = merged(trace);
        let tree = Tree::new(&nodes);
        tree.name_servers(&mut nodes);
        for &at in &tree.order {
            self.link(&nodes, &tree, at);
        }
    }

    /// Adds sums that were made before (of another file, another day).
    pub fn add(&mut self, d: &Dependency) {
        let sum = self.sums.entry((d.parent.clone(), d.child.clone())).or_default();
        sum.0 = sum.0.saturating_add(d.calls);
        sum.1 = sum.1.saturating_add(d.errors);
        sum.2 = sum.2.saturating_add(d.implied);
    }

    /// The sums, by caller and callee.
    pub fn finish(self) -> Vec<Dependency> {
        self.sums
            .into_iter()
            .map(|((parent, child), (calls, errors, implied))| Dependency {
                parent,
                child,
                calls,
                errors,
                implied,
            })
            .collect()
    }

    fn count(&mut self, parent: &str, child: &str, call: Call) {
        let sum = self.sums.entry((parent.to_owned(), child.to_owned())).or_default();
        match call {
            Call::Implied => sum.2 += 1,
            Call::Plain => sum.0 += 1,
            Call::Failed => {
                sum.0 += 1;
                sum.1 += 1;
            }
        }
    }

    fn link(&mut self, nodes: &[Node<'_>], tree: &Tree, at: usize) {
        let node = &nodes[at];
        // The server names itself better than its client does.
        if node.kind == Some(Kind::Client) && !tree.children[at].is_empty() {
            return;
        }
        let (Some(local), remote) = (node.service, node.remote) else {
            return self.link_nameless(nodes, tree, at);
        };
        let kind = match (node.kind, remote) {
            (Some(kind), _) => kind,
            (None, Some(_)) => Kind::Client,
            (None, None) => return self.imply(nodes, tree, at),
        };
        match kind {
            Kind::Producer => {
                if let Some(broker) = remote {
                    self.count(local, broker, failed(node.error));
                }
            }
            Kind::Consumer => match remote {
                Some(broker) => self.count(broker, local, failed(node.error)),
                None => self.imply(nodes, tree, at),
            },
            Kind::Server if tree.parent[at].is_none() && tree.root == Some(at) && remote.is_none() => {}
            Kind::Server | Kind::Client => {
                let ancestor = tree.remote_ancestor(nodes, at);
                let ancestor_name = ancestor.and_then(|a| nodes[a].service);
                let mut error = node.error;
                if let (Some(a), Some(name)) = (ancestor, ancestor_name) {
                    // A client under the name of what it calls: the link to it is missing.
                    if kind == Kind::Client && name != local {
                        self.count(name, local, Call::Plain);
                    }
                    let direct = node.parent == nodes[a].id && !node.parent.is_zero();
                    error |= nodes[a].kind == Some(Kind::Client) && direct && nodes[a].error;
                }
                let pair = match kind {
                    Kind::Server => (ancestor_name.or(remote), Some(local)),
                    _ => (Some(local), remote),
                };
                match pair {
                    (Some(parent), Some(child)) => self.count(parent, child, failed(error)),
                    _ if kind == Kind::Server => self.imply(nodes, tree, at),
                    _ => {}
                }
            }
        }
    }

    /// A span without service: only its remote name and its caller say anything.
    fn link_nameless(&mut self, nodes: &[Node<'_>], tree: &Tree, at: usize) {
        let node = &nodes[at];
        if node.kind != Some(Kind::Client) {
            return;
        }
        let ancestor = tree.remote_ancestor(nodes, at);
        if let (Some(a), Some(child)) = (ancestor, node.remote)
            && let Some(parent) = nodes[a].service
        {
            let direct = node.parent == nodes[a].id && !node.parent.is_zero();
            let error = node.error || nodes[a].kind == Some(Kind::Client) && direct && nodes[a].error;
            self.count(parent, child, failed(error));
        }
    }

    /// The kinds do not tell of a call, but the services of parent and child do.
    fn imply(&mut self, nodes: &[Node<'_>], tree: &Tree, at: usize) {
        let Some(parent) = tree.parent[at] else { return };
        // Spans without a known parent hang under the root; they are not its calls.
        if nodes[parent].id != nodes[at].parent {
            return;
        }
        if let (Some(from), Some(to)) = (nodes[parent].service, nodes[at].service)
            && from != to
        {
            self.count(from, to, Call::Implied);
        }
    }
}

/// Zipkin goes by the tag `error` alone, whatever other tags say.
fn failed_call(trace: &Batch, span: &Span) -> bool {
    if span.flags & flags::FROM_ZIPKIN != 0 {
        return trace.get(span.attrs, crate::keys::ERROR).is_some();
    }
    span.is_error()
}

fn failed(error: bool) -> Call {
    if error { Call::Failed } else { Call::Plain }
}

/// The roles that take part in calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Client,
    Server,
    Producer,
    Consumer,
}

/// IPv4, IPv6 and port of the side that recorded a span.
type Address<'a> = (Option<&'a str>, Option<&'a str>, Option<f64>);

/// One span, or one half of a shared span, all its partial reports merged.
#[derive(Clone, Debug)]
struct Node<'a> {
    id: SpanId,
    parent: SpanId,
    shared: bool,
    kind: Option<Kind>,
    /// It does not say its kind, but is of a type that servers have.
    may_serve: bool,
    service: Option<&'a str>,
    address: Address<'a>,
    remote: Option<&'a str>,
    error: bool,
}

impl<'a> Node<'a> {
    fn new(trace: &'a Batch, span: &Span) -> Self {
        let text = |t| Some(trace.str(t)).filter(|s: &&str| !s.is_empty());
        Self {
            id: span.span_id,
            parent: span.parent_id,
            shared: span.flags & flags::SHARED != 0,
            kind: match span.kind {
                // Zipkin goes by the kind alone.
                _ if span.flags & flags::KIND_FROM_TAG != 0 => None,
                SpanKind::Client => Some(Kind::Client),
                SpanKind::Server => Some(Kind::Server),
                SpanKind::Producer => Some(Kind::Producer),
                SpanKind::Consumer => Some(Kind::Consumer),
                SpanKind::Internal | SpanKind::Unspecified => None,
            },
            may_serve: span.kind == SpanKind::Unspecified && trace.role(span) == SpanKind::Server,
            service: text(span.service),
            address: local_address(trace, span),
            remote: remote_service(trace, span),
            error: failed_call(trace, span),
        }
    }

    /// Whether the other may be a further report of this one.
    fn takes(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        self.id == other.id
            && self.shared == other.shared
            && agree(self.service, other.service)
            && agree(self.address.0, other.address.0)
            && agree(self.address.1, other.address.1)
            && agree(self.address.2, other.address.2)
    }

    fn merge(&mut self, other: Self) {
        self.kind = self.kind.or(other.kind);
        self.may_serve |= other.may_serve;
        self.service = self.service.or(other.service);
        let (v4, v6, port) = other.address;
        self.address = (self.address.0.or(v4), self.address.1.or(v6), self.address.2.or(port));
        self.remote = self.remote.or(other.remote);
        self.error |= other.error;
        if self.parent.is_zero() {
            self.parent = other.parent;
        }
    }
}

/// All spans of the trace, client halves before server halves, partial reports
/// merged, flags that the halves of a shared span should have had filled in.
fn merged(trace: &Batch) -> Vec<Node<'_>> {
    let mut all: Vec<Node<'_>> = trace.spans.iter().map(|s| Node::new(trace, s)).collect();
    all.sort_by_key(|n| {
        let order = u8::from(n.shared) * 2 + u8::from(n.kind != Some(Kind::Client) && !n.shared);
        (n.id, order, n.service.is_some(), n.service, n.address.0, n.address.1)
    });
    let mut out: Vec<Node<'_>> = Vec::with_capacity(all.len());
    for mut node in all {
        let Some(last) = out.last_mut() else {
            out.push(node);
            continue;
        };
        if last.takes(&node) {
            last.merge(node);
            continue;
        }
        if last.id == node.id {
            node.shared |= last.kind == Some(Kind::Client) && node.kind == Some(Kind::Server);
            if node.shared && node.parent.is_zero() {
                node.parent = last.parent;
            }
        }
        out.push(node);
    }
    out
}

/// Parents and children by position in the nodes.
struct Tree {
    root: Option<usize>,
    parent: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
    /// Breadth first from the root; spans in a cycle are not reached.
    order: Vec<usize>,
}

impl Tree {
    fn new(nodes: &[Node<'_>]) -> Self {
        let mut by_id: HashMap<SpanId, usize> = HashMap::new();
        let mut shared: HashMap<(SpanId, Option<&str>), usize> = HashMap::new();
        for (at, node) in nodes.iter().enumerate() {
            if node.shared {
                shared.insert((node.id, node.service), at);
                shared.insert((node.id, None), at);
            } else {
                by_id.insert(node.id, at);
            }
        }
        let root = nodes.iter().position(|n| n.parent.is_zero() && !n.shared);
        let mut parent = vec![None; nodes.len()];
        let mut children = vec![Vec::new(); nodes.len()];
        let mut tops = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            if Some(at) == root {
                continue;
            }
            let found = if node.shared {
                by_id.get(&node.id).copied().or_else(|| by_id.get(&node.parent).copied())
            } else {
                // A child that does not say whose it is belongs to the caller.
                node.service
                    .and_then(|_| shared.get(&(node.parent, node.service)).copied())
                    .or_else(|| by_id.get(&node.parent).copied())
                    .or_else(|| shared.get(&(node.parent, None)).copied())
            };
            match found.filter(|&p| p != at).or(root) {
                Some(p) => {
                    parent[at] = Some(p);
                    children[p].push(at);
                }
                None => tops.push(at),
            }
        }
        let mut queue: VecDeque<usize> = root.into_iter().chain(tops).collect();
        let mut order = Vec::with_capacity(nodes.len());
        while let Some(at) = queue.pop_front() {
            order.push(at);
            queue.extend(children[at].iter().copied());
        }
        Self { root, parent, children, order }
    }

    /// Datadog's tracers (that of Envoy always) leave the kind out. Such a span
    /// is a server's if it was called from outside; others of its type are
    /// steps inside of a service.
    fn name_servers(&self, nodes: &mut [Node<'_>]) {
        for at in 0..nodes.len() {
            let outside = self.parent[at].is_none_or(|p| nodes[p].service != nodes[at].service);
            if nodes[at].may_serve && nodes[at].kind.is_none() && outside {
                nodes[at].kind = Some(Kind::Server);
            }
        }
    }

    /// The nearest ancestor that takes part in calls. Only called for spans
    /// that the root reaches, whose ancestors therefore end.
    fn remote_ancestor(&self, nodes: &[Node<'_>], at: usize) -> Option<usize> {
        let mut next = self.parent[at];
        while let Some(p) = next {
            if nodes[p].kind.is_some() {
                return Some(p);
            }
            next = self.parent[p];
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::{Draft, batch};
    use SpanKind::{Client, Consumer, Producer, Server, Unspecified};

    /// (id, parent, kind, service, remote, error)
    type Row = (u64, u64, SpanKind, &'static str, &'static str, bool);

    fn links(rows: &[Row]) -> Vec<(String, String, u64, u64, u64)> {
        let drafts: Vec<Draft> = rows
            .iter()
            .map(|&(id, parent, kind, service, remote, error)| {
                let mut d = Draft::new(1, id).parent(parent).kind(kind).service(service).error(error);
                if !remote.is_empty() {
                    d = d.tag(crate::keys::PEER_SERVICE, remote);
                }
                d.start(100 + i64::try_from(id).unwrap())
            })
            .collect();
        let mut sum = Links::default();
        sum.add_trace(&batch(&drafts), TimeRange::ALL);
        sum.finish().into_iter().map(|d| (d.parent, d.child, d.calls, d.errors, d.implied)).collect()
    }

    fn plain(parent: &str, child: &str) -> (String, String, u64, u64, u64) {
        (parent.into(), child.into(), 1, 0, 0)
    }

    #[test]
    fn a_call_reported_by_both_sides_counts_once_and_fails_with_either() {
        for errors in [(true, false), (false, true)] {
            let got = links(&[
                (1, 0, Server, "web", "", false),
                (2, 1, Client, "web", "db-proxy", errors.0),
                (3, 2, Server, "app", "", errors.1),
            ]);
            assert_eq!(got, [("web".into(), "app".into(), 1, 1, 0)]);
        }
    }

    #[test]
    fn a_peer_that_reports_nothing_is_linked_by_its_name() {
        let got = links(&[
            (1, 0, Server, "web", "mobile", false),
            (2, 1, Unspecified, "web", "", false),
            (3, 2, Client, "web", "mysql", false),
        ]);
        assert_eq!(got, [plain("mobile", "web"), plain("web", "mysql")]);
    }

    #[test]
    fn a_client_under_another_name_gets_the_missing_link() {
        let got = links(&[(1, 0, Server, "web", "", false), (2, 1, Client, "redis", "", false)]);
        assert_eq!(got, [plain("web", "redis")]);
    }

    #[test]
    fn messages_go_over_their_broker_and_without_one_are_implied() {
        let got = links(&[
            (1, 0, Producer, "orders", "kafka", false),
            (2, 1, Consumer, "mailer", "kafka", false),
            (3, 1, Consumer, "audit", "", false),
        ]);
        assert_eq!(
            got,
            [plain("kafka", "mailer"), ("orders".into(), "audit".into(), 0, 0, 1), plain("orders", "kafka")]
        );
    }

    #[test]
    fn spans_without_kind_imply_a_call_only_between_services() {
        let got = links(&[
            (1, 0, Unspecified, "a", "", false),
            (2, 1, Unspecified, "a", "", false),
            (3, 2, Unspecified, "b", "", false),
            (4, 99, Unspecified, "c", "", false),
        ]);
        assert_eq!(got, [("a".into(), "b".into(), 0, 0, 1)]);
    }

    #[test]
    fn halves_of_a_shared_span_are_one_call_with_or_without_the_flag() {
        let got = links(&[
            (1, 0, Server, "web", "", false),
            (2, 1, Client, "web", "billing", false),
            (2, 1, Server, "billing", "", false),
            (3, 2, Client, "billing", "bank", false),
        ]);
        assert_eq!(got, [plain("billing", "bank"), plain("web", "billing")]);
    }

    #[test]
    fn cycles_end_and_headless_traces_still_link() {
        assert!(links(&[(1, 2, Server, "a", "", false), (2, 1, Server, "b", "", false)]).is_empty());
        let got = links(&[(2, 1, Client, "a", "x", false), (3, 2, Server, "b", "", false)]);
        assert_eq!(got, [plain("a", "b")]);
    }

    #[test]
    fn proxies_that_do_not_say_their_kind_take_part() {
        let datadog =
            |id, parent, service| Draft::new(1, id).parent(parent).service(service).span_type("web");
        let drafts = [
            datadog(1, 0, "edge"),
            datadog(2, 1, "shop").kind(Server),
            // A step of a framework.
            datadog(3, 2, "shop"),
            datadog(4, 3, "shop").kind(Client),
            datadog(5, 4, "proxy"),
            datadog(6, 5, "bank").kind(Server),
        ];
        let mut sum = Links::default();
        sum.add_trace(&batch(&drafts), TimeRange::ALL);
        let calls: Vec<_> =
            sum.finish().into_iter().map(|d| (d.parent, d.child, d.calls, d.implied)).collect();
        let call = |a: &str, b: &str| (a.to_owned(), b.to_owned(), 1, 0);
        assert_eq!(calls, [call("edge", "shop"), call("proxy", "bank"), call("shop", "proxy")]);
    }

    #[test]
    fn a_trace_counts_whole_if_it_reaches_into_the_range() {
        let drafts = [
            Draft::new(1, 1).kind(Server).service("a").start(10),
            Draft::new(1, 2).parent(1).kind(Client).service("a").tag("peer.service", "x").start(10),
            Draft::new(1, 3).parent(1).kind(Client).service("a").tag("peer.service", "y").start(20),
        ];
        let calls = |start, end| {
            let mut sum = Links::default();
            sum.add_trace(&batch(&drafts), TimeRange { start, end });
            sum.finish().len()
        };
        assert_eq!((calls(15, 20), calls(11, 19)), (2, 0));
    }
}
