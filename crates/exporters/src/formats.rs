//! The formats of backends that policies name: Zipkin, OTLP, a Datadog Agent.
//! How an item looks while it waits is part of the queue's format on disk.

use crate::outlet::Format;
use crate::spool::{Pending, Request};
use bytes::Bytes;
use spanloom_codec::datadog::from_otlp::{OtlpOptions, to_datadog};
use spanloom_codec::{datadog, otlp, zipkin};
use spanloom_model::{Batch, Fate};
use std::io::Write;

/// Path of OTLP over gRPC.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Zipkin v2 as JSON. An item is a list.
pub struct ZipkinJson;

/// Zipkin v2 as protobuf. Items are lists that can be strung together.
pub struct ZipkinProto;

/// OTLP as protobuf. Items are requests that can be strung together.
pub struct OtlpProto {
    /// Over gRPC instead of HTTP.
    pub grpc: bool,
}

/// v0.4 for a Datadog Agent. An item is the number of traces, then the traces
/// without the head of their list. Spans of other protocols are translated.
#[derive(Default)]
pub struct DatadogV04 {
    /// How.
    pub translation: OtlpOptions,
}

fn spans(batch: &Batch) -> u64 {
    batch.chunks.iter().filter(|c| c.fate == Fate::Kept).map(|c| c.spans.len() as u64).sum()
}

fn gzip(body: &[u8]) -> std::io::Result<Bytes> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body)?;
    Ok(gzip.finish()?.into())
}

fn request(path: &str, headers: &[(&str, &str)], items: u64, body: Bytes) -> Request {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Request { urgent: false, path: path.into(), headers, items, body }
}

impl Format for ZipkinJson {
    fn name(&self) -> &'static str {
        "zipkin"
    }

    fn encode(&self, batch: &Batch, out: &mut Vec<u8>) -> u64 {
        let n = spans(batch);
        if n > 0 {
            zipkin::encode_json_v2(batch, out);
        }
        n
    }

    fn pack(&self, pending: &Pending) -> std::io::Result<Request> {
        let size = pending.payloads.iter().map(|p| p.len() + 1).sum::<usize>();
        let mut body = Vec::with_capacity(size + 1);
        body.push(b'[');
        for (i, item) in pending.payloads.iter().enumerate() {
            if i > 0 {
                body.push(b',');
            }
            // Without its brackets.
            body.extend_from_slice(item.get(1..item.len().saturating_sub(1)).unwrap_or_default());
        }
        body.push(b']');
        let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
        Ok(request("", &headers, pending.items, gzip(&body)?))
    }
}

impl Format for ZipkinProto {
    fn name(&self) -> &'static str {
        "zipkin"
    }

    fn encode(&self, batch: &Batch, out: &mut Vec<u8>) -> u64 {
        zipkin::encode_proto(batch, out);
        spans(batch)
    }

    fn pack(&self, pending: &Pending) -> std::io::Result<Request> {
        let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")];
        Ok(request("", &headers, pending.items, gzip(&pending.payloads.concat())?))
    }
}

impl Format for OtlpProto {
    fn name(&self) -> &'static str {
        "otlp"
    }

    fn encode(&self, batch: &Batch, out: &mut Vec<u8>) -> u64 {
        otlp::encode_proto(batch, out);
        spans(batch)
    }

    fn pack(&self, pending: &Pending) -> std::io::Result<Request> {
        let message = pending.payloads.concat();
        if !self.grpc {
            let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")];
            return Ok(request("", &headers, pending.items, gzip(&message)?));
        }
        let mut body = Vec::with_capacity(message.len() + 5);
        body.push(0);
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        let headers = [("Content-Type", "application/grpc"), ("TE", "trailers")];
        Ok(request(GRPC_PATH, &headers, pending.items, body.into()))
    }
}

impl Format for DatadogV04 {
    fn name(&self) -> &'static str {
        "datadog-agent"
    }

    fn encode(&self, batch: &Batch, out: &mut Vec<u8>) -> u64 {
        let n = spans(batch);
        if n == 0 {
            return 0;
        }
        let mut copy = if batch.intake.protocol.is_datadog() {
            batch.part(|c| c.fate == Fate::Kept)
        } else {
            to_datadog(batch, &self.translation, "").batch
        };
        datadog::prepare_v04(&mut copy);
        let body = datadog::encode_v04(&copy);
        let head = match body.first() {
            Some(0xdc) => 3,
            Some(0xdd) => 5,
            _ => 1,
        };
        out.extend((copy.chunks.len() as u32).to_be_bytes());
        out.extend_from_slice(body.get(head..).unwrap_or_default());
        n
    }

    fn pack(&self, pending: &Pending) -> std::io::Result<Request> {
        let mut traces = 0u32;
        let mut body = vec![0xdd, 0, 0, 0, 0];
        for item in &pending.payloads {
            // What is too short was damaged; an empty item says nothing.
            let Some((count, rest)) = item.split_first_chunk::<4>() else { continue };
            traces = traces.saturating_add(u32::from_be_bytes(*count));
            body.extend_from_slice(rest);
        }
        body[1..5].copy_from_slice(&traces.to_be_bytes());
        let headers = [
            ("Content-Type", "application/msgpack"),
            ("Datadog-Meta-Lang", "spanloom"),
            ("X-Datadog-Trace-Count", &traces.to_string()),
        ];
        Ok(request("/v0.4/traces", &headers, pending.items, body.into()))
    }
}
