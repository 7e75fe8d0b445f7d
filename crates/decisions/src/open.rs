//! The block that is being filled: rows in memory, and on disk a log of frames
//! from which it is filled again after a restart.
//!
//! Frame payload: base i64 | meanings u16 | rows u32 | meanings | rows.

use crate::row::{Decision, Meaning, ROW, Row, cut};
use spanloom_model::TraceId;

/// Kind of the log's frames.
const FRAME: u8 = 1;
const HEAD: usize = 14;
/// Meanings of one block; one with more is sealed early.
const MEANINGS: usize = 4096;
const MS: i64 = 1_000_000;

#[derive(Default, Clone)]
pub(crate) struct Open {
    /// Milliseconds since the Unix epoch that times count from.
    pub base: i64,
    pub rows: Vec<Row>,
    pub meanings: Vec<Meaning>,
    /// Position of the meaning used last.
    last: usize,
    /// Rows and meanings that the log has.
    logged: (usize, usize),
    frames: u64,
}

impl Open {
    pub fn is_full(&self, rows: usize) -> bool {
        self.rows.len() >= rows || self.meanings.len() >= MEANINGS
    }

    /// Whether a decision of this time can be written here (times are 32 bits
    /// of milliseconds).
    pub fn takes(&self, at: i64) -> bool {
        self.rows.is_empty() || at.div_euclid(MS).saturating_sub(self.base) < i64::from(u32::MAX)
    }

    pub fn push(&mut self, d: &Decision<'_>) {
        if self.rows.is_empty() {
            self.base = d.at.div_euclid(MS);
        }
        let rule = cut(d.rule);
        let same = |m: &Meaning| m.outcome == d.outcome && m.to == d.to && m.rule == rule;
        if !self.meanings.get(self.last).is_some_and(same) {
            self.last = self.meanings.iter().position(same).unwrap_or_else(|| {
                self.meanings.push(Meaning { outcome: d.outcome, to: d.to, rule: rule.to_owned() });
                self.meanings.len() - 1
            });
        }
        // A clock that was set back: not before the first.
        let at = d.at.div_euclid(MS).saturating_sub(self.base).clamp(0, i64::from(u32::MAX)) as u32;
        let meaning = self.last as u16;
        self.rows.push(Row { id: d.trace_id.0, at, rate: d.rate, spans: d.spans, chunks: 1, meaning });
    }

    /// Calls `each` with the decisions about a trace.
    pub fn find(&self, id: TraceId, each: &mut dyn FnMut(&Row, &Meaning, i64)) {
        for row in self.rows.iter().filter(|r| r.is_about(id)) {
            if let Some(meaning) = self.meanings.get(usize::from(row.meaning)) {
                each(row, meaning, self.base);
            }
        }
    }

    /// Earliest and latest time, nanoseconds.
    pub fn range(&self) -> Option<(i64, i64)> {
        let at = |row: Option<u32>| row.map(|at| (self.base + i64::from(at)).saturating_mul(MS));
        Some((at(self.rows.iter().map(|r| r.at).min())?, at(self.rows.iter().map(|r| r.at).max())?))
    }

    /// The frame of what the log does not have yet, and what to tell
    /// [`Open::logged`] when it has been written.
    pub fn unlogged(&self, out: &mut Vec<u8>) -> Option<(usize, usize)> {
        let rows = &self.rows[self.logged.0..];
        let meanings = &self.meanings[self.logged.1..];
        if rows.is_empty() {
            return None;
        }
        let mut payload = Vec::with_capacity(HEAD + rows.len() * ROW);
        payload.extend_from_slice(&self.base.to_le_bytes());
        payload.extend_from_slice(&(meanings.len() as u16).to_le_bytes());
        payload.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        meanings.iter().for_each(|m| m.put(&mut payload));
        rows.iter().for_each(|r| r.put(&mut payload));
        spanloom_journal::write_frame(out, self.frames + 1, FRAME, &payload);
        Some((self.rows.len(), self.meanings.len()))
    }

    pub fn logged(&mut self, to: (usize, usize)) {
        self.logged = to;
        self.frames += 1;
    }

    /// Fills from a log. What follows damage refers to meanings that may be
    /// lost, so it ends there; the text says what was lost. The second number
    /// is where the intact part ends.
    pub fn read(&mut self, data: &[u8]) -> (Option<String>, usize) {
        let mut good = 0;
        let mut stopped = None;
        let scan = spanloom_journal::scan(data, 0, 0, |frame| {
            if stopped.is_none() && frame.offset == good && self.take(&data[frame.payload.clone()]).is_some()
            {
                good = frame.payload.end;
                self.frames = frame.seq;
            } else {
                stopped.get_or_insert(frame.offset);
            }
        });
        self.logged = (self.rows.len(), self.meanings.len());
        let reason = scan.losses.first().map_or("a frame does not say what it should", |l| l.reason);
        let lost = data.len() - good;
        ((lost > 0).then(|| format!("{reason}; {lost} bytes at byte {good} are lost")), good)
    }

    fn take(&mut self, payload: &[u8]) -> Option<()> {
        let head = payload.get(..HEAD)?;
        let base = i64::from_le_bytes(head[..8].try_into().ok()?);
        let meanings = u16::from_le_bytes(head[8..10].try_into().ok()?);
        let rows = u32::from_le_bytes(head[10..14].try_into().ok()?) as usize;
        let mut rest = &payload[HEAD..];
        let known = self.meanings.len();
        for _ in 0..meanings {
            let Some(meaning) = Meaning::get(&mut rest) else {
                self.meanings.truncate(known);
                return None;
            };
            self.meanings.push(meaning);
        }
        let (read, left) = rest.as_chunks::<ROW>();
        let good = left.is_empty()
            && read.len() == rows
            && base.checked_mul(MS).is_some()
            && read.iter().all(|r| usize::from(Row::get(r).meaning) < self.meanings.len());
        if !good {
            self.meanings.truncate(known);
            return None;
        }
        self.base = base;
        self.rows.extend(read.iter().map(Row::get));
        Some(())
    }
}
