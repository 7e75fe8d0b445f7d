//! Writing a segment directory: `spans.parquet`, `traces` and `index`.
//!
//! [`SegmentWriter`] takes rows in order of (trace id, start). Memory is
//! bounded by one row group of compressed pages and its dictionaries.

use crate::column::{BLOCK, Chunk, ColumnWriter, GROUP_BLOCKS, Page, Zstd, enc, put_postings};
use crate::encoding::{put_text, put_varint, put_zigzag, stable_hash};
use crate::error::SegmentError;
use crate::format::{self, Section, SectionKey};
use crate::meta::SegmentMeta;
use crate::rows::{kind_of, status_of};
use crate::schema::{self, Column};
use crate::tags::Entries;
use crate::traces::{RowFacts, TraceTable};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page as ParquetPage, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue, OffsetIndexBuilder, SortingColumn};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedFileWriter, SerializedPageWriter, TrackedWrite};
use parquet::schema::types::SchemaDescriptor;
use spanloom_model::{Status, TraceId, flags};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A row group is closed at a block boundary once its columns hold this much.
const GROUP_BYTES: usize = 16 << 20;

/// How to write a segment.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Number that makes the directory name unique; also reported by
    /// [`SegmentMeta::id`].
    pub id: u64,
    /// zstd level of pages and index sections (1–22). With 1, which is for
    /// segments that will soon be merged, the writer does not try out either
    /// which form of a column is smaller.
    pub level: i32,
    /// Whether files and directories are synced before the segment appears
    /// under its name.
    pub sync: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { id: 0, level: 3, sync: true }
    }
}

/// Minimum and maximum over the rows of a block.
struct Zone {
    min_start: i64,
    max_start: i64,
    min_duration: i64,
    max_duration: i64,
}

impl Zone {
    const EMPTY: Self =
        Self { min_start: i64::MAX, max_start: i64::MIN, min_duration: i64::MAX, max_duration: i64::MIN };
}

pub(crate) struct SegmentWriter {
    parent: PathBuf,
    temp: PathBuf,
    options: WriteOptions,
    pub columns: Vec<Column>,
    pub cols: Vec<ColumnWriter>,
    file: SerializedFileWriter<File>,
    descriptor: Arc<SchemaDescriptor>,
    z: Zstd,
    sections: Vec<Section>,
    index: Vec<u8>,
    index_file: File,
    index_len: u64,
    traces: Option<TraceTable>,
    zones: Vec<Zone>,
    zone: Zone,
    block_rows: usize,
    group_rows: usize,
    group: u32,
    groups: Vec<usize>,
    rows: u64,
    /// Rows that [`Self::read_back`] has not seen.
    unread: usize,
    fences: Vec<u8>,
    /// Number of the trace of each row of the row group.
    ordinals: Vec<u32>,
    last_trace: Option<u128>,
    ordinal: u32,
    filter: Vec<u8>,
    meta: SegmentMeta,
}

impl SegmentWriter {
    /// Starts a segment below `parent`. `expected_traces` sizes the filter.
    pub fn create(
        parent: &Path,
        options: &WriteOptions,
        columns: Vec<Column>,
        expected_traces: usize,
    ) -> Result<Self, SegmentError> {
        let temp = parent.join(format!("tmp-seg-{:016x}", options.id));
        if temp.exists() {
            std::fs::remove_dir_all(&temp).map_err(SegmentError::io("remove", &temp))?;
        }
        std::fs::create_dir_all(&temp).map_err(SegmentError::io("create", &temp))?;
        let create = |name: &str| {
            let path = temp.join(name);
            File::create(&path).map_err(SegmentError::io("create", &path))
        };
        let sorting = vec![
            SortingColumn { column_idx: schema::TRACE_ID as i32, descending: false, nulls_first: false },
            SortingColumn { column_idx: schema::START as i32, descending: false, nulls_first: false },
        ];
        let properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(options.level)?))
            .set_created_by("spanloom".to_owned())
            .set_sorting_columns(Some(sorting))
            .set_key_value_metadata(Some(vec![KeyValue::new(
                "spanloom.format".to_owned(),
                format::VERSION.to_string(),
            )]))
            .build();
        let schema = schema::parquet(&columns)?;
        let descriptor = Arc::new(SchemaDescriptor::new(schema.clone()));
        let file = SerializedFileWriter::new(create(format::SPANS)?, schema, Arc::new(properties))?;
        let mut index_file = create(format::INDEX)?;
        let index_path = temp.join(format::INDEX);
        index_file.write_all(format::MAGIC).map_err(SegmentError::io("write", &index_path))?;
        let traces = TraceTable::create(&temp)?;
        Ok(Self {
            parent: parent.to_owned(),
            options: *options,
            cols: columns.iter().enumerate().map(|(i, c)| ColumnWriter::new(i, c)).collect(),
            columns,
            file,
            descriptor,
            z: Zstd::new(options.level)?,
            sections: Vec::new(),
            index: Vec::new(),
            index_file,
            index_len: format::MAGIC.len() as u64,
            traces: Some(traces),
            zones: Vec::new(),
            zone: Zone::EMPTY,
            block_rows: 0,
            group_rows: 0,
            group: 0,
            groups: Vec::new(),
            rows: 0,
            unread: 0,
            fences: Vec::new(),
            ordinals: Vec::new(),
            last_trace: None,
            ordinal: 0,
            filter: vec![0; (expected_traces.max(1) * 10).div_ceil(8)],
            meta: SegmentMeta::empty(options.id),
            temp,
        })
    }

    /// Ends a row whose columns have been pushed.
    pub fn end_row(&mut self) -> Result<(), SegmentError> {
        self.end_rows(1)
    }

    /// Ends several; no more than the open block takes.
    pub fn end_rows(&mut self, n: usize) -> Result<(), SegmentError> {
        self.rows += n as u64;
        self.group_rows += n;
        self.block_rows += n;
        self.unread += n;
        if self.block_rows == BLOCK { self.end_block() } else { Ok(()) }
    }

    /// Reads the rows written since the last time back from the open pages:
    /// for zones, the trace filter and the trace table.
    fn read_back(&mut self) -> Result<(), SegmentError> {
        let n = std::mem::take(&mut self.unread);
        let Some(table) = &mut self.traces else { return Ok(()) };
        let col = |c: usize| self.cols[c].written(n);
        let ids = col(schema::TRACE_ID).ids;
        let (mut starts, mut durations) = (col(schema::START), col(schema::DURATION));
        let (mut spans, mut flag_words) = (col(schema::SPAN_ID), col(schema::FLAGS));
        let (mut backs, mut parents) = (col(schema::PARENT_ROW), col(schema::PARENT_ID));
        let (mut errors, mut kinds, mut statuses) =
            (col(schema::ERROR), col(schema::KIND), col(schema::STATUS));
        let (mut services, mut names) = (col(schema::SERVICE), col(schema::NAME));
        let mut resources = col(schema::RESOURCE);
        for id in ids {
            if self.last_trace != Some(*id) {
                if self.last_trace.is_some() {
                    self.ordinal += 1;
                }
                self.last_trace = Some(*id);
                format::set_trace(&mut self.filter, stable_hash(&id.to_be_bytes()));
            }
            self.ordinals.push(self.ordinal);
            let (start, duration) = (starts.word().unwrap_or(0), durations.word().unwrap_or(0));
            let z = &mut self.zone;
            z.min_start = z.min_start.min(start);
            z.max_start = z.max_start.max(start);
            z.min_duration = z.min_duration.min(duration);
            z.max_duration = z.max_duration.max(duration);
            let (back, parent, span) = (backs.word().unwrap_or(0), parents.word(), spans.word());
            let status = status_of(statuses.text().0);
            let ((service, s), (name, n), (resource, r)) = (services.text(), names.text(), resources.text());
            let facts = RowFacts {
                trace_id: TraceId(*id),
                start,
                has_start: flag_words.word().unwrap_or(0) as u64 & flags::NO_START == 0,
                duration,
                error: errors.word().unwrap_or(0) != 0 || status == Status::Error,
                orphan: parent.is_some() && parent != span,
                root: back == 0 && parent.is_none(),
                kind: kind_of(kinds.text().0),
                status,
                service,
                name,
                resource,
                codes: [s, n, r],
            };
            table.row(&facts, &mut self.z)?;
        }
        Ok(())
    }

    /// Rows that the open block still takes.
    pub const fn block_left(&self) -> usize {
        BLOCK - self.block_rows
    }

    /// To be called between rows now and then when values are large: closes
    /// large pages, and the row group when it holds enough.
    pub fn settle(&mut self) -> Result<(), SegmentError> {
        self.read_back()?;
        let mut held = 0;
        for c in &mut self.cols {
            c.end_row(&mut self.z)?;
            held += c.held();
        }
        if held > GROUP_BYTES && self.block_rows > 0 {
            // The last block of a row group may be short.
            self.block_rows = 0;
            self.zones.push(std::mem::replace(&mut self.zone, Zone::EMPTY));
            self.end_group()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), SegmentError> {
        self.read_back()?;
        self.block_rows = 0;
        self.zones.push(std::mem::replace(&mut self.zone, Zone::EMPTY));
        let mut held = 0;
        for c in &mut self.cols {
            c.end_block(&mut self.z)?;
            held += c.held();
        }
        if self.zones.len() == GROUP_BLOCKS || held > GROUP_BYTES {
            self.end_group()?;
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), SegmentError> {
        let blocks = self.zones.len();
        let mut directory = Vec::new();
        put_varint(&mut directory, self.group_rows as u64);
        let mut zones = Vec::new();
        put_varint(&mut zones, blocks as u64);
        for z in self.zones.drain(..) {
            self.meta.min_start = self.meta.min_start.min(z.min_start);
            self.meta.max_start = self.meta.max_start.max(z.max_start);
            put_zigzag(&mut zones, z.min_start);
            put_varint(&mut zones, z.max_start.wrapping_sub(z.min_start) as u64);
            put_zigzag(&mut zones, z.min_duration);
            put_varint(&mut zones, z.max_duration.wrapping_sub(z.min_duration) as u64);
        }
        let rows = self.group_rows;
        let mut chunks = Vec::new();
        let descriptor = self.descriptor.clone();
        let mut row_group = self.file.next_row_group()?;
        for (i, col) in self.cols.iter_mut().enumerate() {
            let mut chunk = col.finish(&mut self.z)?;
            let (bytes, close, offsets) = parquet_chunk(&mut chunk, &descriptor.column(i), rows)?;
            row_group.append_column(&bytes, close)?;
            chunks.push((chunk, offsets));
        }
        let closed = row_group.close()?;
        let mut posted = vec![(SectionKey::zones(self.group), zones)];
        let mut tags = Entries::default();
        for (i, (mut chunk, offsets)) in chunks.into_iter().enumerate() {
            let at = closed.columns().get(i).map_or(0, |c| c.byte_range().0);
            put_chunk(&mut directory, &chunk, &offsets, at);
            if i == schema::TRACE_ID {
                for (page, id) in chunk.pages.iter().zip(&chunk.first_ids) {
                    self.fences.extend_from_slice(&id.to_be_bytes());
                    put_varint(&mut self.fences, u64::from(self.group));
                    put_varint(&mut self.fences, page.first_row as u64);
                    let ordinal = self.ordinals.get(page.first_row).copied().unwrap_or(0);
                    put_varint(&mut self.fences, u64::from(ordinal));
                }
            }
            if !chunk.postings.is_empty() {
                let mut out = Vec::new();
                put_postings(&mut out, &chunk.postings, blocks);
                posted.push((SectionKey::postings(self.group, i), out));
            }
            tags.append(&mut chunk.tags);
        }
        let (pages, tag_directory) = tags.finish(self.index_len);
        self.index_len += pages.len() as u64;
        self.index.extend_from_slice(&pages);
        posted.push((SectionKey::tags(self.group), tag_directory));
        self.section(SectionKey::group(self.group), &directory)?;
        for (key, bytes) in posted {
            self.section(key, &bytes)?;
        }
        self.ordinals.clear();
        self.group += 1;
        self.groups.push(rows);
        self.group_rows = 0;
        Ok(())
    }

    fn section(&mut self, key: SectionKey, raw: &[u8]) -> Result<(), SegmentError> {
        let data = self.z.compress(raw)?;
        self.sections.push(Section {
            key,
            offset: self.index_len,
            len: data.len() as u32,
            raw: raw.len() as u32,
            crc: crc32fast::hash(&data),
        });
        self.index_len += data.len() as u64;
        self.index.extend_from_slice(&data);
        self.flush_index(false)
    }

    fn flush_index(&mut self, all: bool) -> Result<(), SegmentError> {
        if all || self.index.len() > 1 << 20 {
            let path = self.temp.join(format::INDEX);
            self.index_file.write_all(&self.index).map_err(SegmentError::io("write", &path))?;
            self.index.clear();
        }
        Ok(())
    }

    /// Writes what is left, syncs and gives the directory its name.
    pub fn finish(mut self) -> Result<SegmentMeta, SegmentError> {
        if self.rows == 0 {
            let _ = std::fs::remove_dir_all(&self.temp);
            return Err(SegmentError::Empty);
        }
        self.read_back()?;
        if self.block_rows > 0 {
            self.block_rows = 0;
            self.zones.push(std::mem::replace(&mut self.zone, Zone::EMPTY));
        }
        if !self.zones.is_empty() {
            self.end_group()?;
        }
        let Some(traces) = self.traces.take() else { return Err(SegmentError::Empty) };
        let table = traces.finish(&mut self.z)?;
        self.meta.spans = self.rows;
        self.meta.traces = u64::from(self.ordinal) + 1;
        self.meta.max_end = table.max_end;
        let mut columns = Vec::new();
        put_varint(&mut columns, self.columns.len() as u64);
        for c in &self.columns {
            match &c.attr {
                None => columns.push(0),
                Some((key, kind)) => {
                    columns.push(1);
                    put_text(&mut columns, kind.name().as_bytes());
                    put_text(&mut columns, key.as_bytes());
                }
            }
        }
        let mut meta = Vec::new();
        put_varint(&mut meta, self.meta.id);
        put_varint(&mut meta, self.meta.spans);
        put_varint(&mut meta, self.meta.traces);
        put_varint(&mut meta, u64::from(self.group));
        for rows in &self.groups {
            put_varint(&mut meta, *rows as u64);
        }
        put_zigzag(&mut meta, self.meta.min_start);
        put_zigzag(&mut meta, self.meta.max_start);
        put_zigzag(&mut meta, self.meta.max_end);
        let fences = std::mem::take(&mut self.fences);
        let filter = std::mem::take(&mut self.filter);
        self.section(SectionKey::FENCES, &fences)?;
        self.section(SectionKey::TRACE_FILTER, &filter)?;
        self.section(SectionKey::STRINGS, &table.strings)?;
        self.section(SectionKey::OPERATIONS, &table.operations)?;
        self.section(SectionKey::TIMES, &table.times)?;
        for (n, part) in table.order.iter().enumerate() {
            self.section(SectionKey::order(n as u32), part)?;
        }
        for (n, part) in table.lists.iter().enumerate() {
            self.section(SectionKey::operation_lists(n as u32), part)?;
        }
        self.section(SectionKey::TRACES, &table.directory)?;
        self.section(SectionKey::COLUMNS, &columns)?;
        self.section(SectionKey::META, &meta)?;
        let tail = format::put_directory(&self.sections, self.index_len, &mut self.z)?;
        self.index.extend_from_slice(&tail);
        self.flush_index(true)?;
        let spans_path = self.temp.join(format::SPANS);
        let spans = self.file.into_inner()?;
        let sync = |file: &File, path: &Path| {
            if self.options.sync { file.sync_all().map_err(SegmentError::io("sync", path)) } else { Ok(()) }
        };
        sync(&spans, &spans_path)?;
        sync(&table.file, &self.temp.join(format::TRACES))?;
        sync(&self.index_file, &self.temp.join(format::INDEX))?;
        let name = format!(
            "seg-{:020}-{:020}-{:016x}",
            self.meta.min_start.max(0),
            self.meta.max_start.max(0),
            self.options.id
        );
        let path = self.parent.join(&name);
        let sync_dir = |dir: &Path| match File::open(dir) {
            Ok(d) => sync(&d, dir),
            Err(e) => Err(SegmentError::io("open", dir)(e)),
        };
        sync_dir(&self.temp)?;
        std::fs::rename(&self.temp, &path).map_err(SegmentError::io("rename", &self.temp))?;
        sync_dir(&self.parent)?;
        for file in [format::SPANS, format::TRACES, format::INDEX] {
            let file = path.join(file);
            self.meta.bytes += std::fs::metadata(&file).map_err(SegmentError::io("stat", &file))?.len();
        }
        self.meta.name = name;
        Ok(self.meta)
    }
}

/// Serialises the pages of a chunk with their headers. Returns the bytes, the
/// metadata, and where in the bytes the data of the dictionary (first, if
/// any) and of each page begin.
fn parquet_chunk(
    chunk: &mut Chunk,
    descriptor: &parquet::schema::types::ColumnDescPtr,
    rows: usize,
) -> Result<(Bytes, ColumnCloseResult, Vec<u64>), SegmentError> {
    let mut sink = TrackedWrite::new(Vec::new());
    let mut offsets = Vec::new();
    let mut index = OffsetIndexBuilder::new();
    let mut encodings = vec![Encoding::RLE];
    let (mut raw_total, mut total) = (0i64, 0i64);
    let mut dict_at = None;
    let mut data_at = None;
    {
        let mut pages = SerializedPageWriter::new(&mut sink);
        if let Some((dict, values)) = &mut chunk.dict {
            let page = ParquetPage::DictionaryPage {
                buf: Bytes::from(std::mem::take(&mut dict.data)),
                num_values: *values as u32,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            let spec = pages.write_page(CompressedPage::new(page, dict.raw))?;
            dict_at = Some(spec.offset as i64);
            let header = spec.bytes_written - dict.len as u64;
            offsets.push(spec.offset + header);
            raw_total += (dict.raw as u64 + header) as i64;
            total += spec.bytes_written as i64;
            encodings.push(Encoding::PLAIN);
        }
        for p in &mut chunk.pages {
            let encoding = match p.enc {
                enc::DICT => Encoding::RLE_DICTIONARY,
                enc::TEXTS => Encoding::DELTA_LENGTH_BYTE_ARRAY,
                enc::IDS => Encoding::DELTA_BYTE_ARRAY,
                _ => Encoding::BYTE_STREAM_SPLIT,
            };
            if !encodings.contains(&encoding) {
                encodings.push(encoding);
            }
            let page = ParquetPage::DataPage {
                buf: Bytes::from(std::mem::take(&mut p.data)),
                num_values: p.rows as u32,
                encoding,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let spec = pages.write_page(CompressedPage::new(page, p.raw))?;
            let header = spec.bytes_written - p.len as u64;
            data_at.get_or_insert(spec.offset as i64);
            offsets.push(spec.offset + header);
            raw_total += (p.raw as u64 + header) as i64;
            total += spec.bytes_written as i64;
            index.append_row_count(p.rows as i64);
            index.append_offset_and_size(spec.offset as i64, spec.bytes_written as i32);
        }
    }
    let metadata = ColumnChunkMetaData::builder(descriptor.clone())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_encodings(encodings)
        .set_total_compressed_size(total)
        .set_total_uncompressed_size(raw_total)
        .set_num_values(rows as i64)
        .set_data_page_offset(data_at.unwrap_or(0))
        .set_dictionary_page_offset(dict_at)
        .build()?;
    let close = ColumnCloseResult {
        bytes_written: total as u64,
        rows_written: rows as u64,
        metadata,
        bloom_filter: None,
        column_index: None,
        offset_index: Some(index.build()),
    };
    sink.flush().map_err(SegmentError::io("buffer", "".as_ref()))?;
    Ok((Bytes::from(sink.into_inner()?), close, offsets))
}

/// Appends the page directory of a chunk that begins at `at` in the file.
fn put_chunk(out: &mut Vec<u8>, chunk: &Chunk, offsets: &[u64], at: u64) {
    let mut offsets = offsets.iter();
    let mut last = 0;
    let mut place = |out: &mut Vec<u8>, page: &Page| {
        let offset = at + offsets.next().copied().unwrap_or(0);
        put_varint(out, offset - last);
        last = offset;
        put_varint(out, page.len as u64);
        put_varint(out, page.raw as u64);
        out.extend_from_slice(&page.crc.to_le_bytes());
    };
    match &chunk.dict {
        Some((dict, values)) => {
            put_varint(out, *values as u64 + 1);
            place(out, dict);
        }
        None => out.push(0),
    }
    put_varint(out, chunk.pages.len() as u64);
    for p in &chunk.pages {
        out.push(p.enc);
        put_varint(out, p.rows as u64);
        place(out, p);
    }
    for w in chunk.filled {
        out.extend_from_slice(&w.to_le_bytes());
    }
}
