//! What waits, by trace and by place in the log. Memory only: the log can
//! make it anew.

use crate::piece::{Piece, Root};
use crate::verdicts::Verdicts;
use spanloom_journal::FrameRef;
use spanloom_model::{Protocol, SpanId, TraceId, TraceSummary};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Traces judged in one go …
const GROUP_TRACES: usize = 512;
/// … whose frames have so many bytes at most, unless it is one trace.
const GROUP_BYTES: u64 = 2 << 20;

/// Estimated bytes of a trace, with its places in the two maps.
const TRACE_BYTES: usize = size_of::<Entry>() * 3 / 2 + 64;
/// Of a piece: its spot, and its place in the list of its frame.
const PIECE_BYTES: usize = size_of::<Spot>() + 16;
/// Of a frame.
const FRAME_BYTES: usize = size_of::<Frame>() + 64;

/// What is known of a trace that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its figures, as far as they are known: id, root, times, spans, errors.
    pub summary: TraceSummary,
    /// Its sender wants it kept.
    pub exempt: bool,
    /// A person wants it kept.
    pub by_hand: bool,
    /// Ways by which pieces of it leave, one bit each.
    pub ways: u8,
    /// It is judged before it was quiet, because the buffer is full.
    pub early: bool,
}

/// Where a piece is, and what it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Sequence number of its frame.
    pub seq: u64,
    /// Spans that the client sent in it.
    pub spans: u32,
    /// Chunks that the client sent in it.
    pub chunks: u16,
    /// How it came. None: before the start of this process, whose ledger knows
    /// nothing of it.
    pub protocol: Option<Protocol>,
}

#[derive(Debug)]
struct Entry {
    id: TraceId,
    /// Arrival of the newest piece.
    last: i64,
    time: Option<(i64, i64)>,
    root: Option<Top>,
    spans: u32,
    errors: u32,
    exempt: bool,
    by_hand: bool,
    ways: u8,
    pieces: Vec<Spot>,
}

#[derive(Debug)]
struct Top {
    start: i64,
    span: SpanId,
    service: Arc<str>,
    name: Arc<str>,
}

struct Frame {
    at: FrameRef,
    /// Traces with pieces in it, by the lower half of their ids.
    traces: Box<[u64]>,
    /// Pieces that are not done.
    open: u32,
}

/// A trace to be judged, or pieces that follow a verdict.
pub(crate) struct Due {
    /// Lower half of the id.
    pub trace: u64,
    /// What rules are asked about; none if there is a verdict already.
    pub waiting: Option<Waiting>,
    /// A sender wants it kept.
    pub exempt: bool,
    /// The pieces came after the verdict.
    pub late: bool,
    /// The pieces.
    pub pieces: Vec<Spot>,
}

/// What a client sent as a chunk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub spans: u32,
    pub chunks: u16,
}

pub(crate) struct Table {
    entries: HashMap<u64, Entry, foldhash::fast::RandomState>,
    /// By arrival of the newest piece.
    quiet: BTreeSet<(i64, u64)>,
    /// Frames with pieces that are not done.
    frames: BTreeMap<u64, Frame>,
    pieces: usize,
    names: Names,
    pub verdicts: Verdicts,
    /// Pieces whose trace has a verdict already: late ones, and those that an
    /// exporter did not take.
    decided: Vec<Due>,
    newest: u64,
    spans: u64,
}

impl Table {
    pub fn new(remembered: usize) -> Self {
        Self {
            entries: HashMap::default(),
            quiet: BTreeSet::new(),
            frames: BTreeMap::new(),
            pieces: 0,
            names: Names::default(),
            verdicts: Verdicts::new(remembered),
            decided: Vec::new(),
            newest: 0,
            spans: 0,
        }
    }

    /// Adds the pieces of a frame. `sent`: what the client sent, piece by
    /// piece, and how; none for what a restart found.
    pub fn insert(
        &mut self,
        at: FrameRef,
        way: u8,
        pieces: Vec<Piece>,
        sent: Option<(Protocol, &[Sent])>,
        arrived: i64,
    ) {
        self.newest = self.newest.max(at.seq);
        let mut traces: Vec<u64> = Vec::with_capacity(pieces.len());
        for (i, piece) in pieces.into_iter().enumerate() {
            let trace = piece.id.low();
            traces.push(trace);
            let own = Sent { spans: piece.spans, chunks: 1 };
            let counted = sent.map_or(own, |(_, s)| s.get(i).copied().unwrap_or_default());
            let spot = Spot {
                seq: at.seq,
                spans: counted.spans,
                chunks: counted.chunks,
                protocol: sent.map(|(p, _)| p),
            };
            self.spans += u64::from(spot.spans);
            self.pieces += 1;
            if self.verdicts.state(trace).is_some() {
                let exempt = piece.exempt;
                self.decided.push(Due { trace, waiting: None, exempt, late: true, pieces: vec![spot] });
            } else {
                self.add(way, piece, spot, arrived);
            }
        }
        let open = traces.len() as u32;
        traces.sort_unstable();
        traces.dedup();
        self.frames.insert(at.seq, Frame { at, traces: traces.into(), open });
    }

    fn add(&mut self, way: u8, piece: Piece, spot: Spot, arrived: i64) {
        let trace = piece.id.low();
        let root = piece.root.map(|r| self.names.top(r));
        let entry = self.entries.entry(trace).or_insert_with(|| Entry {
            id: piece.id,
            last: arrived,
            time: None,
            root: None,
            spans: 0,
            errors: 0,
            exempt: false,
            by_hand: false,
            ways: 0,
            pieces: Vec::with_capacity(1),
        });
        if entry.id.high() == 0 {
            entry.id = piece.id;
        }
        let before = entry.last;
        entry.last = entry.last.max(arrived);
        if let Some((start, end)) = piece.time {
            let (s, e) = entry.time.unwrap_or((start, end));
            entry.time = Some((s.min(start), e.max(end)));
        }
        if let Some(root) = root
            && entry.root.as_ref().is_none_or(|r| (root.start, root.span) < (r.start, r.span))
        {
            entry.root = Some(root);
        }
        entry.spans = entry.spans.saturating_add(piece.spans);
        entry.errors = entry.errors.saturating_add(piece.errors);
        entry.exempt |= piece.exempt;
        entry.ways |= 1u8.checked_shl(u32::from(way)).unwrap_or(0);
        entry.pieces.push(spot);
        if entry.pieces.len() == 1 || entry.last != before {
            self.quiet.remove(&(before, trace));
            self.quiet.insert((entry.last, trace));
        }
    }

    /// Says that a person wants a trace kept. Whether it waits.
    pub fn keep(&mut self, trace: u64) -> bool {
        self.entries.get_mut(&trace).map(|e| e.by_hand = true).is_some()
    }

    /// Traces whose newest piece arrived at `ripe` or before: the quietest
    /// first, as many as are judged in one go. They count as being judged.
    pub fn ripe(&mut self, ripe: i64) -> Vec<Due> {
        let mut group = Group::default();
        while let Some(&(last, trace)) = self.quiet.first() {
            if last > ripe || !self.fits(&mut group, trace) {
                break;
            }
            group.due.extend(self.take(trace, false));
        }
        group.due
    }

    /// Traces with pieces in the oldest frame, to make room.
    pub fn oldest(&mut self) -> Vec<Due> {
        let Some((_, frame)) = self.frames.first_key_value() else { return Vec::new() };
        let traces = frame.traces.clone();
        traces.iter().filter_map(|trace| self.take(*trace, true)).collect()
    }

    /// Pieces that follow a verdict.
    pub fn decided(&mut self) -> Vec<Due> {
        std::mem::take(&mut self.decided)
    }

    /// Puts back what an exporter did not take.
    pub fn again(&mut self, due: Due) {
        self.decided.push(due);
    }

    fn fits(&self, group: &mut Group, trace: u64) -> bool {
        let Some(entry) = self.entries.get(&trace) else { return true };
        for spot in &entry.pieces {
            if let Some(frame) = self.frames.get(&spot.seq).filter(|f| group.frames.insert(f.at.seq)) {
                group.bytes += u64::from(frame.at.len);
            }
        }
        group.due.is_empty() || (group.due.len() < GROUP_TRACES && group.bytes <= GROUP_BYTES)
    }

    fn take(&mut self, trace: u64, early: bool) -> Option<Due> {
        let entry = self.entries.remove(&trace)?;
        self.quiet.remove(&(entry.last, trace));
        self.verdicts.begin(trace);
        let (start, end) = entry.time.unwrap_or_default();
        let (root_service, root_name) =
            entry.root.map(|r| (r.service.to_string(), r.name.to_string())).unwrap_or_default();
        let summary = TraceSummary {
            trace_id: entry.id,
            root_service,
            root_name,
            root_resource: String::new(),
            start,
            end,
            spans: u64::from(entry.spans),
            errors: u64::from(entry.errors),
            orphans: 0,
            services: Vec::new(),
        };
        let (exempt, by_hand, ways) = (entry.exempt, entry.by_hand, entry.ways);
        let waiting = Waiting { summary, exempt, by_hand, ways, early };
        Some(Due { trace, waiting: Some(waiting), exempt, late: false, pieces: entry.pieces })
    }

    /// Where a frame is.
    pub fn frame(&self, seq: u64) -> Option<FrameRef> {
        self.frames.get(&seq).map(|f| f.at)
    }

    /// Pieces are done with.
    pub fn finish(&mut self, pieces: &[Spot]) {
        for spot in pieces {
            self.spans = self.spans.saturating_sub(u64::from(spot.spans));
            self.pieces = self.pieces.saturating_sub(1);
            let Some(frame) = self.frames.get_mut(&spot.seq) else { continue };
            frame.open = frame.open.saturating_sub(1);
            if frame.open == 0 {
                self.frames.remove(&spot.seq);
            }
        }
        self.names.tidy();
    }

    /// Up to which sequence number frames are not needed any more.
    pub fn done_up_to(&self) -> u64 {
        self.frames.keys().next().map_or(self.newest, |first| first - 1)
    }

    /// A restart met a verdict: pieces at these places are done, others follow.
    pub fn replay(&mut self, trace: u64, done: &[u64]) {
        let mut pieces = self.entries.remove(&trace).map_or_else(Vec::new, |e| {
            self.quiet.remove(&(e.last, trace));
            e.pieces
        });
        let mut exempt = false;
        self.decided.retain_mut(|d| {
            let mine = d.trace == trace;
            if mine {
                exempt |= d.exempt;
                pieces.append(&mut d.pieces);
            }
            !mine
        });
        let (gone, left): (Vec<Spot>, Vec<Spot>) = pieces.into_iter().partition(|p| done.contains(&p.seq));
        self.finish(&gone);
        if !left.is_empty() {
            self.decided.push(Due { trace, waiting: None, exempt, late: false, pieces: left });
        }
    }

    /// Estimated bytes of memory, without the verdicts.
    pub fn memory(&self) -> usize {
        self.entries.len() * TRACE_BYTES
            + self.pieces * PIECE_BYTES
            + self.frames.len() * FRAME_BYTES
            + self.names.bytes
    }

    /// Traces and spans that wait.
    pub fn waiting(&self) -> (u64, u64) {
        (self.entries.len() as u64, self.spans)
    }
}

#[derive(Default)]
struct Group {
    due: Vec<Due>,
    frames: HashSet<u64>,
    bytes: u64,
}

/// Services and operations, each once.
#[derive(Default)]
struct Names {
    known: HashSet<Arc<str>>,
    bytes: usize,
    /// Names after the last tidying.
    after: usize,
}

impl Names {
    fn top(&mut self, root: Root) -> Top {
        Top {
            start: root.start,
            span: root.span,
            service: self.name(&root.service),
            name: self.name(&root.name),
        }
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        let name: Arc<str> = text.into();
        self.bytes += text.len() + 64;
        self.known.insert(Arc::clone(&name));
        name
    }

    /// Forgets names that no trace has any more, when they have doubled.
    fn tidy(&mut self) {
        if self.known.len() > 1024.max(2 * self.after) {
            self.known.retain(|n| Arc::strong_count(n) > 1);
            self.after = self.known.len();
            self.bytes = self.known.iter().map(|n| n.len() + 64).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdicts::Ruling;

    fn at(seq: u64, len: u32) -> FrameRef {
        FrameRef { file: 1, offset: 0, len, seq, kind: 1 }
    }

    fn piece(id: u128, start: i64) -> Piece {
        let root = Some(Root { start, span: SpanId(1), service: "web".into(), name: "get".into() });
        let time = Some((start, start + 5));
        Piece { id: TraceId(id), destination: 0, exempt: false, spans: 2, errors: 0, time, root }
    }

    fn ids(due: &[Due]) -> Vec<u64> {
        due.iter().map(|d| d.trace).collect()
    }

    #[test]
    fn a_trace_is_ripe_when_its_newest_piece_is_and_its_pieces_come_together() {
        let mut table = Table::new(9);
        table.insert(at(1, 10), 0, vec![piece(1, 50), piece(2, 60)], None, 100);
        table.insert(at(2, 10), 1, vec![piece(1 << 64 | 1, 40)], None, 200);
        assert_eq!(ids(&table.ripe(99)), []);
        assert_eq!(ids(&table.ripe(150)), [2]);
        let due = table.ripe(200);
        let waiting = due[0].waiting.as_ref().unwrap();
        assert_eq!((waiting.summary.spans, waiting.ways), (4, 0b11));
        assert_eq!((waiting.summary.start, waiting.summary.end), (40, 55));
        assert_eq!(waiting.summary.trace_id, TraceId(1 << 64 | 1));
        assert_eq!(due[0].pieces.iter().map(|s| s.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(table.done_up_to(), 0, "nothing is done yet");
        table.finish(&due[0].pieces);
        assert_eq!(table.done_up_to(), 0, "trace 2 is in the first frame, too");
    }

    #[test]
    fn pieces_that_come_while_a_trace_is_judged_or_later_follow() {
        let mut table = Table::new(9);
        table.insert(at(1, 10), 0, vec![piece(1, 50)], None, 100);
        let due = table.ripe(100);
        table.insert(at(2, 10), 0, vec![piece(1, 50)], None, 101);
        table.verdicts.set(1, &Ruling { keep: true, rule: "r".into(), rate: 1.0, spans: 2 });
        table.insert(at(3, 10), 0, vec![piece(1, 50)], None, 102);
        assert_eq!(ids(&table.ripe(i64::MAX)), []);
        let late = table.decided();
        assert_eq!(ids(&late), [1, 1]);
        due.iter().chain(&late).for_each(|d| table.finish(&d.pieces));
        assert_eq!((table.done_up_to(), table.waiting()), (3, (0, 0)));
        assert_eq!(table.memory(), 2 * (3 + 64), "only names are left");
    }

    #[test]
    fn groups_are_bounded_and_a_large_trace_goes_alone() {
        let mut table = Table::new(2000);
        for n in 0..1000 {
            table.insert(at(n + 1, 1), 0, vec![piece(u128::from(n) + 1, 0)], None, n as i64);
        }
        table.insert(at(5000, 100 << 20), 0, vec![piece(5000, 0)], None, 5000);
        assert_eq!(ids(&table.oldest()), [1]);
        assert_eq!(table.ripe(i64::MAX).len(), GROUP_TRACES);
        assert_eq!(table.ripe(i64::MAX).len(), 999 - GROUP_TRACES);
        assert_eq!(ids(&table.ripe(i64::MAX)), [5000]);
    }

    #[test]
    fn a_restart_forgets_what_is_done_and_lets_the_rest_follow() {
        let mut table = Table::new(9);
        table.insert(at(1, 10), 0, vec![piece(1, 0), piece(2, 0)], None, 0);
        table.insert(at(2, 10), 0, vec![piece(1, 0)], None, 0);
        table.verdicts.set(1, &Ruling { keep: true, rule: "r".into(), rate: 1.0, spans: 2 });
        table.replay(1, &[1]);
        assert_eq!(ids(&table.ripe(0)), [2]);
        let left = table.decided();
        assert_eq!((left.len(), left[0].pieces[0].seq), (1, 2));
    }
}
