//! Damaged payloads: real bodies, changed by a fixed pseudo-random sequence.

use super::check::check;
use super::helpers::*;
use spanloom_codec::datadog::{Encoding, decode_stats};
use spanloom_model::Protocol;
use std::path::{Path, PathBuf};

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

/// First bytes of values that change the course of a decoder.
const TAGS: [u8; 24] = [
    0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xc4, 0xc7, 0xca, 0xcb, 0xcf, 0xd3,
    0xd9, 0xdb, 0xdc, 0xdd, 0xdf, 0xe0, 0xff,
];

fn damage(body: &[u8], random: &mut Random) -> Vec<u8> {
    let mut body = body.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(body.len());
        match random.below(6) {
            0 => body.truncate(at),
            1 if !body.is_empty() => body[at] = TAGS[random.below(TAGS.len())],
            2 if !body.is_empty() => body[at] ^= 1 << random.below(8),
            3 => body.insert(at.min(body.len()), TAGS[random.below(TAGS.len())]),
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

fn bodies(dir: &Path, suffix: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bodies(&path, suffix, found);
        } else if path.to_string_lossy().ends_with(suffix) && path.metadata().unwrap().len() < 40_000 {
            found.push(path);
        }
    }
    found.sort();
}

#[test]
fn damaged_trace_payloads_are_refused_or_give_a_sound_batch() {
    let mut files = Vec::new();
    for (dir, suffix) in [
        ("golden-agent/own/bodies", ".bin"),
        ("golden-agent/random/bodies", "0.bin"),
        ("envoy", "-root.body"),
        ("python-ddtrace-4", "-traces.bin"),
        ("node-dd-trace", "-traces.bin"),
        ("python-ddtrace-2", "-v05-traces.bin"),
    ] {
        bodies(&fixtures().join(dir), suffix, &mut files);
    }
    assert!(files.len() > 60, "only {} bodies found", files.len());
    let mut random = Random(0x5ba7_100d);
    let (mut fine, mut refused) = (0, 0);
    for file in files {
        let body = read(&file);
        for round in 0..40 {
            let body = if round == 0 { body.clone() } else { damage(&body, &mut random) };
            for (protocol, encoding) in [
                (Protocol::DatadogV04, Encoding::Msgpack),
                (Protocol::DatadogV05, Encoding::Msgpack),
                (Protocol::DatadogV07, Encoding::Msgpack),
                (Protocol::DatadogV1, Encoding::Msgpack),
                (Protocol::DatadogV04, Encoding::Json),
                (Protocol::DatadogV01, Encoding::Json),
            ] {
                match decode_as(protocol, encoding, &body) {
                    Ok(batch) => {
                        check(&batch);
                        fine += 1;
                    }
                    Err(e) => {
                        assert!(!e.to_string().is_empty());
                        refused += 1;
                    }
                }
            }
        }
    }
    // Both outcomes must really occur, or the damage tests nothing.
    assert!(fine > 500 && refused > 5000, "{fine} decoded, {refused} refused");
}

#[test]
fn damaged_stats_payloads_are_refused_or_decoded() {
    let mut files = Vec::new();
    for dir in ["python-ddtrace-2", "python-ddtrace-3", "python-ddtrace-4", "node-dd-trace"] {
        bodies(&fixtures().join(dir), "-v06-stats.bin", &mut files);
    }
    assert!(files.len() >= 6);
    let mut random = Random(77);
    let mut refused = 0;
    for file in files {
        let body = read(&file);
        for _ in 0..300 {
            refused += usize::from(decode_stats(&damage(&body, &mut random)).is_err());
        }
    }
    assert!(refused > 300);
}

#[test]
fn a_payload_cut_at_any_byte_says_that_it_ended_early() {
    let dir = fixtures();
    for (protocol, file) in [
        (Protocol::DatadogV04, "golden-agent/own/bodies/meta-struct-links-events-00.bin"),
        (Protocol::DatadogV05, "golden-agent/own/bodies/v05-basic-00.bin"),
        (Protocol::DatadogV07, "golden-agent/own/bodies/v07-payload-00.bin"),
        (Protocol::DatadogV1, "golden-agent/own/bodies/v1-payload-00.bin"),
    ] {
        let body = read(&dir.join(file));
        for end in 0..body.len() {
            let e = decode(protocol, &body[..end]).unwrap_err();
            assert_eq!(e.drop_reason(), "msgp_short_bytes", "{file} cut at {end}: {e}");
        }
        decode(protocol, &body).unwrap();
    }
}

/// Found by the fuzz target of v1.0: an empty list of attributes within one
/// that loses a key twice there lay behind the end of the table.
#[test]
fn empty_lists_in_lists_with_keys_twice_lie_in_the_table() {
    let body = [
        0x85, 0x0a, 0x9c, 0x00, 0x07, 0x90, 0x00, 0x07, 0x90, 0x00, 0x07, 0x90, 0x00, 0x07, 0x90, 0x00, 0x07,
        0x3d, 0x90, 0x00, 0x90, 0x00, 0x02, 0x92, 0xa6,
    ];
    let nested: Vec<u8> = [0x81, 0x0a, 0x96].into_iter().chain([0x00, 0x07, 0x90].repeat(2)).collect();
    for body in [&body[..], &nested] {
        if let Ok(batch) = decode(Protocol::DatadogV1, body) {
            check(&batch);
        }
    }
    assert!(decode(Protocol::DatadogV1, &nested).is_ok(), "the second of them is a payload");
}
