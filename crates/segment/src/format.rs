//! The file `index`: checksummed, compressed sections and their directory.
//!
//! ```text
//! magic(8) section* directory(zstd) offset(u64) len(u32) raw(u32) crc(u32) version(u32) magic(8)
//! ```

use crate::column::Zstd;
use crate::encoding::{Reader, put_varint};
use crate::error::{Decoded, Malformed, SegmentError};

/// Version of the directory layout, of `index`, `traces` and of the meaning of
/// the columns of `spans.parquet`.
///
/// 2: traces and lists of operations in order of time, lists of resources,
/// tags instead of block filters, zones in sections of their own.
pub(crate) const VERSION: u32 = 2;
pub(crate) const MAGIC: &[u8; 8] = b"SPLSEG\r\n";
pub(crate) const SPANS: &str = "spans.parquet";
pub(crate) const TRACES: &str = "traces";
pub(crate) const INDEX: &str = "index";
/// Bytes after the directory.
pub(crate) const TAIL: usize = 8 + 4 + 4 + 4 + 4 + 8;
/// No section, page or block is larger when decompressed; a directory that
/// says so is damaged.
pub(crate) const MAX_RAW: usize = 1 << 30;

/// Name of a section: kind, row group, column.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct SectionKey {
    kind: u8,
    group: u32,
    column: u32,
}

impl SectionKey {
    pub const META: Self = Self { kind: 0, group: 0, column: 0 };
    pub const COLUMNS: Self = Self { kind: 1, group: 0, column: 0 };
    pub const FENCES: Self = Self { kind: 2, group: 0, column: 0 };
    pub const TRACE_FILTER: Self = Self { kind: 3, group: 0, column: 0 };
    pub const STRINGS: Self = Self { kind: 4, group: 0, column: 0 };
    pub const OPERATIONS: Self = Self { kind: 5, group: 0, column: 0 };
    pub const TRACES: Self = Self { kind: 6, group: 0, column: 0 };
    pub const fn group(group: u32) -> Self {
        Self { kind: 7, group, column: 0 }
    }
    pub const fn postings(group: u32, column: usize) -> Self {
        Self { kind: 8, group, column: column as u32 }
    }
    /// Version 1 only.
    pub const fn filters(group: u32, column: usize) -> Self {
        Self { kind: 9, group, column: column as u32 }
    }
    pub const TIMES: Self = Self { kind: 10, group: 0, column: 0 };
    pub const fn operation_lists(part: u32) -> Self {
        Self { kind: 11, group: part, column: 0 }
    }
    pub const fn order(part: u32) -> Self {
        Self { kind: 12, group: part, column: 0 }
    }
    pub const fn zones(group: u32) -> Self {
        Self { kind: 13, group, column: 0 }
    }
    pub const fn tags(group: u32) -> Self {
        Self { kind: 14, group, column: 0 }
    }
}

/// Where a section lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    pub key: SectionKey,
    pub offset: u64,
    pub len: u32,
    pub raw: u32,
    pub crc: u32,
}

/// Directory and tail, to be written at `offset`.
pub(crate) fn put_directory(
    sections: &[Section],
    offset: u64,
    z: &mut Zstd,
) -> Result<Vec<u8>, SegmentError> {
    let mut raw = Vec::new();
    put_varint(&mut raw, sections.len() as u64);
    for s in sections {
        raw.push(s.key.kind);
        put_varint(&mut raw, u64::from(s.key.group));
        put_varint(&mut raw, u64::from(s.key.column));
        put_varint(&mut raw, s.offset);
        put_varint(&mut raw, u64::from(s.len));
        put_varint(&mut raw, u64::from(s.raw));
        raw.extend_from_slice(&s.crc.to_le_bytes());
    }
    let mut out = z.compress(&raw)?;
    let (len, crc) = (out.len() as u32, crc32fast::hash(&out));
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(MAGIC);
    Ok(out)
}

/// The tail of the file `index`.
pub(crate) struct Tail {
    pub offset: u64,
    pub len: u32,
    pub raw: u32,
    pub crc: u32,
    pub version: u32,
}

pub(crate) fn read_tail(bytes: &[u8]) -> Decoded<Tail> {
    let mut r = Reader::new(bytes);
    let tail = Tail { offset: r.u64()?, len: r.u32()?, raw: r.u32()?, crc: r.u32()?, version: r.u32()? };
    if r.take(8)? != MAGIC {
        return Err(Malformed("it does not end as an index does"));
    }
    Ok(tail)
}

pub(crate) fn read_directory(raw: &[u8]) -> Decoded<Vec<Section>> {
    let mut r = Reader::new(raw);
    let n = r.count(raw.len() / 9)?;
    let mut out = Vec::with_capacity(n);
    for _ in 0..n {
        let key =
            SectionKey { kind: r.u8()?, group: r.count(1 << 24)? as u32, column: r.count(1 << 16)? as u32 };
        out.push(Section {
            key,
            offset: r.varint()?,
            len: r.count(MAX_RAW)? as u32,
            raw: r.count(MAX_RAW)? as u32,
            crc: r.u32()?,
        });
    }
    out.sort_by_key(|s| s.key);
    Ok(out)
}

const TRACE_PROBES: u64 = 7;

fn trace_bits(filter: &[u8], hash: u64) -> impl Iterator<Item = usize> + use<> {
    let m = filter.len() as u64 * 8;
    let (a, b) = (hash, hash.rotate_left(32) | 1);
    (0..TRACE_PROBES).map(move |i| {
        let h = a.wrapping_add(i.wrapping_mul(b));
        ((u128::from(h) * u128::from(m)) >> 64) as usize
    })
}

/// Adds a trace (by the stable hash of its id) to the filter.
pub(crate) fn set_trace(filter: &mut [u8], hash: u64) {
    for bit in trace_bits(filter, hash) {
        filter[bit / 8] |= 1 << (bit % 8);
    }
}

/// Whether the filter may hold the trace.
pub(crate) fn has_trace(filter: &[u8], hash: u64) -> bool {
    trace_bits(filter, hash).all(|b| filter.get(b / 8).is_some_and(|w| w & (1 << (b % 8)) != 0))
}
