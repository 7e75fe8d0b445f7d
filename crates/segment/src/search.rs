//! Whether rows meet a condition.
//!
//! Every condition is a disjunction over columns ("the attribute is in the
//! set, or in a promoted column, or in the resource …"). A dictionary is
//! tested once per value; tags, postings and zone maps leave over
//! the blocks worth decoding; rows are then judged by codes, and only rows
//! whose codes do not decide are rebuilt and given to [`Expr::matches`].

use crate::column::{BLOCK, Blocks, GROUP_BLOCKS, enc, filter_has};
use crate::encoding::stable_hash;
use crate::error::{Malformed, SegmentError};
use crate::format;
use crate::json::{Parser, Slot, Type};
use crate::page::NO_CODE;
use crate::rows::{Assembler, View, kind_of, read_events, read_links, read_process, read_scope, status_of};
use crate::schema::{self as s};
use crate::segment::{Group, Segment};
use crate::tags;
use spanloom_model::{
    Attr, AttrScope, Batch, Cond, Expr, Literal, Op, Range32, Span, SpanId, Status, Value, flags, keys,
};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

/// A row does not meet a condition, may meet it, meets it.
pub(crate) const NO: u8 = 0;
const MAYBE: u8 = 1;
pub(crate) const YES: u8 = 2;
/// Not judged yet.
const UNKNOWN: u8 = 3;

pub(crate) const NONE: Blocks = [0; GROUP_BLOCKS / 64];

/// One place where a condition may be met.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Piece {
    Column(usize),
    Promoted(usize),
    /// Failed spans (two columns).
    Failed,
}

/// Evaluation over one row group.
pub(crate) struct Run<'s> {
    segment: &'s Segment,
    group: u32,
    dir: OnceCell<Arc<Group>>,
    pub view: View<'s>,
    /// Verdict per code, by condition (its address) and column.
    verdicts: HashMap<(usize, usize), Vec<u8>, foldhash::fast::RandomState>,
}

impl<'s> Run<'s> {
    pub fn new(segment: &'s Segment, group: u32) -> Self {
        Self {
            segment,
            group,
            dir: OnceCell::new(),
            view: View::new(segment, group),
            verdicts: HashMap::default(),
        }
    }

    /// The directory of the row group, which many searches never need.
    fn dir(&self) -> Result<&Group, SegmentError> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir);
        }
        let dir = self.segment.group(self.group)?;
        Ok(self.dir.get_or_init(|| dir))
    }

    pub fn id(&mut self, row: usize) -> Result<u128, SegmentError> {
        let page = self.view.page(s::TRACE_ID, row)?;
        let id = page.id_at(row).map(|(_, id)| id);
        id.ok_or_else(|| self.segment.damaged(format::SPANS, Malformed("a row is missing")))
    }

    /// Rebuilds a row and judges it.
    pub fn check(&mut self, expr: &Expr, row: usize, id: u128) -> Result<bool, SegmentError> {
        let mut one = Assembler::default();
        one.push(&mut self.view, row, id)?;
        if self.view.word(s::PARENT_ROW, row)?.unwrap_or(0) != 0
            && let Some(span) = one.span_mut(0)
        {
            // Which parent it is does not matter to any condition.
            span.parent_id = SpanId(u64::MAX);
        }
        Ok(one.get(0).is_some_and(|(span, resource, _)| expr.matches(&one.batch, span, resource)))
    }

    /// Where the condition may be met.
    fn pieces(&self, cond: &Cond) -> Vec<Piece> {
        let (scope, key) = match cond {
            Cond::Service { .. } | Cond::ServiceGlob(_) => return vec![Piece::Column(s::SERVICE)],
            Cond::Name { .. } | Cond::NameGlob(_) => {
                return vec![Piece::Column(s::NAME), Piece::Column(s::RESOURCE)];
            }
            Cond::Kind(_) => return vec![Piece::Column(s::KIND)],
            Cond::EventName(_) => return vec![Piece::Column(s::EVENTS)],
            Cond::Attr { scope, key, .. } | Cond::HasAttr { scope, key } => (*scope, key.as_str()),
            _ => return Vec::new(),
        };
        let mut out = Vec::new();
        if matches!(scope, AttrScope::Any | AttrScope::SpanOrResource | AttrScope::Span) {
            out.push(Piece::Column(s::ATTRIBUTES));
            for (i, c) in self.segment.columns.iter().enumerate() {
                if c.attr.as_ref().is_some_and(|(k, _)| k == key) {
                    out.push(Piece::Promoted(i));
                }
            }
            match key {
                keys::RESOURCE_NAME => out.push(Piece::Column(s::RESOURCE)),
                keys::SPAN_TYPE => out.push(Piece::Column(s::TYPE)),
                _ => {}
            }
        }
        if matches!(scope, AttrScope::Any | AttrScope::SpanOrResource | AttrScope::Resource) {
            out.push(Piece::Column(s::PROCESS));
            if key == keys::SERVICE_NAME {
                out.push(Piece::Column(s::SERVICE));
            }
        }
        if matches!(scope, AttrScope::Any | AttrScope::Scope) {
            out.push(Piece::Column(s::SCOPE));
        }
        if matches!(scope, AttrScope::Any | AttrScope::Event) {
            out.push(Piece::Column(s::EVENTS));
        }
        if matches!(scope, AttrScope::Any | AttrScope::Link) {
            out.push(Piece::Column(s::LINKS));
        }
        if key == keys::ERROR && scope == AttrScope::Any && matches!(cond, Cond::HasAttr { .. }) {
            out.push(Piece::Failed);
        }
        out
    }

    /// Judges one value of a column.
    fn judge(&self, expr: &Expr, column: usize, value: &[u8]) -> Result<u8, SegmentError> {
        // The frequent cases without a stand-in span.
        match (expr, column) {
            (Expr::Is(Cond::Service { name, fold: false }), s::SERVICE)
            | (Expr::Is(Cond::Name { name, fold: false }), s::NAME) => {
                return Ok(verdict(value == name.as_bytes()));
            }
            (Expr::Is(Cond::Name { name, fold: false }), s::RESOURCE) => {
                return Ok(verdict(!value.is_empty() && value == name.as_bytes()));
            }
            _ => {}
        }
        let mut b = Batch::default();
        let mut span = Span::default();
        let bad = |e| self.segment.damaged(format::SPANS, e);
        match column {
            s::SERVICE => span.service = b.arena.push_bytes(value),
            s::NAME => span.name = b.arena.push_bytes(value),
            // The empty name of the stand-in span must not be what matches.
            s::RESOURCE if matches!(expr, Expr::Is(Cond::Name { name, .. } | Cond::NameGlob(name)) if name.is_empty()) =>
            {
                return Ok(NO);
            }
            s::RESOURCE => span.resource = b.arena.push_bytes(value),
            s::TYPE => span.span_type = b.arena.push_bytes(value),
            s::KIND => span.kind = kind_of(value),
            s::PROCESS => {
                let resource = read_process(value, &mut b).map_err(bad)?;
                return Ok(verdict(expr.matches(&b, &span, Some(&resource))));
            }
            s::SCOPE => {
                let scope = read_scope(value, &mut b).map_err(bad)?;
                b.scopes.push(scope);
                span.scope = 0;
            }
            s::EVENTS => span.events = read_events(value, &mut b).map_err(bad)?,
            s::LINKS => span.links = read_links(value, &mut b).map_err(bad)?,
            s::ATTRIBUTES => {
                let mut slots = Vec::new();
                let range = Parser::new(value).attrs(&mut b, 0, Some(&mut slots)).map_err(bad)?;
                let key = match expr {
                    Expr::Is(Cond::Attr { key, .. } | Cond::HasAttr { key, .. }) => key.as_str(),
                    _ => "",
                };
                let elsewhere = slots.iter().any(|(i, slot)| {
                    !matches!(slot, Slot::Column(_))
                        && b.attrs(range).get(*i as usize).is_some_and(|a| b.str(a.key) == key)
                });
                // Attributes whose value lies elsewhere must not count as empty ones.
                let mut kept: Vec<Attr> = Vec::new();
                for (i, a) in b.attrs(range).iter().enumerate() {
                    if !slots.iter().any(|(n, _)| *n as usize == i) {
                        kept.push(*a);
                    }
                }
                let start = b.attrs.len();
                b.attrs.extend(kept);
                span.attrs = Range32::new(start, b.attrs.len());
                if !expr.matches(&b, &span, None) && elsewhere {
                    return Ok(MAYBE);
                }
            }
            promoted => {
                let Some((key, kind)) = &self.segment.columns[promoted].attr else { return Ok(MAYBE) };
                let word = || value.try_into().map(u64::from_le_bytes).unwrap_or_default();
                let value = match kind {
                    Type::Str => Value::Str(b.arena.push_bytes(value)),
                    Type::Int => Value::Int(word() as i64),
                    Type::Double => Value::Double(f64::from_bits(word())),
                    Type::Json => return Ok(MAYBE),
                };
                let key = b.arena.push(key);
                b.attrs.push(Attr { key, value });
                span.attrs = Range32::new(0, 1);
            }
        }
        Ok(verdict(expr.matches(&b, &span, None)))
    }

    /// Verdict on a value of a dictionary. A set that does not even contain
    /// the key's text, or says that its value lies in a column, is not parsed.
    fn judge_code(&self, expr: &Expr, column: usize, value: &[u8]) -> Result<u8, SegmentError> {
        if column == s::ATTRIBUTES
            && let Expr::Is(Cond::Attr { key, .. } | Cond::HasAttr { key, .. }) = expr
            && !may_hold(value, key)
        {
            return Ok(NO);
        }
        self.judge(expr, column, value)
    }

    /// Takes the verdicts on a dictionary's values found so far.
    fn take_verdicts(&mut self, expr: &Expr, column: usize, len: usize) -> Vec<u8> {
        let key = (std::ptr::from_ref(expr) as usize, column);
        let mut out = self.verdicts.remove(&key).unwrap_or_default();
        out.resize(len, UNKNOWN);
        out
    }

    fn put_verdicts(&mut self, expr: &Expr, column: usize, verdicts: Vec<u8>) {
        self.verdicts.insert((std::ptr::from_ref(expr) as usize, column), verdicts);
    }

    /// All blocks of the row group.
    fn all(&self) -> Blocks {
        let mut out = NONE;
        for b in 0..self.segment.blocks(self.group) {
            out[b / 64] |= 1 << (b % 64);
        }
        out
    }

    /// Blocks that may hold a row that meets the expression.
    pub fn prune(&mut self, expr: &Expr) -> Result<Blocks, SegmentError> {
        Ok(match expr {
            Expr::True | Expr::Not(_) => self.all(),
            Expr::And(parts) => {
                let mut out = self.all();
                for p in parts {
                    let blocks = self.prune(p)?;
                    out.iter_mut().zip(blocks).for_each(|(a, b)| *a &= b);
                }
                out
            }
            Expr::Or(parts) => {
                let mut out = NONE;
                for p in parts {
                    let blocks = self.prune(p)?;
                    out.iter_mut().zip(blocks).for_each(|(a, b)| *a |= b);
                }
                out
            }
            Expr::Is(Cond::Duration { min, max }) => {
                let mut out = NONE;
                for (b, z) in self.segment.zones(self.group)?.iter().enumerate() {
                    if z.max_duration >= *min && z.min_duration <= *max {
                        out[b / 64] |= 1 << (b % 64);
                    }
                }
                out
            }
            Expr::Is(Cond::Error(true) | Cond::Status(Status::Error)) => self.failed_blocks()?,
            // Free text may stand in almost every column: rows are rebuilt.
            Expr::Is(
                Cond::Root | Cond::Error(false) | Cond::Status(_) | Cond::FullText(_) | Cond::Flags(_),
            ) => self.all(),
            Expr::Is(cond) => {
                if let Some(hashes) = tags::wanted(cond)
                    && let Some(blocks) = self.segment.tagged(self.group, &hashes)?
                {
                    return Ok(blocks);
                }
                let mut out = NONE;
                for piece in self.pieces(cond) {
                    let blocks = match piece {
                        Piece::Failed => self.failed_blocks()?,
                        Piece::Column(c) | Piece::Promoted(c) => self.piece_blocks(expr, cond, c)?,
                    };
                    out.iter_mut().zip(blocks).for_each(|(a, b)| *a |= b);
                }
                out
            }
        })
    }

    fn failed_blocks(&self) -> Result<Blocks, SegmentError> {
        let mut out = NONE;
        for (column, quiet) in [(s::STATUS, &b"error"[..]), (s::ERROR, &[0u8; 8][..])] {
            let dict = self.segment.dict(self.group, column)?;
            let failed: Vec<u8> = (0..dict.len() as u32)
                .map(|c| verdict((dict.bytes(c) == quiet) == (column == s::STATUS)))
                .collect();
            let blocks = self.coded_blocks(column, &failed)?;
            let plain = self.plain_blocks(column)?;
            out.iter_mut().zip(blocks).zip(plain).for_each(|((a, b), c)| *a |= b | c);
        }
        Ok(out)
    }

    /// Blocks of values that a dictionary's verdicts do not exclude.
    fn coded_blocks(&self, column: usize, verdicts: &[u8]) -> Result<Blocks, SegmentError> {
        let mut out = NONE;
        if verdicts.iter().all(|v| *v == NO) {
            return Ok(out);
        }
        let postings = self.segment.postings(self.group, column)?;
        for (code, _) in verdicts.iter().enumerate().filter(|(_, v)| **v != NO) {
            match postings.get(code) {
                Some(Some(blocks)) => out.iter_mut().zip(blocks).for_each(|(a, b)| *a |= b),
                _ => return Ok(self.dir()?.columns[column].filled),
            }
        }
        Ok(out)
    }

    /// Blocks whose values are not in a dictionary.
    fn plain_blocks(&self, column: usize) -> Result<Blocks, SegmentError> {
        let c = &self.dir()?.columns[column];
        let mut out = NONE;
        for p in c.pages.iter().filter(|p| p.enc != enc::DICT && p.rows > 0) {
            for b in p.first_row / BLOCK..=(p.first_row + p.rows - 1) / BLOCK {
                out[b / 64] |= 1 << (b % 64);
            }
        }
        out.iter_mut().zip(c.filled).for_each(|(a, b)| *a &= b);
        Ok(out)
    }

    fn piece_blocks(&mut self, expr: &Expr, cond: &Cond, column: usize) -> Result<Blocks, SegmentError> {
        let dict = self.segment.dict(self.group, column)?;
        let mut verdicts = self.take_verdicts(expr, column, dict.len());
        for (code, v) in verdicts.iter_mut().enumerate().filter(|(_, v)| **v == UNKNOWN) {
            *v = self.judge_code(expr, column, dict.bytes(code as u32))?;
        }
        let out = self.coded_blocks(column, &verdicts);
        self.put_verdicts(expr, column, verdicts);
        let mut out = out?;
        let plain = self.plain_blocks(column)?;
        if plain == NONE {
            return Ok(out);
        }
        let hashes = match (&self.segment.columns[column].attr, cond) {
            // Later versions have tags instead of filters.
            (Some((_, kind)), Cond::Attr { op: Op::Eq, value, .. }) if self.segment.meta.version == 1 => {
                equal_hashes(*kind, value)
            }
            _ => None,
        };
        let filters = self.segment.filters(self.group, column)?;
        match hashes {
            Some(hashes) => {
                for (b, filter) in filters.iter() {
                    if hashes.iter().any(|h| filter_has(filter, *h)) {
                        out[b / 64] |= 1 << (b % 64);
                    }
                }
            }
            None => out.iter_mut().zip(plain).for_each(|(a, b)| *a |= b),
        }
        Ok(out)
    }

    /// Verdict on each of the rows.
    pub fn eval(
        &mut self,
        expr: &Expr,
        rows: &std::ops::Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), SegmentError> {
        out.clear();
        match expr {
            Expr::True => out.resize(rows.len(), YES),
            Expr::Is(Cond::FullText(_)) => out.resize(rows.len(), MAYBE),
            Expr::Is(Cond::Flags(bits)) => {
                for row in rows.clone() {
                    let flags = self.view.word(s::FLAGS, row)?.unwrap_or(0) as u64;
                    out.push(verdict(flags & bits == *bits));
                }
            }
            Expr::And(parts) => {
                out.resize(rows.len(), YES);
                let mut part = Vec::new();
                for p in parts {
                    self.eval(p, rows, &mut part)?;
                    out.iter_mut().zip(&part).for_each(|(a, b)| *a = (*a).min(*b));
                    if out.iter().all(|v| *v == NO) {
                        break;
                    }
                }
            }
            Expr::Or(parts) => {
                out.resize(rows.len(), NO);
                let mut part = Vec::new();
                for p in parts {
                    self.eval(p, rows, &mut part)?;
                    out.iter_mut().zip(&part).for_each(|(a, b)| *a = (*a).max(*b));
                }
            }
            Expr::Not(p) => {
                self.eval(p, rows, out)?;
                out.iter_mut().for_each(|v| *v = YES - *v);
            }
            Expr::Is(Cond::Duration { min, max }) => {
                for row in rows.clone() {
                    let duration = self.view.word(s::DURATION, row)?.unwrap_or(0);
                    let known = self.view.word(s::FLAGS, row)?.unwrap_or(0) as u64 & flags::NO_DURATION == 0;
                    out.push(verdict(known && (*min..=*max).contains(&duration)));
                }
            }
            Expr::Is(Cond::Root) => {
                for row in rows.clone() {
                    let root = self.view.word(s::PARENT_ROW, row)? == Some(0)
                        && self.view.word(s::PARENT_ID, row)?.is_none();
                    out.push(verdict(root));
                }
            }
            Expr::Is(Cond::Error(wanted)) => {
                self.failed(rows, out)?;
                if !wanted {
                    out.iter_mut().for_each(|v| *v = YES - *v);
                }
            }
            Expr::Is(Cond::Status(Status::Error)) => self.failed(rows, out)?,
            Expr::Is(Cond::Status(wanted)) => {
                self.failed(rows, out)?;
                for (row, v) in rows.clone().zip(out.iter_mut()) {
                    let status = status_of(self.view.bytes(s::STATUS, row)?.unwrap_or_default());
                    *v = verdict(*v == NO && status == *wanted);
                }
            }
            Expr::Is(cond) => {
                out.resize(rows.len(), NO);
                for piece in self.pieces(cond) {
                    match piece {
                        Piece::Failed => {
                            let mut failed = Vec::new();
                            self.failed(rows, &mut failed)?;
                            out.iter_mut().zip(&failed).for_each(|(a, b)| *a = (*a).max(*b));
                        }
                        Piece::Column(c) | Piece::Promoted(c) => {
                            self.eval_column(expr, cond, c, rows, out)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, rows: &std::ops::Range<usize>, out: &mut Vec<u8>) -> Result<(), SegmentError> {
        out.clear();
        for row in rows.clone() {
            let failed = self.view.word(s::ERROR, row)?.unwrap_or(0) != 0
                || self.view.bytes(s::STATUS, row)? == Some(b"error");
            out.push(verdict(failed));
        }
        Ok(())
    }

    /// Raises the verdict of each row to what its value in a column says.
    fn eval_column(
        &mut self,
        expr: &Expr,
        cond: &Cond,
        column: usize,
        rows: &std::ops::Range<usize>,
        out: &mut [u8],
    ) -> Result<(), SegmentError> {
        let filled = self.dir()?.columns[column].filled;
        let blocks = rows.start / BLOCK..=(rows.end - 1) / BLOCK;
        if blocks.into_iter().all(|b| filled[b / 64] & (1 << (b % 64)) == 0) {
            return Ok(());
        }
        let exact = match (&self.segment.columns[column].attr, cond) {
            (
                Some((_, Type::Str)),
                Cond::Attr { op: Op::Eq, value: Literal::Typed(t) | Literal::Str(t), .. },
            ) => Some(t.as_bytes()),
            _ => None,
        };
        let mut row = rows.start;
        while row < rows.end {
            let page = self.view.page(column, row)?.clone();
            let end = rows.end.min(page.first_row + page.rows);
            let to = &mut out[row - rows.start..end - rows.start];
            if let Some((codes, dict)) = page.codes() {
                let mut verdicts = self.take_verdicts(expr, column, dict.len());
                let codes = &codes[row - page.first_row..end - page.first_row];
                for (v, code) in to.iter_mut().zip(codes).filter(|(_, c)| **c != NO_CODE) {
                    let Some(judged) = verdicts.get_mut(usize::from(*code)) else { continue };
                    if *judged == UNKNOWN {
                        *judged = self.judge_code(expr, column, dict.bytes(u32::from(*code)))?;
                    }
                    *v = (*v).max(*judged);
                }
                self.put_verdicts(expr, column, verdicts);
            } else {
                for (row, v) in (row..end).zip(to) {
                    let judged = match (page.bytes(row), page.word(row), exact) {
                        (Some(bytes), _, Some(exact)) => verdict(bytes == exact),
                        (Some(bytes), _, None) => self.judge(expr, column, bytes)?,
                        (None, Some(word), _) => self.judge(expr, column, &word.to_le_bytes())?,
                        (None, None, _) => NO,
                    };
                    *v = (*v).max(judged);
                }
            }
            row = end;
        }
        Ok(())
    }
}

/// Whether an attribute set can hold a value under the key itself, and not
/// only say that a column has it.
fn may_hold(set: &[u8], key: &str) -> bool {
    // Keys are written with escapes.
    if key.bytes().any(|b| b <= 0x1f || b == b'"' || b == b'\\') {
        return true;
    }
    let mut wanted = Vec::with_capacity(key.len() + 3);
    wanted.push(b'"');
    wanted.extend_from_slice(key.as_bytes());
    wanted.extend_from_slice(b"\":");
    let mut found = memchr::memmem::find_iter(set, &wanted);
    found.any(|at| !set.get(at + wanted.len()..).is_some_and(|v| v.starts_with(b"{\"$column\":")))
}

/// What the tags of a row group say about an expression.
pub(crate) enum Tagged {
    Unknown,
    Is(Vec<u32>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

impl Tagged {
    pub fn of(expr: &Expr) -> Self {
        match expr {
            Expr::Is(cond) => tags::wanted(cond).map_or(Self::Unknown, Self::Is),
            Expr::And(parts) => {
                let known: Vec<Self> = parts.iter().map(Self::of).filter(Self::tells).collect();
                if known.is_empty() { Self::Unknown } else { Self::And(known) }
            }
            Expr::Or(parts) => {
                let all: Vec<Self> = parts.iter().map(Self::of).collect();
                if all.iter().all(Self::tells) { Self::Or(all) } else { Self::Unknown }
            }
            Expr::True | Expr::Not(_) => Self::Unknown,
        }
    }

    /// Whether tags can exclude blocks.
    pub fn tells(&self) -> bool {
        !matches!(self, Self::Unknown)
    }

    /// Blocks of a row group that are not excluded; none if none is.
    pub fn blocks(&self, segment: &Segment, group: u32) -> Result<Option<Blocks>, SegmentError> {
        match self {
            Self::Unknown => Ok(None),
            Self::Is(hashes) => segment.tagged(group, hashes),
            Self::And(parts) => {
                let mut out: Option<Blocks> = None;
                for part in parts {
                    let Some(blocks) = part.blocks(segment, group)? else { continue };
                    out.get_or_insert(blocks).iter_mut().zip(blocks).for_each(|(a, b)| *a &= b);
                }
                Ok(out)
            }
            Self::Or(parts) => {
                let mut out = NONE;
                for part in parts {
                    let Some(blocks) = part.blocks(segment, group)? else { return Ok(None) };
                    out.iter_mut().zip(blocks).for_each(|(a, b)| *a |= b);
                }
                Ok(Some(out))
            }
        }
    }
}

const fn verdict(yes: bool) -> u8 {
    if yes { YES } else { NO }
}

/// Hashes of the stored forms that can equal a literal; none if that cannot
/// be said.
fn equal_hashes(kind: Type, value: &Literal) -> Option<Vec<u64>> {
    if matches!(value, Literal::Fold(_) | Literal::Glob(_)) {
        return None;
    }
    let number = match value {
        Literal::Number(n) => Some(*n),
        Literal::Typed(t) => t.parse::<f64>().ok(),
        _ => None,
    };
    match kind {
        Type::Str => match value {
            Literal::Typed(t) | Literal::Str(t) => Some(vec![stable_hash(t.as_bytes())]),
            _ => Some(Vec::new()),
        },
        Type::Int => {
            if let Literal::Typed(t) = value
                && let Ok(i) = t.parse::<i64>()
            {
                return Some(vec![stable_hash(&i.to_le_bytes())]);
            }
            match number {
                None => Some(Vec::new()),
                // Beyond 2^53 several integers equal one floating-point number.
                Some(n) if n.fract() == 0.0 && n.abs() < 9e15 => {
                    Some(vec![stable_hash(&(n as i64).to_le_bytes())])
                }
                Some(n) if n.fract() != 0.0 => Some(Vec::new()),
                Some(_) => None,
            }
        }
        Type::Double => match number {
            None => Some(Vec::new()),
            Some(0.0) => {
                Some(vec![stable_hash(&0.0f64.to_le_bytes()), stable_hash(&(-0.0f64).to_le_bytes())])
            }
            Some(n) => Some(vec![stable_hash(&n.to_le_bytes())]),
        },
        Type::Json => None,
    }
}
