//! Sealed blocks: a file each, never changed.
//!
//! ```text
//! magic 8 | version u32 | rows u32 | base i64 | first i64 | last i64 | meanings u32 | crc u32
//! 256 × (end row u32, crc u32)     by bucket, see Row::bucket
//! meanings | rows                  rows sorted by bucket, then id, then time
//! ```
//!
//! The checksum of the head covers the head, the buckets and the meanings;
//! each bucket has its own, so that a look-up reads and proves two pieces.

use crate::open::Open;
use crate::row::{Meaning, ROW, Row};
use spanloom_model::TraceId;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"SPLMWHY\0";
const VERSION: u32 = 1;
const FIXED: usize = 48;
const BUCKETS: usize = 256;
/// Head and buckets.
const HEAD: usize = FIXED + BUCKETS * 8;
/// Largest table of meanings: all that a block takes, at their longest.
const MAX_MEANINGS: u32 = 4097 * 258;
const MS: i64 = 1_000_000;

/// A sealed block, as it is kept in memory.
#[derive(Debug)]
pub(crate) struct Block {
    pub number: u64,
    pub path: PathBuf,
    pub rows: u32,
    /// Times of the first and the last decision, nanoseconds.
    pub range: (i64, i64),
    pub bytes: u64,
}

/// What stands before the meanings.
#[derive(Debug)]
pub(crate) struct Head {
    pub rows: u32,
    base: i64,
    first: i64,
    last: i64,
    meanings: u32,
    buckets: Vec<(u32, u32)>,
}

/// Why a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("written by a newer program (format version {0}, known {VERSION})")]
    Newer(u32),
    #[error("{0}")]
    Damaged(&'static str),
    #[error("{0}")]
    Io(#[from] io::Error),
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_le_bytes)
}

/// Reads the head; `bytes` begins with it and the meanings, `len` is the
/// length of the file.
pub(crate) fn parse_head(bytes: &[u8], len: u64) -> Result<Head, Unreadable> {
    let damaged = Err(Unreadable::Damaged("the head is damaged"));
    if bytes.len() < HEAD || bytes[..8] != *MAGIC {
        return damaged;
    }
    let version = u32_at(bytes, 8);
    if version > VERSION {
        return Err(Unreadable::Newer(version));
    }
    let head = Head {
        rows: u32_at(bytes, 12),
        base: i64_at(bytes, 16),
        first: i64_at(bytes, 24),
        last: i64_at(bytes, 32),
        meanings: u32_at(bytes, 40),
        buckets: (0..BUCKETS)
            .map(|i| (u32_at(bytes, FIXED + i * 8), u32_at(bytes, FIXED + i * 8 + 4)))
            .collect(),
    };
    let whole = HEAD as u64 + u64::from(head.meanings) + u64::from(head.rows) * ROW as u64;
    let sorted =
        head.buckets.is_sorted_by_key(|b| b.0) && head.buckets.last().map(|b| b.0) == Some(head.rows);
    if whole != len || head.meanings > MAX_MEANINGS || !sorted || head.base.checked_mul(MS).is_none() {
        return damaged;
    }
    Ok(head)
}

/// The meanings; `bytes` begins with head and meanings.
pub(crate) fn parse_meanings(head: &Head, bytes: &[u8]) -> Result<Vec<Meaning>, Unreadable> {
    let wrong = || Unreadable::Damaged("the head's checksum does not match");
    let all = bytes.get(..HEAD + head.meanings as usize).ok_or_else(wrong)?;
    if checksum(all) != u32_at(bytes, 44) {
        return Err(wrong());
    }
    let mut rest = &all[HEAD..];
    let mut meanings = Vec::new();
    while !rest.is_empty() {
        meanings.push(Meaning::get(&mut rest).ok_or_else(wrong)?);
    }
    Ok(meanings)
}

/// Of head, buckets and meanings, without the checksum itself.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(..44).unwrap_or_default());
    crc.update(bytes.get(FIXED..).unwrap_or_default());
    crc.finalize()
}

/// Rows in order, those that say the same of the same trace as one.
fn sorted(open: &Open) -> Vec<Row> {
    let mut rows = open.rows.clone();
    rows.sort_unstable_by_key(|r| (Row::bucket(r.id), r.id, r.meaning, r.rate.to_bits(), r.at));
    rows.dedup_by(|later, first| {
        let of_trace = open.meanings.get(usize::from(first.meaning)).is_some_and(|m| m.outcome.is_of_trace());
        let same = !of_trace
            && first.id == later.id
            && first.meaning == later.meaning
            && first.rate.to_bits() == later.rate.to_bits();
        if same {
            first.spans = first.spans.saturating_add(later.spans);
            first.chunks = first.chunks.saturating_add(later.chunks);
        }
        same
    });
    rows
}

/// Writes a block, whole or not at all.
pub(crate) fn write(dir: &Path, number: u64, open: &Open) -> io::Result<Block> {
    let rows = sorted(open);
    let mut meanings = Vec::new();
    open.meanings.iter().for_each(|m| m.put(&mut meanings));
    let mut body = Vec::with_capacity(rows.len() * ROW);
    rows.iter().for_each(|r| r.put(&mut body));
    let (first, last) = open.range().unwrap_or_default();
    let mut out = Vec::with_capacity(HEAD + meanings.len() + body.len());
    out.extend_from_slice(MAGIC);
    for v in [VERSION, rows.len() as u32] {
        out.extend_from_slice(&v.to_le_bytes());
    }
    for v in [open.base, first, last] {
        out.extend_from_slice(&v.to_le_bytes());
    }
    out.extend_from_slice(&(meanings.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let mut from = 0;
    for bucket in 0..BUCKETS {
        let end = from + rows[from..].partition_point(|r| usize::from(Row::bucket(r.id)) <= bucket);
        out.extend_from_slice(&(end as u32).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&body[from * ROW..end * ROW]).to_le_bytes());
        from = end;
    }
    out.extend_from_slice(&meanings);
    let crc = checksum(&out);
    out[44..48].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&body);
    let path = path(dir, number);
    let temp = path.with_extension("new");
    let mut file = File::create(&temp)?;
    file.write_all(&out)?;
    file.sync_data()?;
    fs::rename(&temp, &path)?;
    spanloom_journal::sync_dir(dir)?;
    Ok(Block { number, path, rows: rows.len() as u32, range: (first, last), bytes: out.len() as u64 })
}

/// Name of a block's file.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.block"))
}

fn read_at(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Head and meanings of an open file.
fn read_head(file: &File) -> Result<(Head, Vec<Meaning>), Unreadable> {
    let len = file.metadata()?.len();
    let mut bytes = read_at(file, 0, len.min(HEAD as u64) as usize)?;
    let head = parse_head(&bytes, len)?;
    bytes.extend(read_at(file, HEAD as u64, head.meanings as usize)?);
    let meanings = parse_meanings(&head, &bytes)?;
    Ok((head, meanings))
}

impl Block {
    /// Opens a block at start.
    pub fn open(path: PathBuf, number: u64) -> Result<Self, Unreadable> {
        let file = File::open(&path)?;
        let (head, _) = read_head(&file)?;
        let bytes = file.metadata()?.len();
        Ok(Self { number, path, rows: head.rows, range: (head.first, head.last), bytes })
    }

    /// Calls `each` with the decisions about a trace.
    pub fn find(&self, id: TraceId, each: &mut dyn FnMut(&Row, &Meaning, i64)) -> Result<(), Unreadable> {
        let file = File::open(&self.path)?;
        // The bucket first: most blocks have nothing about most traces.
        let bucket = usize::from(Row::bucket(id.0));
        let from = FIXED + bucket.saturating_sub(1) * 8;
        let ends = read_at(&file, from as u64, FIXED + bucket * 8 + 8 - from)?;
        let (start, end, crc) = if bucket == 0 {
            (0, u32_at(&ends, 0), u32_at(&ends, 4))
        } else {
            (u32_at(&ends, 0), u32_at(&ends, 8), u32_at(&ends, 12))
        };
        if start > end || end > self.rows {
            return Err(Unreadable::Damaged("the head is damaged"));
        }
        let body = self.bytes - u64::from(self.rows) * ROW as u64;
        let rows = read_at(&file, body + u64::from(start) * ROW as u64, (end - start) as usize * ROW)?;
        if crc32fast::hash(&rows) != crc {
            return Err(Unreadable::Damaged("the checksum of a bucket does not match"));
        }
        let found: Vec<Row> =
            rows.as_chunks::<ROW>().0.iter().map(Row::get).filter(|r| r.is_about(id)).collect();
        if found.is_empty() {
            return Ok(());
        }
        let (head, meanings) = read_head(&file)?;
        for row in &found {
            if let Some(meaning) = meanings.get(usize::from(row.meaning)) {
                each(row, meaning, head.base);
            }
        }
        Ok(())
    }
}
