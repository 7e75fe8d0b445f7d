//! A trace put together: who called whom, what is missing, where the time went.

use spanloom_model::{Batch, SpanId, SpanKind, flags};
use std::collections::{HashMap, HashSet};

/// A span in the tree. Positions are those of [`Batch::spans`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Parent, if it arrived.
    pub parent: Option<usize>,
    /// Children, oldest first.
    pub children: Vec<usize>,
    /// Steps from the root.
    pub depth: usize,
    /// The span names a parent that did not arrive.
    pub orphan: bool,
    /// Time in nanoseconds during which no child ran.
    pub self_time: i64,
    /// Time in nanoseconds that the span itself contributes to the length of
    /// its tree; 0: not on the critical path.
    pub critical: i64,
}

/// All spans of a trace as a forest. A cycle of parents is cut at its oldest
/// span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// One for each span of the batch.
    pub nodes: Vec<Node>,
    /// Spans without parent or whose parent did not arrive, oldest first.
    pub roots: Vec<usize>,
    /// Ids of parents that did not arrive, each once, in order of appearance.
    pub missing: Vec<SpanId>,
    /// Positions in the order of a waterfall: parents before children,
    /// siblings oldest first.
    pub order: Vec<usize>,
}

impl Tree {
    /// Puts the spans of one trace together. Where client and server halves
    /// share an id, the server half lies below the client half, and children
    /// below the half of their own service, else below the server half.
    pub fn new(trace: &Batch) -> Self {
        let mut tree = Self { nodes: vec![Node::default(); trace.spans.len()], ..Self::default() };
        tree.link(trace);
        let by_start = |at: &usize| (trace.spans.get(*at).map(|s| s.start), *at);
        for node in &mut tree.nodes {
            node.children.sort_by_key(by_start);
        }
        tree.roots.sort_by_key(by_start);
        tree.walk(trace, by_start);
        for at in 0..tree.nodes.len() {
            tree.nodes[at].self_time = tree.self_time(trace, at);
        }
        for root in tree.roots.clone() {
            tree.critical_path(trace, root);
        }
        tree
    }

    fn link(&mut self, trace: &Batch) {
        // The first span of each id in every role that matters: looked up, not
        // searched, as a hostile trace may repeat one id for ever.
        let mut any: HashMap<SpanId, (usize, u32)> = HashMap::with_capacity(trace.spans.len());
        let mut clients: HashMap<SpanId, usize> = HashMap::new();
        let mut others: HashMap<SpanId, usize> = HashMap::new();
        let mut by_service: HashMap<(SpanId, &str), usize> = HashMap::new();
        for (at, span) in trace.spans.iter().enumerate() {
            let id = span.span_id;
            any.entry(id).or_insert((at, 0)).1 += 1;
            let role = if span.kind == SpanKind::Client { &mut clients } else { &mut others };
            role.entry(id).or_insert(at);
            by_service.entry((id, trace.str(span.service))).or_insert(at);
        }
        let mut missing = HashSet::new();
        for (at, span) in trace.spans.iter().enumerate() {
            let repeated = any.get(&span.span_id).is_some_and(|(_, n)| *n > 1);
            let server_half = repeated
                && (span.flags & flags::SHARED != 0 || span.kind == SpanKind::Server)
                && span.kind != SpanKind::Client;
            let own_half = clients.get(&span.span_id).copied().filter(|_| server_half);
            let parent = own_half.or_else(|| {
                let id = span.parent_id;
                by_service
                    .get(&(id, trace.str(span.service)))
                    .or_else(|| others.get(&id))
                    .or_else(|| any.get(&id).map(|(at, _)| at))
                    .copied()
            });
            match parent.filter(|p| *p != at) {
                Some(p) => {
                    self.nodes[at].parent = Some(p);
                    self.nodes[p].children.push(at);
                }
                None => {
                    if !span.parent_id.is_zero() && !any.contains_key(&span.parent_id) {
                        self.nodes[at].orphan = true;
                        if missing.insert(span.parent_id) {
                            self.missing.push(span.parent_id);
                        }
                    }
                    self.roots.push(at);
                }
            }
        }
    }

    /// Depths and order; cuts cycles, which no root reaches.
    fn walk(&mut self, trace: &Batch, by_start: impl Fn(&usize) -> (Option<i64>, usize)) {
        let mut seen = vec![false; self.nodes.len()];
        let mut starts = self.roots.clone();
        let mut rest: Vec<usize> = (0..trace.spans.len()).collect();
        rest.sort_by_key(&by_start);
        let known = starts.len();
        starts.extend(rest);
        for (i, start) in starts.into_iter().enumerate() {
            if seen[start] {
                continue;
            }
            if i >= known {
                if let Some(parent) = self.nodes[start].parent.take() {
                    self.nodes[parent].children.retain(|c| *c != start);
                }
                self.roots.push(start);
            }
            let mut stack = vec![(start, 0)];
            while let Some((at, depth)) = stack.pop() {
                if std::mem::replace(&mut seen[at], true) {
                    continue;
                }
                self.nodes[at].depth = depth;
                self.order.push(at);
                stack.extend(self.nodes[at].children.iter().rev().map(|c| (*c, depth + 1)));
            }
        }
    }

    /// Duration without the parts covered by children.
    fn self_time(&self, trace: &Batch, at: usize) -> i64 {
        let span = &trace.spans[at];
        let (mut free, mut from) = (0i64, span.start);
        // Children are sorted by start.
        for &child in &self.nodes[at].children {
            let child = &trace.spans[child];
            let (start, end) = (child.start.clamp(span.start, span.end()), child.end().min(span.end()));
            free = free.saturating_add(start.saturating_sub(from).max(0));
            from = from.max(end);
        }
        free.saturating_add(span.end().saturating_sub(from).max(0))
    }

    /// Goes back from the end of the root: the child that ended last before
    /// the moment was what the parent waited for.
    fn critical_path(&mut self, trace: &Batch, root: usize) {
        // (span, moment up to which it counts)
        let mut stack = vec![(root, trace.spans[root].end())];
        while let Some((at, until)) = stack.pop() {
            let span = &trace.spans[at];
            let mut until = until.min(span.end());
            let mut own = 0i64;
            let mut children = self.nodes[at].children.clone();
            children.sort_by_key(|c| (trace.spans[*c].end(), *c));
            while let Some(child) = children.pop() {
                let c = &trace.spans[child];
                // A child that outlives its parent was not waited for to its end.
                let end = c.end().min(until);
                if c.start >= until || c.start < span.start || end <= c.start || c.end() > span.end() {
                    continue;
                }
                if c.end() > until {
                    continue;
                }
                own = own.saturating_add(until.saturating_sub(end));
                stack.push((child, end));
                until = c.start;
            }
            own = own.saturating_add(until.saturating_sub(span.start).max(0));
            self.nodes[at].critical = own;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use spanloom_model::draft::{Draft, batch};

    fn span(id: u64, parent: u64, start: i64, duration: i64) -> Draft {
        Draft::new(1, id).parent(parent).start(start).lasting(duration)
    }

    #[test]
    fn self_time_is_what_children_leave_over() {
        let b = batch(&[span(1, 0, 0, 100), span(2, 1, 10, 30), span(3, 1, 20, 40), span(4, 1, 90, 50)]);
        let t = Tree::new(&b);
        assert_eq!(t.nodes[0].self_time, 10 + 30);
        assert_eq!(t.nodes[1].self_time, 30);
        assert_eq!(t.order, [0, 1, 2, 3]);
        assert_eq!(t.nodes[3].depth, 1);
    }

    #[test]
    fn the_critical_path_adds_up_to_the_length_of_the_root() {
        // 2 and 3 overlap; 3 ends last, so 2 counts only before 3 began.
        let b = batch(&[
            span(1, 0, 0, 100),
            span(2, 1, 10, 20),
            span(3, 1, 40, 50),
            span(4, 3, 50, 10),
            span(5, 1, 45, 20),
        ]);
        let t = Tree::new(&b);
        let critical: Vec<i64> = t.nodes.iter().map(|n| n.critical).collect();
        assert_eq!(critical, [10 + 10 + 10, 20, 40, 10, 0]);
        assert_eq!(critical.iter().sum::<i64>(), 100);
    }

    #[test]
    fn orphans_name_the_missing_parent_once() {
        let t = Tree::new(&batch(&[span(2, 9, 5, 1), span(3, 9, 1, 1), span(4, 3, 1, 1)]));
        assert_eq!(t.missing, [SpanId(9)]);
        assert_eq!(t.roots, [1, 0]);
        assert!(t.nodes[0].orphan && t.nodes[1].orphan && !t.nodes[2].orphan);
    }

    #[test]
    fn halves_of_a_shared_span_lie_below_each_other() {
        let t = Tree::new(&batch(&[
            Draft::new(1, 1).kind(SpanKind::Server).service("web").start(0),
            Draft::new(1, 2).parent(1).kind(SpanKind::Client).service("web").start(1),
            Draft::new(1, 2).parent(1).kind(SpanKind::Server).service("db").start(2),
            Draft::new(1, 3).parent(2).service("db").start(3),
            Draft::new(1, 4).parent(2).service("web").start(4),
        ]));
        let parents: Vec<_> = t.nodes.iter().map(|n| n.parent).collect();
        assert_eq!(parents, [None, Some(0), Some(1), Some(2), Some(1)]);
    }

    proptest! {
        #[test]
        fn every_span_is_in_the_order_once_whatever_the_parents(
            spans in prop::collection::vec((1u64..8, 0u64..8, 0i64..100, 0i64..100, any::<bool>()), 0..40)
        ) {
            let drafts: Vec<Draft> = spans.iter().map(|(id, parent, start, duration, client)| {
                let kind = if *client { SpanKind::Client } else { SpanKind::Server };
                span(*id, *parent, *start, *duration).kind(kind)
            }).collect();
            let t = Tree::new(&batch(&drafts));
            let mut order = t.order.clone();
            order.sort_unstable();
            prop_assert_eq!(order, (0..drafts.len()).collect::<Vec<_>>());
            for (at, node) in t.nodes.iter().enumerate() {
                prop_assert!(node.self_time >= 0 && node.self_time <= drafts[at].duration);
                prop_assert_eq!(node.parent.is_none(), t.roots.contains(&at));
            }
        }
    }
}
