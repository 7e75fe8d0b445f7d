//! Several segments to one.
//!
//! A k-way merge by trace id, column by column and code by code: a value is
//! looked up in the output's dictionary once per row group, not once per
//! row. Memory is one decoded page per input and column, and one row group of
//! compressed output.

use crate::column::ColumnWriter;
use crate::content::{content, parent_rows};
use crate::error::{Malformed, SegmentError};
use crate::format;
use crate::meta::SegmentMeta;
use crate::page::{NO_CODE, Page};
use crate::rows::{Assembler, View};
use crate::schema::{self as s, Column};
use crate::segment::Segment;
use crate::writer::{SegmentWriter, WriteOptions};
use spanloom_model::{SpanId, TraceId};
use std::path::Path;

/// Contiguous rows of an input.
#[derive(Clone, Copy, Debug)]
struct Run {
    input: usize,
    group: u32,
    row: usize,
    len: usize,
}

/// Writes the spans of several segments as one new segment below
/// `parent_dir`, without the traces for which `drop` holds. Spans that are
/// equal in every field are written once. The inputs stay as they are.
///
/// # Errors
/// [`SegmentError::Empty`] if no span is left; damage of an input; what the
/// disk says.
pub fn merge(
    parent_dir: &Path,
    inputs: &[&Segment],
    options: &WriteOptions,
    drop: &dyn Fn(TraceId) -> bool,
) -> Result<SegmentMeta, SegmentError> {
    let mut columns = s::fixed();
    for input in inputs {
        for c in &input.columns[s::FIXED..] {
            if !columns.contains(c) {
                columns.push(c.clone());
            }
        }
    }
    if columns.len() > s::MAX_COLUMNS {
        return Err(SegmentError::TooManyColumns(columns.len()));
    }
    let traces = inputs.iter().map(|i| i.meta.traces as usize).sum();
    let mut sources: Vec<Source<'_>> = inputs.iter().map(|i| Source::new(i, &columns)).collect();
    for source in &mut sources {
        source.advance()?;
    }
    let writer = SegmentWriter::create(parent_dir, options, columns, traces)?;
    let mut merger = Merger { writer, sources, runs: Vec::new(), rows: 0, parents: Vec::new() };
    while let Some(id) = merger.sources.iter().filter_map(|s| s.id).min() {
        let here: Vec<usize> =
            (0..merger.sources.len()).filter(|i| merger.sources[*i].id == Some(id)).collect();
        if !drop(TraceId(id)) {
            match here[..] {
                [one] => {
                    for n in 0..merger.sources[one].extents.len() {
                        let (group, rows) = merger.sources[one].extents[n].clone();
                        merger.add(one, group, rows)?;
                    }
                }
                _ => merger.join(&here)?,
            }
        }
        for i in here {
            merger.sources[i].advance()?;
        }
    }
    merger.flush()?;
    merger.writer.finish()
}

/// Reader of one column of an input, in order of rows.
#[derive(Default)]
struct Cursor {
    group: u32,
    number: usize,
    page: Option<Page>,
    /// Output code + 1 by input code, valid for an epoch of the output.
    remap: Vec<u32>,
    epoch: u32,
}

impl Cursor {
    /// The page that holds a row.
    fn page(
        &mut self,
        segment: &Segment,
        column: usize,
        group: u32,
        row: usize,
    ) -> Result<&Page, SegmentError> {
        let there = self.group == group && self.page.as_ref().is_some_and(|p| p.has(row));
        if !there {
            let dir = segment.group(group)?;
            if self.group != group {
                self.remap.clear();
            }
            self.group = group;
            self.number = dir.columns[column].pages.partition_point(|p| p.first_row + p.rows <= row);
            self.page = None;
            self.page = Some(segment.load_page(group, column, self.number)?);
        }
        self.page.as_ref().ok_or_else(|| segment.damaged(format::SPANS, Malformed("a row is missing")))
    }

    /// Copies rows to a column of the output.
    fn copy(
        &mut self,
        segment: &Segment,
        column: usize,
        run: &Run,
        to: &mut ColumnWriter,
    ) -> Result<(), SegmentError> {
        let (mut row, end) = (run.row, run.row + run.len);
        while row < end {
            self.page(segment, column, run.group, row)?;
            let Some(page) = &self.page else { break };
            let stop = end.min(page.first_row + page.rows);
            if let Some((codes, dict)) = page.codes() {
                let codes = &codes[row - page.first_row..stop - page.first_row];
                match to.epoch() {
                    None => {
                        for code in codes {
                            if *code == NO_CODE {
                                to.push_null();
                            } else {
                                to.push(dict.bytes(u32::from(*code)));
                            }
                        }
                    }
                    Some(epoch) => {
                        if epoch != self.epoch || self.remap.len() != dict.len() {
                            self.remap.clear();
                            self.remap.resize(dict.len(), 0);
                            self.epoch = epoch;
                        }
                        for code in codes {
                            if *code == NO_CODE {
                                to.push_null();
                                continue;
                            }
                            let known = &mut self.remap[usize::from(*code)];
                            if *known == 0 {
                                *known = to.code_of(dict.bytes(u32::from(*code))).map_or(0, |c| c + 1);
                            }
                            to.push_code(*known - 1);
                        }
                    }
                }
            } else if column == s::TRACE_ID {
                let mut at = row;
                while let Some((i, id)) = page.id_at(at).filter(|_| at < stop) {
                    let end = (page.first_row + page.ids().1[i] as usize).min(stop);
                    (at..end).for_each(|_| to.push_id(id));
                    at = end;
                }
            } else {
                for row in row..stop {
                    match (page.bytes(row), page.word(row)) {
                        (Some(bytes), _) => to.push(bytes),
                        (None, Some(word)) => to.push_word(word),
                        (None, None) => to.push_null(),
                    }
                }
            }
            row = stop;
        }
        Ok(())
    }
}

/// An input: its traces in order, and its columns.
struct Source<'s> {
    segment: &'s Segment,
    /// Column of the input for each column of the output.
    columns: Vec<Option<usize>>,
    cursors: Vec<Cursor>,
    ids: Cursor,
    /// Next row that belongs to no trace read so far.
    group: u32,
    row: usize,
    /// The current trace and its rows.
    id: Option<u128>,
    extents: Vec<(u32, std::ops::Range<usize>)>,
}

impl<'s> Source<'s> {
    fn new(segment: &'s Segment, columns: &[Column]) -> Self {
        Self {
            segment,
            columns: columns.iter().map(|c| segment.columns.iter().position(|o| o == c)).collect(),
            cursors: columns.iter().map(|_| Cursor::default()).collect(),
            ids: Cursor::default(),
            group: 0,
            row: 0,
            id: None,
            extents: Vec::new(),
        }
    }

    /// Moves to the next trace.
    fn advance(&mut self) -> Result<(), SegmentError> {
        let last = self.id.take();
        self.extents.clear();
        while let Some(rows) = self.segment.group_rows.get(self.group as usize) {
            if self.row as u64 >= *rows {
                self.group += 1;
                self.row = 0;
                continue;
            }
            let page = self.ids.page(self.segment, s::TRACE_ID, self.group, self.row)?;
            let Some((i, first)) = page.id_at(self.row) else { break };
            match self.id {
                None if last.is_some_and(|l| l >= first) => {
                    return Err(self.segment.damaged(format::SPANS, Malformed("rows are not sorted")));
                }
                None => self.id = Some(first),
                Some(id) if id != first => break,
                Some(_) => {}
            }
            let end = page.first_row + page.ids().1[i] as usize;
            let whole = end < page.first_row + page.rows;
            let n = end - self.row;
            self.extents.push((self.group, self.row..self.row + n));
            self.row += n;
            if whole {
                break;
            }
        }
        Ok(())
    }

    fn word(&mut self, column: usize, group: u32, row: usize) -> Result<Option<i64>, SegmentError> {
        Ok(self.cursors[column].page(self.segment, column, group, row)?.word(row))
    }
}

/// New place of a parent, for traces that come from several inputs.
struct Parent {
    at: usize,
    row: i64,
    id: Option<u64>,
}

struct Merger<'s> {
    writer: SegmentWriter,
    sources: Vec<Source<'s>>,
    /// Rows to be written next; never more than the open block takes.
    runs: Vec<Run>,
    rows: usize,
    parents: Vec<Parent>,
}

impl Merger<'_> {
    /// Adds rows of a trace that only this input has.
    fn add(&mut self, input: usize, group: u32, rows: std::ops::Range<usize>) -> Result<(), SegmentError> {
        let mut row = rows.start;
        while row < rows.end {
            let len = (rows.end - row).min(self.writer.block_left() - self.rows);
            match self.runs.last_mut() {
                Some(r) if r.input == input && r.group == group && r.row + r.len == row => r.len += len,
                _ => self.runs.push(Run { input, group, row, len }),
            }
            self.rows += len;
            row += len;
            if self.rows == self.writer.block_left() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Adds a trace that several inputs have.
    fn join(&mut self, inputs: &[usize]) -> Result<(), SegmentError> {
        struct Row {
            input: usize,
            group: u32,
            row: usize,
            start: i64,
            span: u64,
            parent: u64,
        }
        let mut rows: Vec<Row> = Vec::new();
        for input in inputs {
            let first = rows.len();
            let mut back = Vec::new();
            let source = &self.sources[*input];
            for (group, range) in &source.extents {
                let mut view = View::new(source.segment, *group);
                for row in range.clone() {
                    let mut word = |c| view.word(c, row).map(|w| w.unwrap_or(0));
                    back.push(word(s::PARENT_ROW)?);
                    rows.push(Row {
                        input: *input,
                        group: *group,
                        row,
                        start: word(s::START)?,
                        span: word(s::SPAN_ID)? as u64,
                        parent: word(s::PARENT_ID)? as u64,
                    });
                }
            }
            for (i, back) in back.iter().enumerate().filter(|(_, b)| **b != 0) {
                let parent = usize::try_from(i as i64 - back).ok().and_then(|p| rows.get(first + p));
                rows[first + i].parent = parent.map(|p| p.span).ok_or_else(|| {
                    source.segment.damaged(format::SPANS, Malformed("a parent row lies outside its trace"))
                })?;
            }
        }
        rows.sort_by_key(|r| r.start);
        let id = self.sources[inputs[0]].id.unwrap_or(0);
        let sources = &self.sources;
        let bytes = |r: &Row| -> Result<Vec<u8>, SegmentError> {
            let mut one = Assembler::default();
            one.push(&mut View::new(sources[r.input].segment, r.group), r.row, id)?;
            if let Some(span) = one.span_mut(0) {
                span.parent_id = SpanId(r.parent);
            }
            Ok(one.get(0).map(|(span, _, chunk)| content(&one.batch, chunk, span)).unwrap_or_default())
        };
        let mut kept: Vec<Row> = Vec::with_capacity(rows.len());
        for r in rows {
            let mut again = false;
            for k in kept.iter().rev().take_while(|k| k.start == r.start) {
                if k.span == r.span && k.parent == r.parent && bytes(k)? == bytes(&r)? {
                    again = true;
                    break;
                }
            }
            if !again {
                kept.push(r);
            }
        }
        let ids: Vec<(u64, u64)> = kept.iter().map(|r| (r.span, r.parent)).collect();
        let mut parents = Vec::new();
        parent_rows(&ids, &mut parents);
        for (r, back) in kept.iter().zip(&parents) {
            self.parents.push(Parent {
                at: self.rows,
                row: back.unwrap_or(0),
                id: (back.is_none() && r.parent != 0).then_some(r.parent),
            });
            self.add(r.input, r.group, r.row..r.row + 1)?;
        }
        Ok(())
    }

    /// Writes the planned rows, column by column.
    fn flush(&mut self) -> Result<(), SegmentError> {
        let Self { writer, sources, runs, rows, parents } = self;
        for (c, to) in writer.cols.iter_mut().enumerate() {
            if !parents.is_empty() && (c == s::PARENT_ROW || c == s::PARENT_ID) {
                let mut moved = parents.iter().peekable();
                let mut at = 0;
                for run in runs.iter() {
                    let source = &mut sources[run.input];
                    for row in run.row..run.row + run.len {
                        let word = match moved.next_if(|p| p.at == at) {
                            Some(p) if c == s::PARENT_ROW => Some(p.row),
                            Some(p) => p.id.map(|i| i as i64),
                            None => source.word(c, run.group, row)?,
                        };
                        match word {
                            Some(w) => to.push_word(w),
                            None => to.push_null(),
                        }
                        at += 1;
                    }
                }
                continue;
            }
            for run in runs.iter() {
                let source = &mut sources[run.input];
                match source.columns[c] {
                    Some(from) => source.cursors[c].copy(source.segment, from, run, to)?,
                    None => (0..run.len).for_each(|_| to.push_null()),
                }
            }
        }
        writer.end_rows(*rows)?;
        runs.clear();
        parents.clear();
        *rows = 0;
        writer.settle()
    }
}
