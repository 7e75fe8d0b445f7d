//! Ids that client and server halves of a span share (B3, Zipkin) made unique.

use super::Row;
use spanloom_model::{Batch, SpanId, SpanKind};
use std::collections::{HashMap, HashSet};

/// New ids of the server halves.
pub(super) struct Ids {
    /// Position of a server half and its new id.
    renamed: Vec<(usize, SpanId)>,
    /// Shared id → position of its first server half.
    halves: HashMap<SpanId, usize>,
}

impl Ids {
    pub(super) fn new(rows: &[Row<'_>]) -> Self {
        let mut used: HashSet<SpanId> = HashSet::with_capacity(rows.len());
        let mut clients: HashSet<SpanId> = HashSet::new();
        let mut shared = false;
        for row in rows {
            shared |= !used.insert(row.id);
            if row.span.kind == SpanKind::Client {
                clients.insert(row.id);
            }
        }
        let mut ids = Self { renamed: Vec::new(), halves: HashMap::new() };
        if !shared {
            return ids;
        }
        let mut next = 0u64;
        for (at, row) in rows.iter().enumerate() {
            if row.span.kind == SpanKind::Server && clients.contains(&row.id) {
                // At most one id more is taken than there are spans.
                next += 1;
                while used.contains(&SpanId(next)) {
                    next += 1;
                }
                ids.renamed.push((at, SpanId(next)));
                ids.halves.entry(row.id).or_insert(at);
            }
        }
        ids
    }

    /// Whether no id is shared.
    pub(super) const fn is_empty(&self) -> bool {
        self.renamed.is_empty()
    }

    /// Server halves become children of their client half. Children of the
    /// shared id go below the server half of their own service; those of no
    /// half's service below the first; those of the client's service stay.
    pub(super) fn apply(&self, trace: &Batch, rows: &mut [Row<'_>]) {
        if self.is_empty() {
            return;
        }
        let new_id: HashMap<usize, SpanId> = self.renamed.iter().copied().collect();
        let mut client_services: HashMap<SpanId, &str> = HashMap::new();
        for row in rows.iter().filter(|r| r.span.kind == SpanKind::Client) {
            if self.halves.contains_key(&row.id) {
                client_services.insert(row.id, trace.str(row.span.service));
            }
        }
        // Looked up, not searched: a hostile trace may repeat one id for ever.
        let mut by_service: HashMap<(SpanId, &str), usize> = HashMap::new();
        for (at, _) in self.renamed.iter().rev() {
            by_service.insert((rows[*at].id, trace.str(rows[*at].span.service)), *at);
        }
        let moves: Vec<(usize, SpanId)> = rows
            .iter()
            .enumerate()
            .filter(|(at, _)| !new_id.contains_key(at))
            .filter_map(|(at, row)| {
                let first = self.halves.get(&row.parent)?;
                let service = trace.str(row.span.service);
                let own = by_service.get(&(row.parent, service));
                if own.is_none() && client_services.get(&row.parent) == Some(&service) {
                    return None;
                }
                Some((at, *new_id.get(own.unwrap_or(first))?))
            })
            .collect();
        for (at, parent) in moves {
            rows[at].parent = parent;
        }
        for (at, id) in &self.renamed {
            rows[*at].parent = rows[*at].id;
            rows[*at].id = *id;
        }
    }
}
