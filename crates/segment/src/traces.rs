//! The file `traces`: one record per trace, in blocks, so that lists of traces
//! are answered without touching spans.

use crate::column::Zstd;
use crate::encoding::{Reader, put_split, put_text, put_varint, put_zigzag, read_split};
use crate::error::{Decoded, Malformed, SegmentError};
use crate::format;
use crate::intern::{Interner, Renumbered};
pub(crate) use crate::recent::ListPlace;
use crate::recent::{self, List, ListParts};
use spanloom_model::{Operation, ServiceCount, SpanKind, Status, TraceId};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Traces of a block: it is decoded whole for one of them.
const TRACE_BLOCK: usize = 256;

/// Traces of a block in a segment of a version.
pub(crate) const fn trace_block(version: u32) -> usize {
    if version == 1 { 1024 } else { TRACE_BLOCK }
}
/// Beyond this many bytes of distinct names no further ones are numbered: the
/// table spells them out, and the list of operations is cut …
const MAX_STRINGS: usize = 4 << 20;
/// … and no further resources are listed.
const MAX_RESOURCES: usize = 2 << 20;
/// In the place of a kind: the entry is a resource.
const RESOURCE: u8 = 255;
/// Bits of the first byte of the list of operations.
const CUT: u8 = 1;
const RESOURCES_CUT: u8 = 2;

/// Code of a text in the column that it was just written to, and the epoch of
/// that code; none while the column is plain.
pub(crate) type Coded = Option<(u32, u32)>;

/// What the table needs to know of a row.
pub(crate) struct RowFacts<'a> {
    pub trace_id: TraceId,
    pub start: i64,
    pub has_start: bool,
    pub duration: i64,
    pub error: bool,
    pub orphan: bool,
    pub root: bool,
    pub kind: SpanKind,
    pub status: Status,
    pub service: &'a [u8],
    pub name: &'a [u8],
    pub resource: &'a [u8],
    /// Codes of service, name and resource.
    pub codes: [Coded; 3],
}

/// Service, name and kind as one number, in this order: names are fewer than
/// 2^28, for each takes a byte of [`MAX_STRINGS`], but for one that is empty.
fn operation(service: u32, name: u32, kind: u8) -> u64 {
    u64::from(service) << 36 | u64::from(name) << 8 | u64::from(kind)
}

/// The root span of a trace, as far as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSpan {
    /// Service.
    pub service: String,
    /// Name.
    pub name: String,
    /// Datadog resource.
    pub resource: String,
    /// Role.
    pub kind: SpanKind,
    /// Status.
    pub status: Status,
    /// Whether it failed, by either convention.
    pub error: bool,
    /// Start, nanoseconds.
    pub start: i64,
}

/// What a segment holds of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePart {
    /// Id.
    pub trace_id: TraceId,
    /// Spans in this segment.
    pub spans: u64,
    /// Failed spans.
    pub errors: u64,
    /// Spans whose parent is not in this segment.
    pub orphans: u64,
    /// Earliest start of the spans that have one.
    pub start: Option<i64>,
    /// Latest end of the same.
    pub end: i64,
    /// First root span, if it is here.
    pub root: Option<RootSpan>,
    /// Per service, sorted by name.
    pub services: Vec<ServiceCount>,
}

#[derive(Default)]
struct Current {
    id: u128,
    spans: u64,
    errors: u64,
    orphans: u64,
    start: Option<i64>,
    end: i64,
    root: Option<(u8, i64, Vec<u8>)>,
    root_has_start: bool,
    services: Vec<(Name, u64, u64)>,
    /// Start of the first row, and the longest duration or distance from it.
    first: i64,
    longest: i64,
}

#[derive(Clone, PartialEq)]
enum Name {
    Known(u32),
    Spelt(Vec<u8>),
}

fn put_name(out: &mut Vec<u8>, name: &Name) {
    match name {
        Name::Known(n) => put_varint(out, u64::from(*n) + 1),
        Name::Spelt(text) => {
            out.push(0);
            put_text(out, text);
        }
    }
}

/// Streams of the block being filled.
#[derive(Default)]
struct Block {
    n: usize,
    spans: Vec<u8>,
    flags: Vec<u8>,
    starts: Vec<i64>,
    lengths: Vec<i64>,
    errors: Vec<u8>,
    orphans: Vec<u8>,
    roots: Vec<u8>,
    services: Vec<u8>,
}

/// Writer of the file `traces`, and of the lists that fall out of it.
pub(crate) struct TraceTable {
    file: File,
    path: PathBuf,
    offset: u64,
    strings: Interner,
    /// Numbers of names by their code in a column.
    by_code: [Renumbered; 3],
    operations: HashMap<u64, List, foldhash::fast::RandomState>,
    /// Some name was not numbered: the lists of operations are incomplete.
    cut: bool,
    /// The same of resources.
    resources_cut: bool,
    starts: Vec<i64>,
    classes: Vec<u8>,
    current: Option<Current>,
    block: Block,
    directory: Vec<u8>,
    blocks: u64,
    max_end: i64,
}

/// What the table leaves for the index.
pub(crate) struct Finished {
    pub file: File,
    pub directory: Vec<u8>,
    pub strings: Vec<u8>,
    pub operations: Vec<u8>,
    pub lists: Vec<Vec<u8>>,
    pub times: Vec<u8>,
    pub order: Vec<Vec<u8>>,
    pub max_end: i64,
}

impl TraceTable {
    pub fn create(dir: &Path) -> Result<Self, SegmentError> {
        let path = dir.join(format::TRACES);
        let mut file = File::create(&path).map_err(SegmentError::io("create", &path))?;
        file.write_all(format::MAGIC).map_err(SegmentError::io("write", &path))?;
        Ok(Self {
            file,
            path,
            offset: format::MAGIC.len() as u64,
            strings: Interner::default(),
            by_code: Default::default(),
            operations: HashMap::default(),
            cut: false,
            resources_cut: false,
            starts: Vec::new(),
            classes: Vec::new(),
            current: None,
            block: Block::default(),
            directory: Vec::new(),
            blocks: 0,
            max_end: i64::MIN,
        })
    }

    /// The number of a text (service, name or resource), unless there are too
    /// many.
    fn number(&mut self, which: usize, text: &[u8], code: Coded, most: usize) -> Option<u32> {
        if let Some((epoch, code)) = code
            && let Some(known) = self.by_code[which].get(epoch, code)
        {
            return Some(known);
        }
        if self.strings.size() > most {
            return None;
        }
        let number = self.strings.intern(text).0;
        if let Some((epoch, code)) = code {
            self.by_code[which].set(epoch, code, number);
        }
        Some(number)
    }

    fn name(&mut self, which: usize, text: &[u8], code: Coded) -> Name {
        match self.number(which, text, code, MAX_STRINGS) {
            Some(n) => Name::Known(n),
            None => Name::Spelt(text.to_vec()),
        }
    }

    pub fn row(&mut self, facts: &RowFacts<'_>, z: &mut Zstd) -> Result<(), SegmentError> {
        if self.current.as_ref().is_none_or(|c| c.id != facts.trace_id.0) {
            self.end_trace(z)?;
            self.current = Some(Current {
                id: facts.trace_id.0,
                end: i64::MIN,
                first: facts.start,
                ..Current::default()
            });
        }
        let service = self.name(0, facts.service, facts.codes[0]);
        let name = self.name(1, facts.name, facts.codes[1]);
        let (trace, class) = (self.starts.len() as u32, recent::class(facts.duration));
        if let (Name::Known(s), Name::Known(n)) = (&service, &name) {
            self.operations.entry(operation(*s, *n, facts.kind as u8)).or_default().add(trace, class);
        } else {
            self.cut = true;
        }
        if !facts.resource.is_empty() && facts.resource != facts.name {
            match (&service, self.number(2, facts.resource, facts.codes[2], MAX_RESOURCES)) {
                (Name::Known(s), Some(r)) => {
                    self.operations.entry(operation(*s, r, RESOURCE)).or_default().add(trace, class);
                }
                _ => self.resources_cut = true,
            }
        }
        // The first one; a report without time (tags sent later) only until
        // another one comes.
        let better = |c: &Current| c.root.is_none() || (!c.root_has_start && facts.has_start);
        let root = if facts.root && self.current.as_ref().is_some_and(better) {
            let resource = self.name(2, facts.resource, facts.codes[2]);
            let mut names = Vec::new();
            for n in [&service, &name, &resource] {
                put_name(&mut names, n);
            }
            let flags = (facts.kind as u8) << 2 | (facts.status as u8) << 5 | u8::from(facts.error) << 7;
            Some((flags, facts.start, names))
        } else {
            None
        };
        let Some(c) = &mut self.current else { return Ok(()) };
        if root.is_some() {
            c.root = root;
            c.root_has_start = facts.has_start;
        }
        c.spans += 1;
        // Without a start nothing bounds where the span lies.
        let reach = facts.duration.max(facts.start.saturating_sub(c.first));
        c.longest = c.longest.max(if facts.has_start { reach } else { i64::MAX });
        c.errors += u64::from(facts.error);
        c.orphans += u64::from(facts.orphan);
        if facts.has_start {
            c.start = Some(c.start.map_or(facts.start, |s| s.min(facts.start)));
            c.end = c.end.max(facts.start.saturating_add(facts.duration));
        }
        match c.services.iter_mut().find(|(n, _, _)| *n == service) {
            Some((_, spans, errors)) => {
                *spans += 1;
                *errors += u64::from(facts.error);
            }
            None => c.services.push((service, 1, u64::from(facts.error))),
        }
        Ok(())
    }

    fn end_trace(&mut self, z: &mut Zstd) -> Result<(), SegmentError> {
        let Some(c) = self.current.take() else { return Ok(()) };
        let b = &mut self.block;
        let start = c.start.unwrap_or(0);
        b.n += 1;
        put_varint(&mut b.spans, c.spans);
        let mut flags = u8::from(c.start.is_some()) | u8::from(c.root.is_some()) << 1;
        if let Some((root, at, names)) = &c.root {
            flags |= root;
            put_zigzag(&mut b.roots, at.wrapping_sub(start));
            b.roots.extend_from_slice(names);
        }
        b.flags.push(flags);
        b.starts.push(start);
        self.starts.push(start);
        self.classes.push(recent::class(c.longest));
        let end = if c.start.is_some() { c.end } else { 0 };
        b.lengths.push(end.wrapping_sub(start));
        if c.start.is_some() {
            self.max_end = self.max_end.max(end);
        }
        put_varint(&mut b.errors, c.errors);
        put_varint(&mut b.orphans, c.orphans);
        put_varint(&mut b.services, c.services.len() as u64);
        for (name, spans, errors) in &c.services {
            put_name(&mut b.services, name);
            put_varint(&mut b.services, *spans);
            put_varint(&mut b.services, *errors);
        }
        if b.n == TRACE_BLOCK { self.end_block(z) } else { Ok(()) }
    }

    fn end_block(&mut self, z: &mut Zstd) -> Result<(), SegmentError> {
        let b = std::mem::take(&mut self.block);
        if b.n == 0 {
            return Ok(());
        }
        let mut raw = Vec::new();
        put_varint(&mut raw, b.n as u64);
        for stream in [&b.spans, &b.flags, &b.errors, &b.orphans, &b.roots, &b.services] {
            put_text(&mut raw, stream);
        }
        put_split(&mut raw, &b.starts);
        put_split(&mut raw, &b.lengths);
        let data = z.compress(&raw)?;
        self.file.write_all(&data).map_err(SegmentError::io("write", &self.path))?;
        let d = &mut self.directory;
        put_varint(d, self.offset);
        put_varint(d, data.len() as u64);
        put_varint(d, raw.len() as u64);
        d.extend_from_slice(&crc32fast::hash(&data).to_le_bytes());
        self.offset += data.len() as u64;
        self.blocks += 1;
        Ok(())
    }

    pub fn finish(mut self, z: &mut Zstd) -> Result<Finished, SegmentError> {
        self.end_trace(z)?;
        self.end_block(z)?;
        let mut directory = Vec::new();
        put_varint(&mut directory, self.blocks);
        directory.extend_from_slice(&self.directory);
        let mut strings = Vec::new();
        put_varint(&mut strings, self.strings.len() as u64);
        for s in self.strings.iter() {
            put_text(&mut strings, s);
        }
        let ranked = recent::rank(&self.starts, &self.classes);
        let mut list: Vec<_> = self.operations.into_iter().collect();
        list.sort_unstable_by_key(|(operation, _)| *operation);
        let mut lists = ListParts::default();
        let mut operations =
            vec![if self.cut { CUT } else { 0 } | if self.resources_cut { RESOURCES_CUT } else { 0 }];
        let mut entries = Vec::new();
        for of_service in list.chunk_by(|a, b| a.0 >> 36 == b.0 >> 36) {
            entries.clear();
            for (operation, traces) in of_service {
                let listed = Listed {
                    name: (operation >> 8 & 0xfff_ffff) as u32,
                    kind: *operation as u8,
                    list: Some(lists.put(traces, &ranked.ranks)),
                };
                listed.put(&mut entries);
            }
            let service = of_service.first().map_or(0, |(operation, _)| operation >> 36);
            put_varint(&mut operations, service);
            put_text(&mut operations, &entries);
        }
        Ok(Finished {
            file: self.file,
            directory,
            strings,
            operations,
            lists: lists.parts,
            times: ranked.times,
            order: ranked.order,
            max_end: self.max_end,
        })
    }
}

/// Where a block of traces lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPlace {
    pub offset: u64,
    pub len: usize,
    pub raw: usize,
    pub crc: u32,
}

pub(crate) fn read_directory(raw: &[u8]) -> Decoded<Vec<BlockPlace>> {
    let mut r = Reader::new(raw);
    let n = r.count(raw.len() / 7)?;
    (0..n)
        .map(|_| {
            Ok(BlockPlace {
                offset: r.varint()?,
                len: r.count(format::MAX_RAW)?,
                raw: r.count(format::MAX_RAW)?,
                crc: r.u32()?,
            })
        })
        .collect()
}

/// The names that records refer to.
#[derive(Debug, Default)]
pub(crate) struct Strings {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Strings {
    pub fn read(raw: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(raw);
        let n = r.count(raw.len())?;
        let mut out = Self { bytes: Vec::new(), ends: Vec::with_capacity(n) };
        for _ in 0..n {
            out.bytes.extend_from_slice(r.text()?);
            out.ends.push(out.bytes.len() as u32);
        }
        Ok(out)
    }
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, n: usize) -> Option<&[u8]> {
        let end = *self.ends.get(n)? as usize;
        let start = if n == 0 { 0 } else { self.ends[n - 1] as usize };
        self.bytes.get(start..end)
    }
    pub fn size(&self) -> usize {
        self.bytes.len() + self.ends.len() * 4
    }
}

/// An operation or resource of a service, by the number of its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    pub name: u32,
    /// Number of its kind, or [`RESOURCE`].
    kind: u8,
    /// List of its traces; none if version 1 left it out.
    pub list: Option<ListPlace>,
}

impl Listed {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.name));
        out.push(self.kind);
        put_varint(out, self.list.map_or(0, |l| u64::from(l.part) + 1));
        if let Some(list) = self.list {
            put_varint(out, u64::from(list.at));
            put_varint(out, u64::from(list.len));
        }
    }

    fn read(r: &mut Reader<'_>) -> Decoded<Self> {
        let (name, kind) = (number(r)?, r.u8()?);
        let list = match number(r)? {
            0 => None,
            part => Some(ListPlace { part: part - 1, at: number(r)?, len: number(r)? }),
        };
        Ok(Self { name, kind, list })
    }
}

fn number(r: &mut Reader<'_>) -> Decoded<u32> {
    r.count(u32::MAX as usize).map(|n| n as u32)
}

/// All operations and resources by service, and whether some are missing.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    raw: Vec<u8>,
    /// Number of each service's name, and where in `raw` its entries are.
    pub services: Vec<(u32, std::ops::Range<usize>)>,
    pub cut: bool,
    /// Resources are not (all) listed: names alone do not say where a text is.
    pub resources_cut: bool,
}

impl Operations {
    pub fn read(raw: Vec<u8>, version: u32) -> Decoded<Self> {
        if version == 1 {
            return Self::read_v1(&raw);
        }
        let mut r = Reader::new(&raw);
        let bits = r.u8()?;
        let mut services = Vec::new();
        while !r.is_empty() {
            let service = number(&mut r)?;
            let entries = r.text()?.len();
            let end = raw.len() - r.left();
            services.push((service, end - entries..end));
        }
        Ok(Self { services, cut: bits & CUT != 0, resources_cut: bits & RESOURCES_CUT != 0, raw })
    }

    /// Version 1 has one list, sorted by service, without resources.
    fn read_v1(raw: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(raw);
        let mut out = Self { cut: r.u8()? & CUT != 0, resources_cut: true, ..Self::default() };
        for _ in 0..r.count(raw.len() / 4)? {
            let (service, name, kind) = (number(&mut r)?, number(&mut r)?, r.u8()?);
            let list = match number(&mut r)? {
                0 => None,
                part => Some(ListPlace { part: part - 1, at: number(&mut r)?, len: 0 }),
            };
            let start = out.raw.len();
            Listed { name, kind, list }.put(&mut out.raw);
            match out.services.last_mut().filter(|s| s.0 == service) {
                Some((_, entries)) => entries.end = out.raw.len(),
                None => out.services.push((service, start..out.raw.len())),
            }
        }
        Ok(out)
    }

    /// Calls back with the entries of a service.
    pub fn each(&self, entries: &std::ops::Range<usize>, mut f: impl FnMut(Listed)) -> Decoded<()> {
        let mut r = Reader::new(self.raw.get(entries.clone()).unwrap_or_default());
        while !r.is_empty() {
            f(Listed::read(&mut r)?);
        }
        Ok(())
    }

    /// Calls back with all services and operations.
    pub fn names(&self, strings: &Strings, mut f: impl FnMut(&str, Operation)) -> Decoded<()> {
        let missing = Malformed("an operation names nothing");
        for (service, entries) in &self.services {
            let service = strings.get(*service as usize).ok_or(missing)?;
            let service = String::from_utf8_lossy(service);
            let mut all_named = true;
            self.each(entries, |entry| {
                if entry.kind == RESOURCE {
                    return;
                }
                let kind = SpanKind::from_number(u32::from(entry.kind));
                match strings.get(entry.name as usize) {
                    Some(name) => {
                        let name = String::from_utf8_lossy(name).into_owned();
                        f(&service, Operation { name, kind });
                    }
                    None => all_named = false,
                }
            })?;
            if !all_named {
                return Err(missing);
            }
        }
        Ok(())
    }

    pub fn size(&self) -> usize {
        self.raw.len() + self.services.len() * size_of::<(u32, std::ops::Range<usize>)>()
    }
}

/// A decoded block of traces.
#[derive(Debug)]
pub(crate) struct TraceBlock {
    pub starts: Vec<i64>,
    pub lengths: Vec<i64>,
    flags: Vec<u8>,
    raw: Vec<u8>,
    /// Per trace: positions in `raw` of spans, errors, orphans, root, services.
    at: Vec<[u32; 5]>,
}

fn read_name(r: &mut Reader<'_>, strings: &Strings) -> Decoded<String> {
    let n = r.count(u32::MAX as usize)?;
    let bytes =
        if n == 0 { r.text()? } else { strings.get(n - 1).ok_or(Malformed("a name is not known"))? };
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn skip_name(r: &mut Reader<'_>) -> Decoded<()> {
    if r.varint()? == 0 {
        r.text()?;
    }
    Ok(())
}

impl TraceBlock {
    pub fn read(raw: Vec<u8>) -> Decoded<Self> {
        let mut r = Reader::new(&raw);
        let n = r.count(trace_block(1))?;
        let total = raw.len();
        let mut streams = [(0usize, 0usize); 6];
        for s in &mut streams {
            let text = r.text()?;
            let end = total - r.left();
            *s = (end - text.len(), end);
        }
        let starts = read_split(&mut r, n)?;
        let lengths = read_split(&mut r, n)?;
        let [spans, flags, errors, orphans, roots, services] = streams;
        let flags = raw[flags.0..flags.1].to_vec();
        if flags.len() != n {
            return Err(Malformed("a block of traces does not add up"));
        }
        let mut readers =
            [spans, errors, orphans, roots, services].map(|(a, b)| (Reader::new(&raw[a..b]), b));
        let mut at = Vec::with_capacity(n);
        for f in &flags {
            let mut here = [0u32; 5];
            for (h, (r, end)) in here.iter_mut().zip(&readers) {
                *h = (end - r.left()) as u32;
            }
            at.push(here);
            for (r, _) in &mut readers[..3] {
                r.varint()?;
            }
            if f & 2 != 0 {
                let r = &mut readers[3].0;
                r.varint()?;
                for _ in 0..3 {
                    skip_name(r)?;
                }
            }
            let r = &mut readers[4].0;
            for _ in 0..r.count(r.left())? {
                skip_name(r)?;
                r.varint()?;
                r.varint()?;
            }
        }
        Ok(Self { starts, lengths, flags, raw, at })
    }

    pub fn size(&self) -> usize {
        self.raw.len() + self.at.len() * 37
    }

    fn place(&self, i: usize, stream: usize) -> Decoded<usize> {
        Ok(self.at.get(i).ok_or(Malformed("a trace is not in its block"))?[stream] as usize)
    }

    pub fn part(&self, i: usize, trace_id: TraceId, strings: &Strings) -> Decoded<TracePart> {
        let number = |stream: usize| Reader::new(&self.raw[self.place(i, stream)?..]).varint();
        let (spans, errors, orphans) = (number(0)?, number(1)?, number(2)?);
        let flags = self.flags[i];
        let start = self.starts[i];
        let root = if flags & 2 != 0 {
            let mut r = Reader::new(&self.raw[self.place(i, 3)?..]);
            let at = start.wrapping_add(r.zigzag()?);
            Some(RootSpan {
                service: read_name(&mut r, strings)?,
                name: read_name(&mut r, strings)?,
                resource: read_name(&mut r, strings)?,
                kind: SpanKind::from_number(u32::from(flags >> 2 & 7)),
                status: Status::from_number(u32::from(flags >> 5 & 3)),
                error: flags >> 7 != 0,
                start: at,
            })
        } else {
            None
        };
        let mut r = Reader::new(&self.raw[self.place(i, 4)?..]);
        let mut services = Vec::new();
        for _ in 0..r.count(r.left())? {
            services.push(ServiceCount {
                name: read_name(&mut r, strings)?,
                spans: r.varint()?,
                errors: r.varint()?,
            });
        }
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let has_start = flags & 1 != 0;
        Ok(TracePart {
            trace_id,
            spans,
            errors,
            orphans,
            start: has_start.then_some(start),
            end: if has_start { start.wrapping_add(self.lengths[i]) } else { 0 },
            root,
            services,
        })
    }
}
