//! v0.7: one payload that describes its sender, around spans as in v0.4.

use super::builder::{Builder, MAX_GENERATED};
use super::v04;
use crate::msgpack::{Reader, Result};
use spanloom_model::{Chunk, Resource};

pub(super) fn decode(b: &mut Builder, body: &[u8]) -> Result<()> {
    let mut r = Reader::new(body);
    let mut resource = Resource::default();
    for _ in 0..r.map(MAX_GENERATED)? {
        match r.key()? {
            b"container_id" => resource.container_id = b.strict_text(&mut r)?,
            b"language_name" => resource.language_name = b.strict_text(&mut r)?,
            b"language_version" => resource.language_version = b.strict_text(&mut r)?,
            b"tracer_version" => resource.tracer_version = b.strict_text(&mut r)?,
            b"runtime_id" => resource.runtime_id = b.strict_text(&mut r)?,
            b"env" => resource.env = b.strict_text(&mut r)?,
            b"hostname" => resource.hostname = b.strict_text(&mut r)?,
            b"app_version" => resource.app_version = b.strict_text(&mut r)?,
            b"tags" => resource.attrs = b.string_map(&mut r)?,
            b"chunks" => {
                // The last array counts.
                b.batch.chunks.clear();
                b.batch.spans.clear();
                for i in 0..r.array(MAX_GENERATED)? {
                    b.chunk = i;
                    if !r.nil() {
                        chunk(b, &mut r)?;
                    }
                }
            }
            _ => r.skip()?,
        }
    }
    b.batch.resources.push(resource);
    b.join_ids();
    Ok(())
}

fn chunk(b: &mut Builder, r: &mut Reader<'_>) -> Result<()> {
    // A missing priority is 0 here, not "none".
    let mut said = Chunk { priority: 0, ..Chunk::default() };
    let first = b.batch.spans.len();
    let mut has_spans = false;
    for _ in 0..r.map(MAX_GENERATED)? {
        match r.key()? {
            b"priority" => said.priority = r.int32()?,
            b"origin" => said.origin = b.strict_text(r)?,
            b"tags" => said.attrs = b.string_map(r)?,
            b"dropped_trace" => said.dropped = r.bool()?,
            b"spans" => {
                if std::mem::replace(&mut has_spans, true) {
                    // The last array counts.
                    b.batch.chunks.pop();
                    b.batch.spans.truncate(first);
                }
                v04::spans_of_chunk(b, r, Chunk::default())?;
            }
            _ => r.skip()?,
        }
    }
    if !has_spans {
        b.close_chunk(first, b.tids_seen(), Chunk::default())?;
    }
    if let Some(chunk) = b.batch.chunks.last_mut() {
        *chunk = Chunk { spans: chunk.spans, trace_id: chunk.trace_id, ..said };
    }
    Ok(())
}
