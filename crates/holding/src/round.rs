//! Judging what is quiet, reading back what is kept, handing it on.

use crate::buffer::{Buffer, HoldingError, lock};
use crate::mark::{Carried, kind, write_verdicts};
use crate::piece::{Piece, Pieces};
use crate::table::{Due, Spot, Waiting};
use crate::verdicts::Ruling;
use crate::way::Way;
use spanloom_journal::record::View;
use spanloom_model::{Batch, Chunk, Fate, Leaves, Protocol, Span};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};

/// Decoded frames that are kept for the next trace: neighbours mostly lie
/// together.
const DECODED: usize = 4;

/// Spans of a trace that came in one request.
#[derive(Clone, Debug)]
pub struct Spans {
    batch: Rc<Batch>,
    chunks: Vec<Chunk>,
}

impl Spans {
    /// All spans of a batch.
    pub fn whole(batch: Batch) -> Self {
        let chunks = batch.chunks.clone();
        Self { batch: Rc::new(batch), chunks }
    }

    /// The batch that holds the texts, and the spans, chunk by chunk.
    pub fn chunks(&self) -> impl Iterator<Item = (&Batch, &[Span])> {
        self.chunks.iter().map(|c| (&*self.batch, self.batch.chunk_spans(c)))
    }
}

/// Judges a trace by its figures and, if it needs them, its spans.
pub type Judge<'a> = dyn FnMut(&Waiting, &dyn Fn() -> Result<Vec<Spans>, HoldingError>) -> Ruling + 'a;

impl Buffer {
    /// Judges the traces that are quiet at `now`, and the oldest while the
    /// buffer is full. Blocks on files and until exporters have acknowledged.
    /// Ends early, between groups of traces, when `stop` says so. Only one
    /// thread calls this.
    pub fn round(&self, now: i64, judge: &mut Judge<'_>, stop: &dyn Fn() -> bool) {
        // Late pieces, and what an exporter refused before: once a round.
        let decided = lock(&self.table).decided();
        self.carry_out(decided, judge);
        let ripe = now.saturating_sub(self.config.wait);
        while !stop() {
            let mut group = lock(&self.table).ripe(ripe);
            if group.is_empty() && self.is_over() {
                group = lock(&self.table).oldest();
                self.counters.early.fetch_add(group.len() as u64, Relaxed);
            }
            if group.is_empty() {
                break;
            }
            self.carry_out(group, judge);
        }
    }

    /// Judges a group and does what the verdicts say.
    fn carry_out(&self, group: Vec<Due>, judge: &mut Judge<'_>) {
        if group.is_empty() {
            return;
        }
        let frames = Frames { buffer: self, open: RefCell::default(), decoded: RefCell::default() };
        let mut rulings: Vec<(Due, Ruling)> = Vec::with_capacity(group.len());
        for due in group {
            let ruling = match &due.waiting {
                Some(waiting) => {
                    let ruling = judge(waiting, &|| frames.spans_of(&due));
                    lock(&self.table).verdicts.set(due.trace, &ruling);
                    ruling
                }
                None => self.known(&due),
            };
            rulings.push((due, ruling));
        }
        let refused = self.send(&frames, &rulings);
        self.settle(rulings, &refused);
    }

    /// The verdict that pieces follow.
    fn known(&self, due: &Due) -> Ruling {
        let ruling = lock(&self.table).verdicts.ruling(due.trace);
        // Forgotten meanwhile, which takes very many traces: kept, as nobody
        // can say that it was dropped.
        let mut ruling = ruling.unwrap_or(Ruling { keep: true, rule: "late".into(), rate: 0.0, spans: 0 });
        ruling.keep |= due.exempt;
        ruling
    }

    /// Hands kept pieces to their exporters, frame by frame, and waits until
    /// these have them. Returns the frames that were not taken.
    fn send(&self, frames: &Frames<'_>, rulings: &[(Due, Ruling)]) -> HashSet<u64> {
        let mut wanted: BTreeMap<u64, HashSet<u64>> = BTreeMap::new();
        for (due, _) in rulings.iter().filter(|(_, r)| r.keep) {
            for spot in &due.pieces {
                wanted.entry(spot.seq).or_default().insert(due.trace);
            }
        }
        let (tell, told) = mpsc::channel();
        let mut waiting = HashSet::new();
        for (seq, traces) in wanted {
            let (way, batch) = match self.batch_of(frames, seq, &traces) {
                Ok(Some(part)) => part,
                Ok(None) => continue,
                Err(e) => {
                    tracing::error!("kept spans are lost: {e}");
                    let in_frame = |s: &&Spot| s.seq == seq;
                    let kept = rulings.iter().filter(|(_, r)| r.keep).flat_map(|(due, _)| &due.pieces);
                    self.lost("damaged_on_disk", kept.filter(in_frame).map(|s| u64::from(s.spans)).sum());
                    continue;
                }
            };
            waiting.insert(seq);
            let tell = tell.clone();
            way.export(Arc::new(batch), Box::new(move |result| drop(tell.send((seq, result)))));
        }
        drop(tell);
        // An exporter that loses a callback drops it: then nothing more comes.
        while let Ok((seq, result)) = told.recv() {
            match result {
                Ok(()) => drop(waiting.remove(&seq)),
                Err(e) => tracing::warn!("kept spans wait on in the tail sampling buffer: {e}"),
            }
        }
        self.counters.refused.fetch_add(waiting.len() as u64, Relaxed);
        waiting
    }

    /// The chunks of these traces in a frame, as they are to leave; none if
    /// there is nowhere to send them.
    fn batch_of(
        &self,
        frames: &Frames<'_>,
        seq: u64,
        traces: &HashSet<u64>,
    ) -> Result<Option<Part<'_>>, HoldingError> {
        let frame = frames.get(seq)?;
        let mine = |p: &Piece| traces.contains(&p.id.low());
        let mut batch = frame.part(&mine)?;
        let pieces = || frame.head.pieces.iter().filter(|p| mine(p));
        let Some(way) = self.ways.get(usize::from(frame.head.way)) else {
            self.lost("destination_gone", pieces().map(|p| u64::from(p.spans)).sum());
            return Ok(None);
        };
        for (chunk, piece) in batch.chunks.iter_mut().zip(pieces()) {
            chunk.sampled.leaves = Leaves::Whole;
            let to = frame.head.destinations.get(piece.destination as usize).map_or("", String::as_str);
            if !way.send_to(chunk, to) {
                chunk.fate = Fate::Rejected("destination_gone");
                self.lost("destination_gone", u64::from(piece.spans));
            }
        }
        Ok(batch.chunks.iter().any(|c| c.fate == Fate::Kept).then_some((way.as_ref(), batch)))
    }

    fn lost(&self, reason: &'static str, spans: u64) {
        *lock(&self.counters.lost).entry(reason).or_default() += spans;
    }

    /// Remembers what was done, and forgets the pieces.
    fn settle(&self, rulings: Vec<(Due, Ruling)>, refused: &HashSet<u64>) {
        let mut carried: Vec<(u64, Ruling, Vec<u64>)> = Vec::with_capacity(rulings.len());
        let mut dropped: BTreeMap<Protocol, [u64; 2]> = BTreeMap::new();
        {
            let mut table = lock(&self.table);
            for (mut due, ruling) in rulings {
                let left = |s: &Spot| ruling.keep && refused.contains(&s.seq);
                let (again, done): (Vec<Spot>, Vec<Spot>) = due.pieces.drain(..).partition(left);
                if !ruling.keep {
                    for (spot, protocol) in done.iter().filter_map(|s| Some((s, s.protocol?))) {
                        let n = dropped.entry(protocol).or_default();
                        n[0] += u64::from(spot.spans);
                        n[1] += u64::from(spot.chunks);
                    }
                }
                if due.late {
                    let n = done.iter().map(|s| u64::from(s.spans)).sum();
                    self.counters.late[usize::from(!ruling.keep)].fetch_add(n, Relaxed);
                }
                table.finish(&done);
                let mut seqs: Vec<u64> = done.iter().map(|s| s.seq).collect();
                seqs.dedup();
                // Also of what an exporter refused: a restart does not judge anew.
                if !seqs.is_empty() || due.waiting.is_some() {
                    carried.push((due.trace, ruling, seqs));
                }
                if !again.is_empty() {
                    table.again(Due { waiting: None, pieces: again, ..due });
                }
            }
        }
        for (protocol, [spans, chunks]) in dropped {
            (self.config.on_dropped)(protocol, spans, chunks);
        }
        let marks: Vec<Carried<'_>> = carried
            .iter()
            .map(|(trace, ruling, done)| Carried { trace: *trace, ruling: ruling.clone(), done })
            .collect();
        if marks.is_empty() {
            return;
        }
        let n = marks.len() as u64;
        let mark = self.journal.append(kind::VERDICTS, write_verdicts(&marks), Box::new(|_| ()));
        if let Err(refused) = mark {
            self.counters.unwritten.fetch_add(n, Relaxed);
            tracing::error!("verdicts of tail rules are not written: {}", refused.error);
        }
        self.release();
    }
}

/// A way, and what is to leave by it.
type Part<'a> = (&'a dyn Way, Batch);

/// A frame that was read back.
struct Opened {
    head: Pieces,
    view: View,
}

impl Opened {
    /// The chunks of some pieces, in their order.
    fn part(&self, mine: &dyn Fn(&Piece) -> bool) -> Result<Batch, HoldingError> {
        let batch = self.view.batch(|i, _| self.head.pieces.get(i).is_some_and(mine), true);
        batch.map_err(|e| HoldingError::Damaged(e.to_string()))
    }
}

/// Frames of a group, each read once.
struct Frames<'a> {
    buffer: &'a Buffer,
    open: RefCell<HashMap<u64, Rc<Opened>>>,
    decoded: RefCell<VecDeque<(u64, Rc<Batch>)>>,
}

impl Frames<'_> {
    fn get(&self, seq: u64) -> Result<Rc<Opened>, HoldingError> {
        if let Some(known) = self.open.borrow().get(&seq) {
            return Ok(Rc::clone(known));
        }
        let at = lock(&self.buffer.table).frame(seq);
        let at = at.ok_or_else(|| HoldingError::Damaged(format!("frame {seq} is gone")))?;
        let bytes = self.buffer.journal.read(at)?;
        let (head, record) = Pieces::read(&bytes).map_err(|e| HoldingError::Damaged(e.to_string()))?;
        let view = View::parse(bytes.slice(record..)).map_err(|e| HoldingError::Damaged(e.to_string()))?;
        let opened = Rc::new(Opened { head, view });
        self.open.borrow_mut().insert(seq, Rc::clone(&opened));
        Ok(opened)
    }

    /// A whole frame. Its traces are asked about one after the other, and
    /// each would decode the tables of all.
    fn decoded(&self, seq: u64) -> Result<Rc<Batch>, HoldingError> {
        if let Some((_, known)) = self.decoded.borrow().iter().find(|(s, _)| *s == seq) {
            return Ok(Rc::clone(known));
        }
        let batch = Rc::new(self.get(seq)?.part(&|_| true)?);
        let mut decoded = self.decoded.borrow_mut();
        decoded.push_back((seq, Rc::clone(&batch)));
        if decoded.len() > DECODED {
            decoded.pop_front();
        }
        Ok(batch)
    }

    /// All spans of a trace that wait.
    fn spans_of(&self, due: &Due) -> Result<Vec<Spans>, HoldingError> {
        let mut parts = Vec::with_capacity(due.pieces.len());
        let mut last = None;
        for spot in &due.pieces {
            // Several pieces of one frame are read together.
            if last.replace(spot.seq) != Some(spot.seq) {
                let batch = self.decoded(spot.seq)?;
                let mine = |c: &&Chunk| c.trace_id.low() == due.trace;
                let chunks = batch.chunks.iter().filter(mine).copied().collect();
                parts.push(Spans { batch, chunks });
            }
        }
        Ok(parts)
    }
}
