//! Damaged payloads: real bodies, changed by a fixed pseudo-random sequence.
//! Whatever is still taken must be a valid batch that every encoder can write
//! and every decoder reads back.

use super::helpers::*;
use bytes::Bytes;
use spanloom_codec::thrift::Encoding;
use spanloom_codec::{DecodeError, jaeger, otlp, zipkin};
use spanloom_model::Batch;

/// xorshift64*: the same damage in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }
}

/// Bytes that change the course of one decoder or another.
const TELLING: &[u8] = b"\x00\x01\x08\x0a\x0b\x0c\x0f\x12\x7f\x80\xff{}[]\",:\\-0.eE";

fn damage(body: &[u8], random: &mut Random) -> Vec<u8> {
    let mut body = body.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(body.len());
        match random.below(6) {
            0 => body.truncate(at),
            1 if !body.is_empty() => body[at] = TELLING[random.below(TELLING.len())],
            2 if !body.is_empty() => body[at] ^= 1 << random.below(8),
            3 => body.insert(at.min(body.len()), TELLING[random.below(TELLING.len())]),
            4 => {
                let end = (at + random.below(16)).min(body.len());
                body.drain(at.min(end)..end);
            }
            _ => {
                // A piece of the body once more, elsewhere.
                let end = (at + random.below(64)).min(body.len());
                let piece = body[at.min(end)..end].to_vec();
                let to = random.below(body.len() + 1);
                body.splice(to..to, piece);
            }
        }
    }
    body
}

fn check(batch: &Batch) {
    check_invariants(batch);
    let mut out = Vec::new();
    zipkin::encode_json_v2(batch, &mut out);
    assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
    assert_eq!(zipkin::decode_json_v2(out.into(), intake()).unwrap().spans.len(), batch.spans.len());
    let mut out = Vec::new();
    zipkin::encode_proto(batch, &mut out);
    assert_eq!(zipkin::decode_proto(out.into(), intake()).unwrap().spans.len(), batch.spans.len());
    let mut out = Vec::new();
    otlp::encode_json(batch, &mut out);
    assert_eq!(otlp::decode_json(out.into(), intake()).unwrap().batch.spans.len(), batch.spans.len());
    assert_eq!(
        otlp::decode_proto(to_otlp_proto(batch), intake()).unwrap().batch.spans.len(),
        batch.spans.len()
    );
    let mut out = Vec::new();
    jaeger::encode_proto(batch, &mut out);
    assert_eq!(jaeger::decode_grpc(out.into(), intake()).unwrap().batch.spans.len(), batch.spans.len());
    for body in jaeger::encode_emit_batch(batch, Encoding::Compact) {
        jaeger::decode_udp_compact(body.into(), intake()).unwrap();
    }
}

fn mutate(format: &str, turns: usize, decode: impl Fn(Bytes) -> Result<Batch, DecodeError>) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut taken, mut refused) = (0, 0);
    for c in captured(format).iter().filter(|c| c.body.len() < 40_000) {
        check(&decode(c.body.clone()).unwrap());
        for _ in 0..turns {
            match decode(damage(&c.body, &mut random).into()) {
                Ok(batch) => {
                    taken += 1;
                    // Checking takes longer than decoding.
                    if taken % 8 == 0 {
                        check(&batch);
                    }
                }
                Err(e) => {
                    refused += 1;
                    assert!(!e.to_string().is_empty());
                }
            }
        }
    }
    assert!(taken > 0 && refused > 0, "{format}: {taken} taken, {refused} refused");
}

#[test]
fn damaged_otlp_requests_do_no_harm() {
    mutate("otlp-protobuf", 150, |b| otlp::decode_proto(b, intake()).map(|d| d.batch));
    mutate("otlp-json", 300, |b| otlp::decode_json(b, intake()).map(|d| d.batch));
}

#[test]
fn damaged_zipkin_requests_do_no_harm() {
    mutate("zipkin-v2-json", 80, |b| zipkin::decode_json_v2(b, intake()));
    mutate("zipkin-v2-protobuf", 80, |b| zipkin::decode_proto(b, intake()));
    mutate("zipkin-v1-thrift", 80, |b| zipkin::decode_thrift(b, intake()));
}

#[test]
fn damaged_jaeger_requests_do_no_harm() {
    mutate("jaeger-thrift-binary-udp", 300, |b| jaeger::decode_udp_binary(b, intake()).map(|d| d.batch));
    mutate("jaeger-thrift-compact", 200, |b| jaeger::decode_udp_compact(b, intake()).map(|d| d.batch));
    for c in captured("jaeger-thrift-compact").iter().take(1) {
        let batch = jaeger::decode_udp_compact(c.body.clone(), intake()).unwrap().batch;
        let mut random = Random(7);
        let (mut thrift, mut proto) = (jaeger::encode_thrift(&batch).remove(0), Vec::new());
        jaeger::encode_proto(&batch, &mut proto);
        for _ in 0..500 {
            if let Ok(d) = jaeger::decode_thrift_http(damage(&thrift, &mut random).into(), intake()) {
                check_invariants(&d.batch);
            }
            if let Ok(d) = jaeger::decode_grpc(damage(&proto, &mut random).into(), intake()) {
                check_invariants(&d.batch);
            }
        }
        thrift.clear();
        assert!(jaeger::decode_thrift_http(thrift.into(), intake()).is_err());
    }
}
