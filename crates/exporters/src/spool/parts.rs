//! Strands in the queue of one destination: payloads that are compressed while
//! they grow (`strand.rs`). What a request of a client adds is a part: whole
//! blocks of zstd, in a frame of their own. The parts one after another and an
//! empty last block are the payload, as one frame of zstd, also if the process
//! was killed before its last part. A part is of no use without all before it:
//! it counts as safe only if they are, and what lies behind a gap is given up.
//!
//! A part's frame: `strand u64 | part u32 | items u64 | blocks`.

use super::{
    Arc, Bytes, FrameRef, JournalError, KEPT_BYTES, Request, Spool, SpoolError, State, Strands, append, lock,
};
use spanloom_journal::Refused;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Kinds of frames: a part; a strand that is packed or given up.
pub(super) const PART: u8 = 6;
pub(super) const STRAND_ENDED: u8 = 7;
/// In the other log: a request that a strand has become.
pub(super) const STRAND_REQUEST: u8 = 8;

/// Bytes before a part's blocks.
pub(crate) const PART_HEAD: usize = 20;

/// An empty raw block, the last of its frame (RFC 8878, 3.1.1.2).
const LAST_BLOCK: [u8; 3] = [1, 0, 0];

/// A strand as far as it is in this queue.
#[derive(Default)]
pub(super) struct Strand {
    parts: Vec<Part>,
    /// Parts that the log was given, and those it has answered for.
    given: u32,
    answered: u32,
    /// No part follows.
    ended: bool,
    /// Spans behind a gap.
    lost: u64,
}

struct Part {
    frame: FrameRef,
    items: u64,
    /// The blocks, if they are in memory, too.
    blocks: Option<Bytes>,
}

impl Strand {
    pub(super) fn items(&self) -> u64 {
        self.parts.iter().map(|p| p.items).sum()
    }

    /// Sequence number of the first part.
    pub(super) fn first(&self) -> Option<u64> {
        self.parts.first().map(|p| p.frame.seq)
    }
}

/// What a part's frame begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartHead {
    pub strand: u64,
    /// Counted from 0.
    pub part: u32,
    pub items: u64,
}

impl PartHead {
    pub(crate) fn to_bytes(self) -> [u8; PART_HEAD] {
        let mut out = [0; PART_HEAD];
        out[..8].copy_from_slice(&self.strand.to_le_bytes());
        out[8..12].copy_from_slice(&self.part.to_le_bytes());
        out[12..].copy_from_slice(&self.items.to_le_bytes());
        out
    }

    fn parse(frame: &[u8]) -> Option<Self> {
        let (strand, rest) = frame.split_first_chunk()?;
        let (part, rest) = rest.split_first_chunk()?;
        let items = rest.first_chunk()?;
        Some(Self {
            strand: u64::from_le_bytes(*strand),
            part: u32::from_le_bytes(*part),
            items: u64::from_le_bytes(*items),
        })
    }
}

/// A strand that is ready to be packed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub strand: u64,
    pub items: u64,
    /// The whole payload, compressed.
    pub body: Bytes,
}

/// A part that the log did not take. To be settled where no lock is held: the
/// client is told.
pub(crate) struct NotTaken(Refused);

impl NotTaken {
    pub(crate) fn settle(self) {
        (self.0.done)(Err(self.0.error));
    }
}

/// What a start found out about strands.
#[derive(Default)]
pub(super) struct Found {
    /// Those that are packed or given up.
    pub over: Vec<u64>,
    /// The highest number.
    pub highest: u64,
}

impl Found {
    /// A frame of the `pending` log.
    pub(super) fn frame(&mut self, frame: FrameRef, bytes: &[u8], strands: &mut Strands) {
        match frame.kind {
            PART => {
                let Some(head) = PartHead::parse(bytes) else { return };
                self.highest = self.highest.max(head.strand);
                let strand = strands.entry(head.strand).or_default();
                strand.ended = true;
                if head.part as usize == strand.parts.len() {
                    strand.parts.push(Part { frame, items: head.items, blocks: None });
                } else {
                    strand.lost += head.items;
                }
            }
            STRAND_ENDED => self.over(bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))),
            _ => {}
        }
    }

    pub(super) fn over(&mut self, strand: u64) {
        self.highest = self.highest.max(strand);
        self.over.push(strand);
    }

    /// Forgets what is over. Spans that cannot be sent because a part before
    /// theirs is missing.
    pub(super) fn settle(&self, strands: &mut Strands) -> u64 {
        self.over.iter().for_each(|strand| drop(strands.remove(strand)));
        strands.values().map(|s| s.lost).sum()
    }
}

impl Spool {
    /// The highest number that a strand has had in this queue.
    pub(crate) fn highest_strand(&self) -> u64 {
        self.highest_strand
    }

    /// Gives a part to the log; [`Spool::write_here`] follows, after the lock
    /// that keeps parts in order. `done` is called when the part and all before
    /// it are as safe as the policy asks. Otherwise `broken` is set, and the
    /// strand is to be ended; so it is if the part is not taken.
    pub(crate) fn append_part(
        &self,
        framed: &Bytes,
        head: PartHead,
        broken: &Arc<AtomicBool>,
        done: Box<dyn FnOnce(Result<(), SpoolError>) + Send>,
    ) -> Result<(), NotTaken> {
        lock(&self.state).strands.entry(head.strand).or_default().given += 1;
        let (state, broken) = (Arc::clone(&self.state), Arc::clone(broken));
        let blocks = framed.slice(PART_HEAD..);
        let written = Box::new(move |result: Result<FrameRef, JournalError>| {
            let result = lock(&state).part_written(head, blocks, result);
            if result.is_err() {
                broken.store(true, SeqCst);
            }
            done(result);
        });
        self.pending.append_before_write(PART, framed.clone(), written).map(drop).map_err(NotTaken)
    }

    /// Writes what was appended, if the policy lets it be written here.
    pub(crate) fn write_here(&self) {
        self.pending.write_here();
    }

    /// No part of this strand follows.
    pub(crate) fn end_strand(&self, strand: u64) {
        if let Some(strand) = lock(&self.state).strands.get_mut(&strand) {
            strand.ended = true;
        }
    }

    /// The oldest strand that has ended and is as safe as it will be. It stays
    /// where it is until [`Spool::pack_strand`]. What cannot be read back is
    /// given up and counted.
    pub(crate) fn ended(&self) -> Option<Ended> {
        loop {
            let (strand, parts) = {
                let state = lock(&self.state);
                let (id, strand) = state.strands.iter().find(|(_, s)| s.ended && s.given == s.answered)?;
                let part = |p: &Part| (p.frame, p.items, p.blocks.clone());
                (*id, strand.parts.iter().map(part).collect::<Vec<_>>())
            };
            let size: usize = parts.iter().map(|p| p.0.len as usize).sum();
            let mut body = Vec::with_capacity(size + LAST_BLOCK.len());
            let mut items = 0;
            for (i, (frame, spans, blocks)) in parts.into_iter().enumerate() {
                let read = || self.pending.read(frame).map(|f| f.slice(PART_HEAD.min(f.len())..));
                match blocks.map_or_else(read, Ok) {
                    Ok(blocks) => body.extend_from_slice(&blocks),
                    Err(e) => {
                        let lost = lock(&self.state).cut_strand(strand, i);
                        tracing::error!(
                            spans = lost,
                            "spans that waited to be sent cannot be read back: {e}"
                        );
                        break;
                    }
                }
                items += spans;
            }
            if body.is_empty() {
                self.forget_strand(strand);
                continue;
            }
            body.extend_from_slice(&LAST_BLOCK);
            return Some(Ended { strand, items, body: body.into() });
        }
    }

    /// Replaces a strand by the request that it has become. Blocks until that
    /// is on disk. On an error the strand waits on.
    pub(crate) fn pack_strand(&self, strand: u64, request: &Request) -> Result<(), SpoolError> {
        self.enqueue(STRAND_REQUEST, request, strand)?;
        self.forget_strand(strand);
        self.release_pending()?;
        Ok(())
    }

    fn forget_strand(&self, strand: u64) {
        {
            let mut state = lock(&self.state);
            if let Some(strand) = state.strands.remove(&strand) {
                state.kept_bytes -= kept(&strand.parts);
            }
        }
        let marker = Bytes::copy_from_slice(&strand.to_le_bytes());
        append(&self.pending, STRAND_ENDED, marker, Box::new(|_| ()));
    }
}

fn kept(parts: &[Part]) -> u64 {
    parts.iter().filter_map(|p| p.blocks.as_ref()).map(|b| b.len() as u64).sum()
}

impl State {
    /// The log has answered for a part.
    fn part_written(
        &mut self,
        head: PartHead,
        blocks: Bytes,
        result: Result<FrameRef, JournalError>,
    ) -> Result<(), SpoolError> {
        let Some(strand) = self.strands.get_mut(&head.strand) else {
            return Err(SpoolError::Gap);
        };
        strand.answered += 1;
        let frame = result?;
        self.newest_pending = frame.seq;
        if strand.parts.len() != head.part as usize {
            return Err(SpoolError::Gap);
        }
        let bytes = blocks.len() as u64;
        let keep = self.kept_bytes + bytes <= KEPT_BYTES;
        self.kept_bytes += if keep { bytes } else { 0 };
        strand.parts.push(Part { frame, items: head.items, blocks: keep.then_some(blocks) });
        Ok(())
    }

    /// Gives up what a strand holds from a part on. Its spans.
    fn cut_strand(&mut self, strand: u64, from: usize) -> u64 {
        let Some(strand) = self.strands.get_mut(&strand) else { return 0 };
        let gone = strand.parts.split_off(from.min(strand.parts.len()));
        let lost = gone.iter().map(|p| p.items).sum();
        if lost > 0 {
            *self.dropped.entry("damaged_on_disk").or_default() += lost;
        }
        self.kept_bytes -= kept(&gone);
        lost
    }
}
