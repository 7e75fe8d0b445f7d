//! An open segment: finding and decoding its parts.

use crate::cache::Cache;
use crate::column::{BLOCK, Blocks, GROUP_BLOCKS};
use crate::encoding::{Reader, stable_hash};
use crate::error::{Decoded, Malformed, SegmentError};
use crate::format::{self, MAX_RAW, Section, SectionKey};
use crate::json::Type;
use crate::meta::SegmentMeta;
use crate::page::{Dict, Page};
use crate::recent::{self, ORDER_PART, Order, Times, v1::Whole};
use crate::schema::{self, Column};
use crate::tags::Tags;
use crate::traces::{self, BlockPlace, ListPlace, Operations, Strings, TraceBlock, TracePart};
use spanloom_model::TraceId;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Compressed bytes of a page or section, with what must come out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub offset: u64,
    pub len: usize,
    pub raw: usize,
    pub crc: u32,
}

#[derive(Debug)]
pub(crate) struct PagePlace {
    pub first_row: usize,
    pub rows: usize,
    pub enc: u8,
    pub place: Place,
}

/// Zone of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zone {
    pub min_start: i64,
    pub max_start: i64,
    pub min_duration: i64,
    pub max_duration: i64,
}

#[derive(Debug)]
pub(crate) struct ChunkPlace {
    /// Number of values and place of the dictionary.
    pub dict: Option<(usize, Place)>,
    pub pages: Vec<PagePlace>,
    pub filled: Blocks,
}

/// Directory of a row group.
#[derive(Debug)]
pub(crate) struct Group {
    /// In version 1; later they are a section of their own.
    pub zones: Vec<Zone>,
    pub columns: Vec<ChunkPlace>,
}

/// Where a page of trace ids begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fence {
    pub id: u128,
    pub group: u32,
    pub row: u32,
    pub ordinal: u32,
}

/// Filters of plain blocks, by number of the block.
pub(crate) type Filters = Vec<(usize, Vec<u8>)>;

/// Rows of a row group.
pub(crate) type Rows = (u32, std::ops::Range<usize>);

/// Where a trace lies.
pub(crate) struct Found {
    pub ordinal: u32,
    pub rows: Vec<Rows>,
}

mod kind {
    pub const GROUP: u8 = 0;
    pub const DICT: u8 = 1;
    pub const PAGE: u8 = 2;
    pub const FENCES: u8 = 3;
    pub const FILTER: u8 = 4;
    pub const STRINGS: u8 = 5;
    pub const TRACES: u8 = 6;
    pub const TRACE_BLOCK: u8 = 7;
    pub const POSTINGS: u8 = 8;
    pub const FILTERS: u8 = 9;
    pub const TIMES: u8 = 10;
    pub const OPERATIONS: u8 = 11;
    pub const LISTS: u8 = 12;
    pub const ORDER: u8 = 13;
    pub const ZONES: u8 = 14;
    pub const TAGS: u8 = 15;
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// An open segment. Cheap to keep open: the section directory, the column
/// list and three file handles; everything else is read when needed and lies
/// in the [`Cache`]. All methods may be called from several threads.
#[derive(Debug)]
pub struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) meta: SegmentMeta,
    pub(crate) columns: Vec<Column>,
    pub(crate) group_rows: Vec<u64>,
    sections: Vec<Section>,
    spans: File,
    traces: File,
    index: File,
    cache: Arc<Cache>,
    number: u64,
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

fn read_checked(
    file: &File,
    path: &Path,
    offset: u64,
    len: usize,
    crc: u32,
) -> Result<Vec<u8>, SegmentError> {
    let mut data = vec![0; len];
    file.read_exact_at(&mut data, offset).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            SegmentError::damaged(path, "it is shorter than its directory says")
        }
        _ => SegmentError::io("read", path)(e),
    })?;
    if crc32fast::hash(&data) != crc {
        return Err(SegmentError::damaged(path, format!("checksum mismatch at byte {offset}")));
    }
    Ok(data)
}

fn read_at(file: &File, path: &Path, place: &Place) -> Result<Vec<u8>, SegmentError> {
    // zstd cannot expand further than about 1 : 32 768.
    if place.raw > MAX_RAW || place.raw / 40_000 > place.len + 2 {
        return Err(SegmentError::damaged(path, "a part claims an impossible size"));
    }
    let data = read_checked(file, path, place.offset, place.len, place.crc)?;
    let raw = crate::page::decompress(&data, place.raw)
        .map_err(|_| SegmentError::damaged(path, format!("cannot decompress at byte {}", place.offset)))?;
    if raw.len() != place.raw {
        return Err(SegmentError::damaged(path, "a part has another size than its directory says"));
    }
    Ok(raw)
}

impl Segment {
    /// Opens a segment directory with a cache of its own of 16 MiB.
    ///
    /// # Errors
    /// If a file is missing, damaged or of a newer format.
    pub fn open(path: &Path) -> Result<Self, SegmentError> {
        Self::open_with(path, Cache::new(16 << 20))
    }

    /// Opens a segment directory. `cache` is meant to be shared by all
    /// segments of a store.
    pub fn open_with(path: &Path, cache: Arc<Cache>) -> Result<Self, SegmentError> {
        let open = |name: &str| {
            let path = path.join(name);
            let file = File::open(&path).map_err(SegmentError::io("open", &path))?;
            let len = file.metadata().map_err(SegmentError::io("stat", &path))?.len();
            Ok::<_, SegmentError>((file, len))
        };
        let (index, index_len) = open(format::INDEX)?;
        let (spans, spans_len) = open(format::SPANS)?;
        let (traces, traces_len) = open(format::TRACES)?;
        let index_path = path.join(format::INDEX);
        let damaged = |cause: Malformed| SegmentError::damaged(&index_path, cause.0);
        let Some(at) = index_len.checked_sub(format::TAIL as u64) else {
            return Err(damaged(Malformed("it is too short")));
        };
        let mut tail = [0; format::TAIL];
        index.read_exact_at(&mut tail, at).map_err(SegmentError::io("read", &index_path))?;
        let tail = format::read_tail(&tail).map_err(damaged)?;
        if tail.version > format::VERSION {
            return Err(SegmentError::Version {
                path: index_path,
                found: tail.version,
                known: format::VERSION,
            });
        }
        if tail.version == 0 || tail.offset.checked_add(u64::from(tail.len)) != Some(at) {
            return Err(damaged(Malformed("its directory is not where it should be")));
        }
        let place =
            Place { offset: tail.offset, len: tail.len as usize, raw: tail.raw as usize, crc: tail.crc };
        let raw = read_at(&index, &index_path, &place)?;
        let sections = format::read_directory(&raw).map_err(damaged)?;
        let mut segment = Self {
            path: path.to_owned(),
            meta: SegmentMeta::empty(0),
            columns: Vec::new(),
            group_rows: Vec::new(),
            sections,
            spans,
            traces,
            index,
            cache,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        };
        let raw = segment.section(SectionKey::META)?;
        segment.read_meta(&raw).map_err(damaged)?;
        let raw = segment.section(SectionKey::COLUMNS)?;
        segment.columns = read_columns(&raw).map_err(damaged)?;
        segment.meta.bytes = index_len + spans_len + traces_len;
        segment.meta.version = tail.version;
        segment.meta.name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(segment)
    }

    fn read_meta(&mut self, raw: &[u8]) -> Decoded<()> {
        let mut r = Reader::new(raw);
        let m = &mut self.meta;
        m.id = r.varint()?;
        m.spans = r.varint()?;
        m.traces = r.varint()?;
        let groups = r.count(raw.len())?;
        for _ in 0..groups {
            self.group_rows.push(r.count(MAX_RAW)? as u64);
        }
        m.min_start = r.zigzag()?;
        m.max_start = r.zigzag()?;
        m.max_end = r.zigzag()?;
        Ok(())
    }

    /// Summary.
    pub const fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error of one of the files.
    pub(crate) fn damaged(&self, file: &str, cause: Malformed) -> SegmentError {
        SegmentError::damaged(&self.path.join(file), cause.0)
    }

    fn place(&self, key: SectionKey) -> Option<Place> {
        let i = self.sections.binary_search_by_key(&key, |s| s.key).ok()?;
        let s = self.sections.get(i)?;
        Some(Place { offset: s.offset, len: s.len as usize, raw: s.raw as usize, crc: s.crc })
    }

    fn section(&self, key: SectionKey) -> Result<Vec<u8>, SegmentError> {
        let place =
            self.place(key).ok_or_else(|| self.damaged(format::INDEX, Malformed("a section is missing")))?;
        read_at(&self.index, &self.path.join(format::INDEX), &place)
    }

    fn cached<T: std::any::Any + Send + Sync>(
        &self,
        kind: u8,
        a: u32,
        b: u32,
        load: impl FnOnce() -> Result<(T, usize), SegmentError>,
    ) -> Result<Arc<T>, SegmentError> {
        let key = (self.number, kind, a, b);
        if let Some(found) = self.cache.get(key) {
            return Ok(found);
        }
        let (value, size) = load()?;
        let value = Arc::new(value);
        self.cache.put(key, &value, size);
        Ok(value)
    }

    pub(crate) fn group(&self, group: u32) -> Result<Arc<Group>, SegmentError> {
        self.cached(kind::GROUP, group, 0, || {
            let raw = self.section(SectionKey::group(group))?;
            let g = read_group(&raw, self.columns.len(), self.meta.version)
                .map_err(|e| self.damaged(format::INDEX, e))?;
            let size = g.columns.iter().map(|c| 96 + c.pages.len() * size_of::<PagePlace>()).sum::<usize>();
            Ok((g, size + 8192))
        })
    }

    /// The dictionary of a column chunk; empty if it has none.
    pub(crate) fn dict(&self, group: u32, column: usize) -> Result<Arc<Dict>, SegmentError> {
        self.cached(kind::DICT, group, column as u32, || {
            let dir = self.group(group)?;
            let dict = match dir.columns.get(column).and_then(|c| c.dict.as_ref()) {
                None => Dict::default(),
                Some((n, place)) => {
                    let raw = read_at(&self.spans, &self.path.join(format::SPANS), place)?;
                    Dict::read(raw, *n, self.columns[column].shape)
                        .map_err(|e| self.damaged(format::SPANS, e))?
                }
            };
            let size = dict.size();
            Ok((dict, size))
        })
    }

    /// A page of a column chunk by its number, not kept in the cache.
    pub(crate) fn load_page(&self, group: u32, column: usize, page: usize) -> Result<Page, SegmentError> {
        let dir = self.group(group)?;
        let damaged = |e| self.damaged(format::SPANS, e);
        let p = dir
            .columns
            .get(column)
            .and_then(|c| c.pages.get(page))
            .ok_or(damaged(Malformed("a page is missing")))?;
        let raw = read_at(&self.spans, &self.path.join(format::SPANS), &p.place)?;
        let c = &self.columns[column];
        let dict = if p.enc == crate::column::enc::DICT { Some(self.dict(group, column)?) } else { None };
        Page::read(raw, p, c, dict).map_err(damaged)
    }

    /// A page of a column chunk by its number.
    pub(crate) fn page(&self, group: u32, column: usize, page: usize) -> Result<Arc<Page>, SegmentError> {
        // Columns and pages per row group both stay below 2^16.
        self.cached(kind::PAGE, group, (column as u32) << 16 | page as u32, || {
            let p = self.load_page(group, column, page)?;
            let size = p.size();
            Ok((p, size))
        })
    }

    pub(crate) fn postings(
        &self,
        group: u32,
        column: usize,
    ) -> Result<Arc<Vec<Option<Blocks>>>, SegmentError> {
        self.cached(kind::POSTINGS, group, column as u32, || {
            if self.place(SectionKey::postings(group, column)).is_none() {
                return Ok((Vec::new(), 0));
            }
            let raw = self.section(SectionKey::postings(group, column))?;
            let list = read_postings(&raw).map_err(|e| self.damaged(format::INDEX, e))?;
            let size = list.len() * size_of::<Option<Blocks>>();
            Ok((list, size))
        })
    }

    /// Filters of the plain blocks of a column chunk.
    pub(crate) fn filters(&self, group: u32, column: usize) -> Result<Arc<Filters>, SegmentError> {
        self.cached(kind::FILTERS, group, column as u32, || {
            if self.place(SectionKey::filters(group, column)).is_none() {
                return Ok((Vec::new(), 0));
            }
            let raw = self.section(SectionKey::filters(group, column))?;
            let list = read_filters(&raw).map_err(|e| self.damaged(format::INDEX, e))?;
            Ok((list, raw.len() * 2))
        })
    }

    pub(crate) fn fences(&self) -> Result<Arc<Vec<Fence>>, SegmentError> {
        self.cached(kind::FENCES, 0, 0, || {
            let raw = self.section(SectionKey::FENCES)?;
            let list = read_fences(&raw).map_err(|e| self.damaged(format::INDEX, e))?;
            let size = list.len() * size_of::<Fence>();
            Ok((list, size))
        })
    }

    pub(crate) fn strings(&self) -> Result<Arc<Strings>, SegmentError> {
        self.cached(kind::STRINGS, 0, 0, || {
            let raw = self.section(SectionKey::STRINGS)?;
            let strings = Strings::read(&raw).map_err(|e| self.damaged(format::INDEX, e))?;
            let size = strings.size();
            Ok((strings, size))
        })
    }

    pub(crate) fn trace_blocks(&self) -> Result<Arc<Vec<BlockPlace>>, SegmentError> {
        self.cached(kind::TRACES, 0, 0, || {
            let raw = self.section(SectionKey::TRACES)?;
            let list = traces::read_directory(&raw).map_err(|e| self.damaged(format::INDEX, e))?;
            let size = list.len() * size_of::<BlockPlace>();
            Ok((list, size))
        })
    }

    fn trace_block(&self, block: usize) -> Result<Arc<TraceBlock>, SegmentError> {
        self.cached(kind::TRACE_BLOCK, block as u32, 0, || {
            let blocks = self.trace_blocks()?;
            let damaged = |e| self.damaged(format::TRACES, e);
            let b = blocks.get(block).ok_or(damaged(Malformed("a block is missing")))?;
            let place = Place { offset: b.offset, len: b.len, raw: b.raw, crc: b.crc };
            let raw = read_at(&self.traces, &self.path.join(format::TRACES), &place)?;
            let b = TraceBlock::read(raw).map_err(damaged)?;
            let size = b.size();
            Ok((b, size))
        })
    }

    /// The block that holds a trace, and its place there.
    pub(crate) fn trace_at(&self, ordinal: u32) -> Result<(Arc<TraceBlock>, usize), SegmentError> {
        let size = traces::trace_block(self.meta.version);
        Ok((self.trace_block(ordinal as usize / size)?, ordinal as usize % size))
    }

    /// Whether the segment may hold spans of the trace: about 1 % of other
    /// traces pass.
    pub fn may_have(&self, id: TraceId) -> Result<bool, SegmentError> {
        let filter = self.cached(kind::FILTER, 0, 0, || {
            let raw = self.section(SectionKey::TRACE_FILTER)?;
            let size = raw.len();
            Ok((raw, size))
        })?;
        Ok(format::has_trace(&filter, stable_hash(&id.0.to_be_bytes())))
    }

    /// Page of trace ids by its position in the fences.
    fn id_page(&self, fences: &[Fence], at: usize) -> Result<Arc<Page>, SegmentError> {
        let f = fences[at];
        let dir = self.group(f.group)?;
        let pages = &dir.columns[schema::TRACE_ID].pages;
        let n = pages.partition_point(|p| p.first_row < f.row as usize);
        self.page(f.group, schema::TRACE_ID, n)
    }

    pub(crate) fn find(&self, id: TraceId) -> Result<Option<Found>, SegmentError> {
        if !self.may_have(id)? {
            return Ok(None);
        }
        let fences = self.fences()?;
        let first = fences.partition_point(|f| f.id < id.0).saturating_sub(1);
        let mut found: Option<Found> = None;
        for at in first..fences.len() {
            let f = fences[at];
            if f.id > id.0 {
                break;
            }
            let page = self.id_page(&fences, at)?;
            let (ids, ends) = page.ids();
            let Ok(i) = ids.binary_search(&id.0) else { continue };
            let start = if i == 0 { 0 } else { ends[i - 1] as usize };
            let rows = (f.group, page.first_row + start..page.first_row + ends[i] as usize);
            match &mut found {
                Some(found) => found.rows.push(rows),
                None => found = Some(Found { ordinal: f.ordinal + i as u32, rows: vec![rows] }),
            }
        }
        Ok(found)
    }

    /// Number of the trace that a row belongs to, and its id.
    pub(crate) fn trace_of(&self, group: u32, row: usize) -> Result<(u32, u128), SegmentError> {
        let fences = self.fences()?;
        let at = fences.partition_point(|f| (f.group, f.row as usize) <= (group, row)).saturating_sub(1);
        let damaged = || self.damaged(format::INDEX, Malformed("a row lies outside all pages"));
        let f = fences.get(at).ok_or_else(damaged)?;
        let page = self.id_page(&fences, at)?;
        let (i, id) = page.id_at(row).ok_or_else(damaged)?;
        Ok((f.ordinal + i as u32, id))
    }

    /// Earliest start of a trace by its number.
    pub(crate) fn trace_start(&self, ordinal: u32) -> Result<i64, SegmentError> {
        let (b, at) = self.trace_at(ordinal)?;
        b.starts
            .get(at)
            .copied()
            .ok_or_else(|| self.damaged(format::TRACES, Malformed("a trace is not in its block")))
    }

    /// What the segment holds of a trace, from the trace table.
    pub fn part(&self, id: TraceId) -> Result<Option<TracePart>, SegmentError> {
        let Some(found) = self.find(id)? else { return Ok(None) };
        let (block, at) = self.trace_at(found.ordinal)?;
        let strings = self.strings()?;
        block.part(at, id, &strings).map(Some).map_err(|e| self.damaged(format::TRACES, e))
    }

    /// Blocks of a row group.
    pub(crate) fn blocks(&self, group: u32) -> usize {
        let rows = self.group_rows.get(group as usize).copied().unwrap_or(0);
        (rows as usize).div_ceil(BLOCK).min(GROUP_BLOCKS)
    }

    /// The zones of a row group's blocks.
    pub(crate) fn zones(&self, group: u32) -> Result<Arc<Vec<Zone>>, SegmentError> {
        self.cached(kind::ZONES, group, 0, || {
            let zones = if self.meta.version == 1 {
                self.group(group)?.zones.clone()
            } else {
                let raw = self.section(SectionKey::zones(group))?;
                read_zones(&mut Reader::new(&raw)).map_err(|e| self.damaged(format::INDEX, e))?
            };
            let size = zones.len() * size_of::<Zone>();
            Ok((zones, size))
        })
    }

    /// Blocks that may hold a row with one of these tags (see [`crate::tags`]);
    /// none if the index does not say.
    pub(crate) fn tagged(&self, group: u32, hashes: &[u32]) -> Result<Option<Blocks>, SegmentError> {
        if self.meta.version == 1 {
            return Ok(None);
        }
        let damaged = |e| self.damaged(format::INDEX, e);
        let tags = self.cached(kind::TAGS, group, 0, || {
            let raw = self.section(SectionKey::tags(group))?;
            let tags = Tags::read(&raw).map_err(damaged)?;
            let size = tags.size();
            Ok((tags, size))
        })?;
        if hashes.iter().any(|h| tags.is_frequent(*h)) {
            return Ok(None);
        }
        let mut blocks = Blocks::default();
        for hash in hashes {
            let page = tags.page(*hash).map_err(damaged)?;
            if page.len > 0 {
                let data = read_checked(
                    &self.index,
                    &self.path.join(format::INDEX),
                    page.offset,
                    page.len,
                    page.crc,
                )?;
                page.blocks(&data, *hash, &mut blocks).map_err(damaged)?;
            }
        }
        Ok(Some(blocks))
    }

    /// Times and order of a segment of version 1.
    fn whole(&self) -> Result<Arc<Whole>, SegmentError> {
        self.cached(kind::ORDER, u32::MAX, 0, || {
            let raw = self.section(SectionKey::TIMES)?;
            let whole = Whole::read(&raw).map_err(|e| self.damaged(format::INDEX, e))?;
            let size = whole.size();
            Ok((whole, size))
        })
    }

    /// When the traces of each rank start.
    pub(crate) fn times(&self) -> Result<Arc<Times>, SegmentError> {
        let times = if self.meta.version == 1 {
            Arc::clone(&self.whole()?.times)
        } else {
            self.cached(kind::TIMES, 0, 0, || {
                let raw = self.section(SectionKey::TIMES)?;
                let times = Times::read(&raw).map_err(|e| self.damaged(format::INDEX, e))?;
                let size = times.size();
                Ok((times, size))
            })?
        };
        if times.traces as u64 != self.meta.traces {
            return Err(self.damaged(format::INDEX, Malformed("traces are missing")));
        }
        Ok(times)
    }

    /// The part of the order that holds a rank, and its place there.
    pub(crate) fn order_place(&self, rank: u32) -> (u32, usize) {
        if self.meta.version == 1 {
            return (0, rank as usize);
        }
        (rank / ORDER_PART as u32, rank as usize % ORDER_PART)
    }

    /// A part of the traces in order of rank.
    pub(crate) fn order(&self, part: u32) -> Result<Arc<Order>, SegmentError> {
        if self.meta.version == 1 {
            return Ok(Arc::clone(&self.whole()?.order));
        }
        self.cached(kind::ORDER, part, 0, || {
            let raw = self.section(SectionKey::order(part))?;
            let order =
                Order::read(&raw, self.meta.traces as usize).map_err(|e| self.damaged(format::INDEX, e))?;
            let size = order.size();
            Ok((order, size))
        })
    }

    /// The list of operations.
    pub(crate) fn listed(&self) -> Result<Arc<Operations>, SegmentError> {
        self.cached(kind::OPERATIONS, 0, 0, || {
            let raw = self.section(SectionKey::OPERATIONS)?;
            let list =
                Operations::read(raw, self.meta.version).map_err(|e| self.damaged(format::INDEX, e))?;
            let size = list.size();
            Ok((list, size))
        })
    }

    /// Appends the ranks of an operation's traces, those whose spans of the
    /// operation last `least` or longer as far as that is known.
    pub(crate) fn operation_ranks(
        &self,
        list: ListPlace,
        least: i64,
        out: &mut Vec<u32>,
    ) -> Result<(), SegmentError> {
        let part = self.cached(kind::LISTS, list.part, 0, || {
            let raw = self.section(SectionKey::operation_lists(list.part))?;
            let size = raw.len();
            Ok((raw, size))
        })?;
        if self.meta.version == 1 {
            recent::v1::read_list(&part, list.at, &self.whole()?.ranks, out)
        } else {
            recent::read_list(&part, list, self.meta.traces as usize, least, out)
        }
        .map_err(|e| self.damaged(format::INDEX, e))
    }

    /// Id and rows of a trace by its number.
    pub(crate) fn by_ordinal(&self, ordinal: u32) -> Result<(u128, Vec<Rows>), SegmentError> {
        let fences = self.fences()?;
        let first = fences.partition_point(|f| f.ordinal < ordinal).saturating_sub(1);
        let mut rows = Vec::new();
        let mut found = 0;
        for at in first..fences.len() {
            let f = fences[at];
            if f.ordinal > ordinal {
                break;
            }
            let page = self.id_page(&fences, at)?;
            let (ids, ends) = page.ids();
            let i = (ordinal - f.ordinal) as usize;
            let Some(id) = ids.get(i) else { continue };
            found = *id;
            let start = if i == 0 { 0 } else { ends[i - 1] as usize };
            rows.push((f.group, page.first_row + start..page.first_row + ends[i] as usize));
        }
        if rows.is_empty() {
            return Err(self.damaged(format::INDEX, Malformed("a trace has no rows")));
        }
        Ok((found, rows))
    }
}

pub(crate) fn read_columns(raw: &[u8]) -> Decoded<Vec<Column>> {
    let mut r = Reader::new(raw);
    let n = r.count(schema::MAX_COLUMNS)?;
    let mut columns = schema::fixed();
    if n < columns.len() {
        return Err(Malformed("columns are missing"));
    }
    for i in 0..n {
        let promoted = r.u8()? == 1;
        if promoted != (i >= schema::FIXED) {
            return Err(Malformed("columns are in a wrong order"));
        }
        if promoted {
            let kind = Type::from_name(r.text()?).ok_or(Malformed("a column has an unknown type"))?;
            let key = std::str::from_utf8(r.text()?).map_err(|_| Malformed("a key is not UTF-8"))?;
            columns.push(schema::promoted(key, kind));
        }
    }
    Ok(columns)
}

pub(crate) fn read_zones(r: &mut Reader<'_>) -> Decoded<Vec<Zone>> {
    let blocks = r.count(GROUP_BLOCKS)?;
    let mut zones = Vec::with_capacity(blocks);
    for _ in 0..blocks {
        let min_start = r.zigzag()?;
        let max_start = min_start.wrapping_add(r.varint()? as i64);
        let min_duration = r.zigzag()?;
        let max_duration = min_duration.wrapping_add(r.varint()? as i64);
        zones.push(Zone { min_start, max_start, min_duration, max_duration });
    }
    Ok(zones)
}

pub(crate) fn read_group(raw: &[u8], columns: usize, version: u32) -> Decoded<Group> {
    let mut r = Reader::new(raw);
    let rows = r.count(MAX_RAW)?;
    let zones = if version == 1 { read_zones(&mut r)? } else { Vec::new() };
    let blocks = if version == 1 { zones.len() } else { GROUP_BLOCKS };
    if rows > blocks * crate::column::BLOCK {
        return Err(Malformed("a row group has more rows than blocks hold"));
    }
    let mut out = Vec::with_capacity(columns);
    for _ in 0..columns {
        let mut last = 0u64;
        let mut place = |r: &mut Reader<'_>| {
            last = last.checked_add(r.varint()?).ok_or(Malformed("an offset is out of range"))?;
            Ok(Place { offset: last, len: r.count(MAX_RAW)?, raw: r.count(MAX_RAW)?, crc: r.u32()? })
        };
        let dict = match r.count(MAX_RAW)? {
            0 => None,
            n => Some((n - 1, place(&mut r)?)),
        };
        let n = r.count(r.left() / 8)?;
        let mut pages = Vec::with_capacity(n);
        let mut first_row = 0;
        for _ in 0..n {
            let enc = r.u8()?;
            let page_rows = r.count(rows - first_row)?;
            pages.push(PagePlace { first_row, rows: page_rows, enc, place: place(&mut r)? });
            first_row += page_rows;
        }
        if first_row != rows {
            return Err(Malformed("the pages of a column do not add up"));
        }
        let mut filled = Blocks::default();
        for w in &mut filled {
            *w = r.u64()?;
        }
        out.push(ChunkPlace { dict, pages, filled });
    }
    Ok(Group { zones, columns: out })
}

pub(crate) fn read_postings(raw: &[u8]) -> Decoded<Vec<Option<Blocks>>> {
    let mut r = Reader::new(raw);
    let n = r.count(raw.len())?;
    let mut out = Vec::with_capacity(n);
    for _ in 0..n {
        let count = r.u8()?;
        if count == 0 {
            out.push(None);
            continue;
        }
        let mut blocks = Blocks::default();
        let mut at = 0usize;
        for _ in 0..count {
            at += usize::from(r.u8()?);
            *blocks.get_mut(at / 64).ok_or(Malformed("a block is out of range"))? |= 1 << (at % 64);
        }
        out.push(Some(blocks));
    }
    Ok(out)
}

pub(crate) fn read_filters(raw: &[u8]) -> Decoded<Vec<(usize, Vec<u8>)>> {
    let mut r = Reader::new(raw);
    let n = r.count(GROUP_BLOCKS)?;
    (0..n).map(|_| Ok((r.count(GROUP_BLOCKS - 1)?, r.text()?.to_vec()))).collect()
}

pub(crate) fn read_fences(raw: &[u8]) -> Decoded<Vec<Fence>> {
    let mut r = Reader::new(raw);
    let mut out = Vec::new();
    while !r.is_empty() {
        out.push(Fence {
            id: r.u128()?,
            group: r.count(u32::MAX as usize)? as u32,
            row: r.count(u32::MAX as usize)? as u32,
            ordinal: r.count(u32::MAX as usize)? as u32,
        });
    }
    Ok(out)
}
