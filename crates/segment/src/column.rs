//! Encoding of one column chunk: pages, dictionary, and what the index needs
//! to know about it.

use crate::encoding::{byte_width_of, put_delta, put_hybrid, put_ids, put_split, put_varint, width_of};
use crate::error::SegmentError;
use crate::intern::{Interner, Renumbered};
use crate::schema::{Column, Shape};
use crate::tags::{Entries, Holds};
use crate::traces::Coded;

/// Rows of a block: the unit of zone maps, postings and tags. Pages of all
/// columns begin at block boundaries unless values are huge.
pub(crate) const BLOCK: usize = 1024;
/// Blocks of a full row group.
pub(crate) const GROUP_BLOCKS: usize = 256;
/// A page is closed at the first block boundary after this many raw bytes …
const PAGE_BYTES: usize = 12 << 10;
/// … or this many blocks …
const PAGE_BLOCKS: usize = 16;
/// … or anywhere beyond this many raw bytes.
const PAGE_MAX: usize = 1 << 20;
/// A dictionary that outgrows one of these is closed at the next block
/// boundary; later pages are plain. Codes stay below 2^16 - 1.
const DICT_BYTES: usize = 1 << 20;
const DICT_LEN: usize = (1 << 16) - 2 * BLOCK;

/// Probes of the block filters of version 1.
const FILTER_PROBES: u64 = 5;

/// Encoding of a page, as the page directory says it.
pub(crate) mod enc {
    pub const DICT: u8 = 0;
    pub const TEXTS: u8 = 1;
    pub const WORDS: u8 = 2;
    pub const IDS: u8 = 3;
}

/// Set of blocks of a row group.
pub(crate) type Blocks = [u64; GROUP_BLOCKS / 64];

/// A finished page.
pub(crate) struct Page {
    /// Taken when it is written.
    pub data: Vec<u8>,
    pub len: usize,
    pub crc: u32,
    pub raw: usize,
    pub rows: usize,
    pub first_row: usize,
    pub enc: u8,
}

impl Page {
    fn new(data: Vec<u8>, raw: usize, first_row: usize, rows: usize, enc: u8) -> Self {
        Self { len: data.len(), crc: crc32fast::hash(&data), data, raw, rows, first_row, enc }
    }
}

/// A finished column chunk.
pub(crate) struct Chunk {
    /// The dictionary, and its number of values.
    pub dict: Option<(Page, usize)>,
    pub pages: Vec<Page>,
    /// Blocks in which each code of the dictionary occurs.
    pub postings: Vec<Blocks>,
    /// Attributes in it.
    pub tags: Entries,
    /// Blocks with a value.
    pub filled: Blocks,
    /// First trace id of each page (column of ids only).
    pub first_ids: Vec<u128>,
}

/// The part of a page that is not compressed yet.
#[derive(Default)]
struct Open {
    rows: usize,
    first_row: usize,
    defs: Vec<u32>,
    codes: Vec<u32>,
    lens: Vec<u32>,
    data: Vec<u8>,
    words: Vec<i64>,
    ids: Vec<u128>,
}

/// Compressor shared by all columns.
pub(crate) struct Zstd {
    compressor: zstd::bulk::Compressor<'static>,
    /// Speed matters more than size: nothing is tried out.
    quick: bool,
}

impl Zstd {
    pub fn new(level: i32) -> Result<Self, SegmentError> {
        let compressor =
            zstd::bulk::Compressor::new(level).map_err(SegmentError::io("compress", "".as_ref()))?;
        Ok(Self { compressor, quick: level < 2 })
    }
    pub fn compress(&mut self, raw: &[u8]) -> Result<Vec<u8>, SegmentError> {
        self.compressor.compress(raw).map_err(SegmentError::io("compress", "".as_ref()))
    }
}

/// Writer of one column, row group after row group.
pub(crate) struct ColumnWriter {
    shape: Shape,
    optional: bool,
    holds: Holds,
    plain: bool,
    dict: Interner,
    /// Changes whenever codes lose their meaning.
    epoch: u32,
    last: Option<u32>,
    aligned: Option<bool>,
    block: usize,
    open: Open,
    out: Chunk,
    compressed: usize,
    scratch: Vec<u8>,
}

fn empty_chunk() -> Chunk {
    Chunk {
        dict: None,
        pages: Vec::new(),
        postings: Vec::new(),
        tags: Entries::default(),
        filled: Blocks::default(),
        first_ids: Vec::new(),
    }
}

impl ColumnWriter {
    /// A writer for the column at a position of the schema.
    pub fn new(position: usize, column: &Column) -> Self {
        Self {
            shape: column.shape,
            optional: column.optional,
            holds: Holds::of(position, column.attr.as_ref()),
            plain: matches!(column.shape, Shape::Ids | Shape::Noise),
            dict: Interner::default(),
            epoch: 0,
            last: None,
            aligned: None,
            block: 0,
            open: Open::default(),
            out: empty_chunk(),
            compressed: 0,
            scratch: Vec::new(),
        }
    }

    /// Bytes held, roughly.
    pub fn held(&self) -> usize {
        self.compressed + self.open.data.len() + self.dict.size()
    }

    #[inline]
    fn mark(&mut self, there: bool) {
        self.open.rows += 1;
        if self.optional {
            self.open.defs.push(u32::from(there));
        }
        if there {
            self.out.filled[self.block / 64] |= 1 << (self.block % 64);
        }
    }

    /// Adds a missing value.
    #[inline]
    pub fn push_null(&mut self) {
        self.mark(false);
    }

    /// Adds a value (8 bytes little-endian in a column of words).
    pub fn push(&mut self, value: &[u8]) {
        if self.plain {
            self.mark(true);
            self.plain_value(value);
            return;
        }
        let code = match self.last {
            Some(last) if self.dict.get(last) == value => last,
            _ => self.intern(value),
        };
        self.push_code(code);
    }

    /// Adds a value that has a number elsewhere.
    #[inline]
    pub fn push_numbered(&mut self, codes: &mut Renumbered, number: u32, value: &[u8]) {
        if self.plain {
            return self.push(value);
        }
        let code = match codes.get(self.epoch, number) {
            Some(code) => code,
            None => {
                let code = self.intern(value);
                codes.set(self.epoch, number, code);
                code
            }
        };
        self.push_code(code);
    }

    fn plain_value(&mut self, value: &[u8]) {
        self.out.tags.add(self.holds, value, self.block);
        if self.shape == Shape::Texts {
            self.open.lens.push(value.len() as u32);
            self.open.data.extend_from_slice(value);
        } else {
            let mut le = [0; 8];
            le.copy_from_slice(&value[..8]);
            self.open.words.push(i64::from_le_bytes(le));
        }
    }

    #[inline]
    pub fn push_word(&mut self, value: i64) {
        if self.plain && self.holds == Holds::Nothing {
            self.mark(true);
            self.open.words.push(value);
        } else {
            self.push(&value.to_le_bytes());
        }
    }

    #[inline]
    pub fn push_id(&mut self, id: u128) {
        self.mark(true);
        self.open.ids.push(id);
    }

    fn intern(&mut self, value: &[u8]) -> u32 {
        let (code, new) = self.dict.intern(value);
        if new {
            self.out.postings.push(Blocks::default());
        }
        code
    }

    /// The code of a value, valid in the epoch of now; none while the column is
    /// plain.
    pub fn code_of(&mut self, value: &[u8]) -> Option<u32> {
        if self.plain { None } else { Some(self.intern(value)) }
    }

    /// The last rows pushed, which must all be in the open page.
    pub fn written(&self, rows: usize) -> Written<'_> {
        let open = &self.open;
        let defs = open.defs.len().saturating_sub(rows);
        let values = if self.optional { open.defs[defs..].iter().filter(|d| **d != 0).count() } else { rows };
        let lens = open.lens.len().saturating_sub(values);
        let texts: usize = open.lens[lens..].iter().map(|l| *l as usize).sum();
        Written {
            ids: &open.ids[open.ids.len().saturating_sub(values)..],
            defs: open.defs[defs..].iter(),
            optional: self.optional,
            codes: open.codes[open.codes.len().saturating_sub(values)..].iter(),
            words: open.words[open.words.len().saturating_sub(values)..].iter(),
            lens: open.lens[lens..].iter(),
            texts: &open.data[open.data.len().saturating_sub(texts)..],
            dict: &self.dict,
            epoch: self.epoch,
        }
    }

    /// Epoch of codes now; none while the column is plain.
    #[inline]
    pub fn epoch(&self) -> Option<u32> {
        if self.plain { None } else { Some(self.epoch) }
    }

    /// Adds a value by its code.
    #[inline]
    pub fn push_code(&mut self, code: u32) {
        self.mark(true);
        self.last = Some(code);
        self.open.codes.push(code);
        if let Some(p) = self.out.postings.get_mut(code as usize) {
            p[self.block / 64] |= 1 << (self.block % 64);
        }
    }

    /// Raw size of the open page, roughly.
    fn open_size(&self) -> usize {
        let code = if self.dict.len() > 256 { 2 } else { 1 };
        self.open.codes.len() * code
            + self.open.data.len()
            + self.open.lens.len()
            + self.open.words.len() * 8
            // Small pages: looking for a trace decodes one.
            + self.open.ids.len() * 12
    }

    /// To be called after each row: closes a page of huge values.
    #[inline]
    pub fn end_row(&mut self, z: &mut Zstd) -> Result<(), SegmentError> {
        if self.open.data.len() > PAGE_MAX || self.dict.size() > 4 * DICT_BYTES {
            if !self.plain {
                self.close_page(z)?;
                self.go_plain();
            } else {
                self.close_page(z)?;
            }
        }
        Ok(())
    }

    /// To be called after each block.
    pub fn end_block(&mut self, z: &mut Zstd) -> Result<(), SegmentError> {
        if !self.plain {
            let values = self.open.codes.len();
            if self.out.pages.is_empty()
                && self.open.rows <= BLOCK
                && values >= 128
                && self.dict.len() * 2 > values
            {
                // Mostly distinct from the start: a dictionary would only be
                // a detour.
                self.undo_dict();
            } else if self.dict.size() > DICT_BYTES || self.dict.len() > DICT_LEN {
                self.close_page(z)?;
                self.go_plain();
            }
        }
        self.block += 1;
        if self.open.rows >= PAGE_BLOCKS * BLOCK || self.open_size() >= PAGE_BYTES {
            self.close_page(z)?;
        }
        Ok(())
    }

    fn go_plain(&mut self) {
        self.plain = true;
        self.last = None;
        self.epoch += 1;
    }

    fn undo_dict(&mut self) {
        let codes = std::mem::take(&mut self.open.codes);
        let dict = std::mem::take(&mut self.dict);
        self.go_plain();
        for code in codes {
            self.plain_value(dict.get(code));
        }
        self.out.postings.clear();
    }

    fn close_page(&mut self, z: &mut Zstd) -> Result<(), SegmentError> {
        let open = &mut self.open;
        if open.rows == 0 {
            return Ok(());
        }
        let raw = &mut self.scratch;
        raw.clear();
        if self.optional {
            raw.extend_from_slice(&[0; 4]);
            put_hybrid(raw, &open.defs, 1);
            let len = (raw.len() - 4) as u32;
            raw[..4].copy_from_slice(&len.to_le_bytes());
        }
        let head = raw.len();
        // A page without values names no dictionary: there may be none.
        let enc = if !self.plain && !open.codes.is_empty() {
            let max = open.codes.iter().copied().max().unwrap_or(0);
            let write = |raw: &mut Vec<u8>, aligned: bool| {
                raw.truncate(head);
                let width = if aligned { byte_width_of(max) } else { width_of(max) };
                raw.push(width);
                put_hybrid(raw, &open.codes, width);
            };
            let aligned = match self.aligned {
                Some(a) => a,
                None if z.quick => true,
                None => {
                    // The first page decides for the rest.
                    write(raw, false);
                    let packed = z.compress(raw)?.len();
                    write(raw, true);
                    let aligned = z.compress(raw)?.len() <= packed;
                    if open.codes.len() >= BLOCK {
                        self.aligned = Some(aligned);
                    }
                    aligned
                }
            };
            write(raw, aligned);
            enc::DICT
        } else {
            match self.shape {
                Shape::Texts => {
                    put_delta(raw, &open.lens);
                    raw.extend_from_slice(&open.data);
                    enc::TEXTS
                }
                Shape::Ids => {
                    put_ids(raw, &open.ids);
                    self.out.first_ids.push(open.ids.first().copied().unwrap_or(0));
                    enc::IDS
                }
                Shape::Words | Shape::Noise => {
                    put_split(raw, &open.words);
                    enc::WORDS
                }
            }
        };
        let data = z.compress(raw)?;
        self.compressed += data.len();
        self.out.pages.push(Page::new(data, raw.len(), open.first_row, open.rows, enc));
        open.first_row += open.rows;
        open.rows = 0;
        open.defs.clear();
        open.codes.clear();
        open.lens.clear();
        open.data.clear();
        open.words.clear();
        open.ids.clear();
        Ok(())
    }

    /// Ends the row group.
    pub fn finish(&mut self, z: &mut Zstd) -> Result<Chunk, SegmentError> {
        self.close_page(z)?;
        if self.holds != Holds::Nothing {
            for (value, blocks) in self.dict.iter().zip(&self.out.postings) {
                self.out.tags.add_coded(self.holds, value, blocks);
            }
        }
        if self.dict.len() > 0 && self.out.pages.iter().any(|p| p.enc == enc::DICT) {
            let raw = &mut self.scratch;
            raw.clear();
            for value in self.dict.iter() {
                if self.shape == Shape::Texts {
                    raw.extend_from_slice(&(value.len() as u32).to_le_bytes());
                }
                raw.extend_from_slice(value);
            }
            let page = Page::new(z.compress(raw)?, raw.len(), 0, 0, enc::DICT);
            self.out.dict = Some((page, self.dict.len()));
        }
        self.dict.clear();
        self.epoch += 1;
        self.last = None;
        self.plain = matches!(self.shape, Shape::Ids | Shape::Noise);
        self.aligned = None;
        self.block = 0;
        self.compressed = 0;
        self.open = Open::default();
        Ok(std::mem::replace(&mut self.out, empty_chunk()))
    }
}

/// Rows of a column that were just written, one after the other.
pub(crate) struct Written<'a> {
    /// Ids of all rows, in the column of ids.
    pub ids: &'a [u128],
    defs: std::slice::Iter<'a, u32>,
    optional: bool,
    codes: std::slice::Iter<'a, u32>,
    words: std::slice::Iter<'a, i64>,
    lens: std::slice::Iter<'a, u32>,
    texts: &'a [u8],
    dict: &'a Interner,
    epoch: u32,
}

impl<'a> Written<'a> {
    /// The word of the next row.
    #[inline]
    pub fn word(&mut self) -> Option<i64> {
        if self.optional && self.defs.next() == Some(&0) {
            return None;
        }
        match self.codes.next() {
            Some(code) => self.dict.get(*code).try_into().map(i64::from_le_bytes).ok(),
            None => self.words.next().copied(),
        }
    }

    /// The text of the next row of a required column, and its code.
    #[inline]
    pub fn text(&mut self) -> (&'a [u8], Coded) {
        match self.codes.next() {
            Some(code) => (self.dict.get(*code), Some((self.epoch, *code))),
            None => {
                let len = self.lens.next().copied().unwrap_or(0) as usize;
                let (text, rest) = self.texts.split_at(len.min(self.texts.len()));
                self.texts = rest;
                (text, None)
            }
        }
    }
}

fn filter_bits(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let (a, b) = (hash, (hash >> 32) | 1);
    let m = (bytes * 8) as u64;
    (0..FILTER_PROBES).map(move |i| {
        let h = a.wrapping_add(i.wrapping_mul(b)) & 0xffff_ffff;
        ((h * m) >> 32) as usize
    })
}

/// Whether a block filter of version 1 may hold the value.
pub(crate) fn filter_has(filter: &[u8], hash: u64) -> bool {
    !filter.is_empty() && filter_bits(hash, filter.len()).all(|b| filter[b / 8] & (1 << (b % 8)) != 0)
}

/// Appends postings: for each code a number of blocks and their distances; 0
/// stands for "too many to be worth it".
pub(crate) fn put_postings(out: &mut Vec<u8>, postings: &[Blocks], blocks: usize) {
    put_varint(out, postings.len() as u64);
    for p in postings {
        let n: u32 = p.iter().map(|w| w.count_ones()).sum();
        if n as usize * 3 > blocks.max(9) {
            out.push(0);
            continue;
        }
        out.push(n as u8);
        let mut last = 0;
        for b in block_list(p) {
            out.push((b - last) as u8);
            last = b;
        }
    }
}

/// The numbers of the blocks in a set.
pub(crate) fn block_list(blocks: &Blocks) -> impl Iterator<Item = usize> + '_ {
    (0..GROUP_BLOCKS).filter(|b| blocks[b / 64] & (1 << (b % 64)) != 0)
}
