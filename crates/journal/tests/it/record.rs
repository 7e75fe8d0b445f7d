use crate::sample::{self, Rng, show};
use bytes::Bytes;
use proptest::prelude::*;
use spanloom_journal::record::{self, Encoder, Rules, View};
use spanloom_model::*;
use std::collections::HashSet;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_batch_comes_back_as_it_went_in(seed: u64) {
        let batch = sample::batch(&mut Rng(seed));
        let encoded = Encoder::with_seed(1).encode(&batch, &mut ());
        let kept: u32 = batch.chunks.iter().filter(|c| c.fate == Fate::Kept).map(|c| c.spans.len() as u32).sum();
        prop_assert_eq!(encoded.spans, kept);
        if kept > 0 {
            let back = record::decode(encoded.bytes.clone()).unwrap();
            prop_assert_eq!(show(&batch), show(&back));
            // Texts are slices of the record: nothing was added to the arena.
            prop_assert_eq!(back.arena.size(), encoded.bytes.len());
        } else {
            prop_assert!(encoded.bytes.is_empty());
        }
    }

    #[test]
    fn an_encoder_used_again_writes_the_same_bytes(seed: u64) {
        let mut rng = Rng(seed);
        let (a, b) = (sample::batch(&mut rng), sample::batch(&mut rng));
        let mut encoder = Encoder::with_seed(1);
        let first = encoder.encode(&a, &mut ());
        encoder.encode(&b, &mut ());
        prop_assert_eq!(first.bytes, encoder.encode(&a, &mut ()).bytes);
    }

    #[test]
    fn one_chunk_can_be_read_alone(seed: u64) {
        let batch = sample::batch(&mut Rng(seed));
        let encoded = Encoder::with_seed(1).encode(&batch, &mut ());
        if encoded.spans == 0 { return Ok(()); }
        let view = View::parse(encoded.bytes.clone()).unwrap();
        let mut heads = Vec::new();
        view.chunks(|h| heads.push(h)).unwrap();
        prop_assert_eq!(&heads, &encoded.chunks);
        let whole = record::decode(encoded.bytes).unwrap();
        for (i, chunk) in whole.chunks.iter().enumerate() {
            let one = view.batch(|n, _| n == i, true).unwrap();
            let mut alone = whole.clone();
            alone.chunks = vec![*chunk];
            prop_assert_eq!(show(&one), show(&alone));
        }
    }
}

/// Hostile bytes: mutations of real records are refused or read, never more
/// (no panic, no table beyond a small multiple of the record).
#[test]
fn mutated_records_are_read_or_refused() {
    let mut rng = Rng(7);
    let mut refused = 0;
    for _ in 0..40 {
        let batch = sample::batch(&mut rng);
        let encoded = Encoder::with_seed(1).encode(&batch, &mut ());
        for _ in 0..400 {
            let mut bytes = encoded.bytes.to_vec();
            if bytes.is_empty() {
                break;
            }
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(5) {
                    0 => bytes.truncate(at + 1),
                    1 => bytes[at] = 0xff,
                    2 => bytes.insert(at, rng.next() as u8),
                    3 => bytes[at] ^= 1 << rng.below(8),
                    _ => {
                        let from = rng.below(bytes.len() as u64) as usize;
                        bytes[at] = bytes[from];
                    }
                }
            }
            let len = bytes.len();
            match record::decode(Bytes::from(bytes)) {
                Ok(b) => {
                    assert!(b.attrs.len() + b.values.len() <= len && b.spans.len() <= len);
                    show(&b);
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 1000, "mutations hardly ever did anything: {refused}");
}

#[test]
fn maps_that_claim_to_nest_for_ever_are_refused_cheaply() {
    // A batch whose map holds a map holds a map …: the deepest come back empty.
    let mut b = Batch::default();
    let key = b.arena.push("k");
    for i in 0..300usize {
        let value = if i == 299 { Value::Int(1) } else { Value::Map(Range32::new(i + 1, i + 2)) };
        b.attrs.push(Attr { key, value });
    }
    b.resources.push(Resource::default());
    b.spans.push(Span {
        trace_id: TraceId(1),
        attrs: Range32::new(0, 1),
        scope: NO_SCOPE,
        ..Span::default()
    });
    b.chunks.push(Chunk { trace_id: TraceId(1), spans: Range32::new(0, 1), ..Chunk::default() });
    let encoded = Encoder::default().encode(&b, &mut ());
    let back = record::decode(encoded.bytes).unwrap();
    assert_eq!(back.attrs.len(), record::MAX_DEPTH + 1);
}

struct Once(HashSet<u64>);
impl Rules for Once {
    fn keep(&mut self, fingerprint: u64) -> bool {
        self.0.insert(fingerprint)
    }
}

#[test]
fn fingerprints_tell_identical_spans_from_similar_ones() {
    let mut rng = Rng(3);
    let mut encoder = Encoder::default();
    let mut once = Once(HashSet::new());
    let mut kept = 0;
    for _ in 0..50 {
        let batch = sample::batch(&mut rng);
        let first = encoder.encode(&batch, &mut once);
        assert_eq!(first.skipped, 0);
        kept += first.spans;
        let again = encoder.encode(&batch, &mut once);
        assert_eq!((again.spans, again.skipped), (0, first.spans));
        assert!(again.bytes.is_empty());
        // The same spans a nanosecond later are others.
        let mut later = batch.clone();
        later.spans.iter_mut().for_each(|s| s.start = s.start.wrapping_add(1));
        assert_eq!(encoder.encode(&later, &mut once).spans, first.spans);
    }
    assert!(kept > 300);
}

#[test]
fn a_batch_with_some_known_spans_keeps_the_others_and_their_parents() {
    let mut rng = Rng(11);
    for _ in 0..100 {
        let batch = sample::batch(&mut rng);
        let mut part = batch.clone();
        for chunk in &mut part.chunks {
            chunk.spans.end -= chunk.spans.len() as u32 / 2;
        }
        let mut encoder = Encoder::default();
        let mut once = Once(HashSet::new());
        let first = encoder.encode(&part, &mut once);
        let rest = encoder.encode(&batch, &mut once);
        let mut got: Vec<String> = Vec::new();
        for bytes in [first.bytes, rest.bytes] {
            if !bytes.is_empty() {
                let b = record::decode(bytes).unwrap();
                got.extend(b.spans.iter().map(|s| sample::show_span(&b, s)));
            }
        }
        let mut want: Vec<String> = batch
            .chunks
            .iter()
            .filter(|c| c.fate == Fate::Kept)
            .flat_map(|c| batch.chunk_spans(c))
            .map(|s| sample::show_span(&batch, s))
            .collect();
        got.sort();
        want.sort();
        assert_eq!(got, want);
    }
}

#[test]
fn a_record_of_a_newer_version_says_so() {
    assert_eq!(record::decode(Bytes::from_static(&[9, 0, 0])).unwrap_err(), record::RecordError::Newer(9));
}

#[test]
fn text_that_is_not_utf8_is_cut_rather_than_spoiling_the_record() {
    let mut b = Batch::default();
    b.resources.push(Resource::default());
    let name = b.arena.push_bytes(b"ok\xff\xfe");
    let service = b.arena.push("service");
    b.spans.push(Span { trace_id: TraceId(1), name, service, scope: NO_SCOPE, ..Span::default() });
    b.chunks.push(Chunk { trace_id: TraceId(1), spans: Range32::new(0, 1), ..Chunk::default() });
    let back = record::decode(Encoder::default().encode(&b, &mut ()).bytes).unwrap();
    assert_eq!((back.str(back.spans[0].name), back.str(back.spans[0].service)), ("ok", "service"));
}
