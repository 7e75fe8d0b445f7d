//! Spans of a batch by resource, service and scope. Equal resources of several
//! chunks become one; a process whose spans name two services becomes two.

use super::encode_proto::{write_resource, write_scope};
use crate::view;
use spanloom_model::{Batch, Chunk, Fate, NO_SCOPE, Resource, Scope, Span, Text};
use std::collections::HashMap;

/// Spans of one resource and service.
pub(super) struct Group {
    pub resource: Resource,
    pub service: Text,
    /// The resource as a protobuf message.
    pub encoded: Vec<u8>,
    pub scopes: Vec<ScopeGroup>,
}

/// Spans of one scope.
pub(super) struct ScopeGroup {
    pub scope: Option<Scope>,
    /// The scope as a protobuf message.
    pub encoded: Vec<u8>,
    /// Positions of chunk and span.
    pub spans: Vec<(u32, u32)>,
}

/// Groups the spans of all chunks that are kept, in order of appearance.
pub(super) fn group(batch: &Batch) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // By position first, by content only for positions not seen before.
    let mut by_place: HashMap<(u32, Text), usize> = HashMap::new();
    let mut by_content: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut scope_by_place: HashMap<(usize, u32), usize> = HashMap::new();
    let mut scope_by_content: HashMap<(usize, bool, Vec<u8>), usize> = HashMap::new();
    let mut last = None;
    for (chunk_at, chunk) in batch.chunks.iter().enumerate().filter(|(_, c)| c.fate == Fate::Kept) {
        for (span_at, span) in chunk.spans.usize().zip(batch.chunk_spans(chunk)) {
            let place = (chunk.resource, span.service, span.scope);
            let (g, s) = match last {
                Some((known, at)) if known == place => at,
                _ => {
                    let g = *by_place.entry((chunk.resource, span.service)).or_insert_with(|| {
                        let (resource, encoded) = encode_resource(batch, chunk, span);
                        let mut key = encoded.clone();
                        key.extend_from_slice(batch.arena.bytes(resource.schema_url));
                        *by_content.entry(key).or_insert_with(|| {
                            groups.push(Group {
                                resource,
                                service: span.service,
                                encoded,
                                scopes: Vec::new(),
                            });
                            groups.len() - 1
                        })
                    });
                    let s = *scope_by_place.entry((g, span.scope)).or_insert_with(|| {
                        let scope = view::scope(batch, span).copied();
                        let mut encoded = Vec::new();
                        if let Some(scope) = &scope {
                            write_scope(batch, scope, &mut encoded);
                        }
                        let mut key = encoded.clone();
                        key.extend_from_slice(batch.arena.bytes(scope.unwrap_or_default().schema_url));
                        *scope_by_content.entry((g, span.scope == NO_SCOPE, key)).or_insert_with(|| {
                            groups[g].scopes.push(ScopeGroup { scope, encoded, spans: Vec::new() });
                            groups[g].scopes.len() - 1
                        })
                    });
                    last = Some((place, (g, s)));
                    (g, s)
                }
            };
            groups[g].scopes[s].spans.push((chunk_at as u32, span_at as u32));
        }
    }
    groups
}

fn encode_resource(batch: &Batch, chunk: &Chunk, span: &Span) -> (Resource, Vec<u8>) {
    let resource = view::resource(batch, chunk);
    let mut encoded = Vec::new();
    write_resource(batch, &resource, span.service, &mut encoded);
    (resource, encoded)
}
