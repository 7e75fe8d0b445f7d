//! Payloads that are compressed while they grow, for formats whose payload is a
//! head and items one after another.
//!
//! What a request of a client adds is compressed before it is written to the
//! queues on disk, once for all destinations, so the disk sees a fraction of
//! the bytes and packing is stringing parts together (`spool/parts.rs`). A
//! strand is worked on by one thread at a time; there are a few, so that
//! threads do not wait for each other.
//!
//! To end a block of zstd costs as much as to write [`LEAST_BYTES`] or so:
//! smaller items are not worth it, they wait as they are.

use crate::ack::{AllOf, refusal};
use crate::outlet::MAX_PAYLOAD;
use crate::spool::{ITEM_HEAD, NotTaken, PART_HEAD, PartHead, Spool, SpoolError};
use bytes::Bytes;
use spanloom_model::{AckFn, StoreError};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

/// Items from this size on are compressed as they come.
pub(crate) const LEAST_BYTES: usize = 16 << 10;
/// Buffers beyond it are given back after use.
const KEPT_BUFFER: usize = 2 << 20;
/// Of all that leaves for Datadog.
pub(crate) const LEVEL: i32 = 1;
/// A window of 4 MiB, in which a whole payload finds room: with one that moves
/// on the encoder is slower. Memory is touched as it is filled.
pub(crate) const WINDOW_LOG: u32 = 22;
/// 2^15 places where the encoder looks for what repeats. The level's own 2^14
/// are few for so wide a window: twice as many find a sixth more at less cost.
pub(crate) const HASH_LOG: u32 = 15;
/// Strands at most; their windows are the price of more.
const MOST: usize = 8;

/// The strands of one outlet.
pub(crate) struct Strands {
    spools: Vec<Arc<Spool>>,
    /// What every payload begins with.
    head: Vec<u8>,
    slots: Vec<Mutex<Slot>>,
    next: AtomicU64,
    /// Where to wait if all slots are taken.
    turn: AtomicUsize,
}

/// Place for one strand at a time.
#[derive(Default)]
struct Slot {
    /// Made when it is needed.
    encoder: Option<Encoder<'static>>,
    open: Option<Open>,
    /// An item before it is compressed, after room for its head.
    item: Vec<u8>,
    /// And after it.
    part: Vec<u8>,
}

/// The strand that grows.
struct Open {
    strand: u64,
    /// Parts so far.
    parts: u32,
    /// Bytes before compression.
    bytes: usize,
    /// A queue has lost a part: it takes none of those behind it.
    broken: Arc<AtomicBool>,
}

impl Strands {
    /// For these queues; `slots` threads can work at once.
    pub(crate) fn new(spools: Vec<Arc<Spool>>, head: Vec<u8>, slots: usize) -> Self {
        // Never a number that any queue knows from before.
        let next = spools.iter().map(|s| s.highest_strand()).max().unwrap_or(0) + 1;
        Self {
            spools,
            head,
            slots: (0..slots.clamp(1, MOST)).map(|_| Mutex::default()).collect(),
            next: AtomicU64::new(next),
            turn: AtomicUsize::new(0),
        }
    }

    /// Queues what `encode` writes; it returns how many spans that are. Whether
    /// there is a whole request to pack.
    pub(crate) fn export(&self, encode: impl FnOnce(&mut Vec<u8>) -> u64, done: AckFn) -> bool {
        let mut slot = self.free_slot();
        slot.item.clear();
        slot.item.resize(ITEM_HEAD, 0);
        let items = encode(&mut slot.item);
        if slot.item.len() == ITEM_HEAD {
            drop(slot);
            done(Ok(()));
            return false;
        }
        let answers = AllOf::new(self.spools.len(), done);
        let answer = || {
            let answers = Arc::clone(&answers);
            Box::new(move |result: Result<(), SpoolError>| answers.one(result.map_err(refusal)))
        };
        if slot.item.len() < LEAST_BYTES {
            slot.item[..ITEM_HEAD].copy_from_slice(&items.to_le_bytes());
            let framed = Bytes::copy_from_slice(&slot.item);
            drop(slot);
            self.spools.iter().for_each(|spool| spool.append_framed(framed.clone(), answer()));
            return self.spools.iter().any(|spool| spool.pending_bytes() >= MAX_PAYLOAD as u64);
        }
        let before = slot.open.as_ref().map(|o| o.strand);
        let appended = self.append(&mut slot, items, answer);
        let ended = before.is_some() && before != slot.open.as_ref().map(|o| o.strand);
        slot.trim();
        drop(slot);
        match appended {
            Ok(not_taken) => {
                self.spools.iter().for_each(|spool| spool.write_here());
                not_taken.into_iter().for_each(NotTaken::settle);
            }
            Err(e) => self.spools.iter().for_each(|_| answers.one(Err(StoreError::Write(e.to_string())))),
        }
        ended
    }

    /// A slot nobody works on, the first of them, so that a few callers fill
    /// few strands.
    fn free_slot(&self) -> MutexGuard<'_, Slot> {
        for slot in &self.slots {
            match slot.try_lock() {
                Ok(slot) => return slot,
                Err(TryLockError::Poisoned(slot)) => return slot.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        lock(&self.slots[self.turn.fetch_add(1, Relaxed) % self.slots.len()])
    }

    /// Adds the item of a slot to its strand, or to a new one.
    fn append<F>(&self, slot: &mut Slot, items: u64, answer: impl Fn() -> Box<F>) -> io::Result<Vec<NotTaken>>
    where
        F: FnOnce(Result<(), SpoolError>) + Send + 'static,
    {
        let bytes = slot.item.len() - ITEM_HEAD;
        if slot.open.as_ref().is_some_and(|o| o.bytes + bytes > MAX_PAYLOAD || o.broken.load(SeqCst)) {
            self.end(slot);
        }
        let open = slot.open.get_or_insert_with(|| Open {
            strand: self.next.fetch_add(1, Relaxed),
            parts: 0,
            bytes: 0,
            broken: Arc::default(),
        });
        let head = PartHead { strand: open.strand, part: open.parts, items };
        slot.part.clear();
        slot.part.extend_from_slice(&head.to_bytes());
        debug_assert_eq!(slot.part.len(), PART_HEAD);
        let first = if open.parts == 0 { &self.head[..] } else { &[] };
        open.parts += 1;
        open.bytes += bytes;
        let broken = Arc::clone(&open.broken);
        if let Err(e) = compress(&mut slot.encoder, first, &slot.item[ITEM_HEAD..], &mut slot.part) {
            // Whatever the encoder has of this item, nobody else gets.
            slot.encoder = None;
            self.end(slot);
            return Err(e);
        }
        let framed = Bytes::copy_from_slice(&slot.part);
        let append = |spool: &Arc<Spool>| spool.append_part(&framed, head, &broken, answer()).err();
        let not_taken: Vec<NotTaken> = self.spools.iter().filter_map(append).collect();
        if !not_taken.is_empty() || slot.open.as_ref().is_some_and(|o| o.bytes >= MAX_PAYLOAD) {
            self.end(slot);
        }
        Ok(not_taken)
    }

    fn end(&self, slot: &mut Slot) {
        if let Some(open) = slot.open.take() {
            self.spools.iter().for_each(|spool| spool.end_strand(open.strand));
        }
    }

    /// Ends all strands. What has nothing to end gives its memory back.
    pub(crate) fn end_all(&self) {
        for slot in &self.slots {
            let mut slot = lock(slot);
            if slot.open.is_some() {
                self.end(&mut slot);
            } else {
                *slot = Slot::default();
            }
        }
    }
}

impl Slot {
    fn trim(&mut self) {
        for buffer in [&mut self.item, &mut self.part] {
            if buffer.capacity() > KEPT_BUFFER {
                *buffer = Vec::new();
            }
        }
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    // A part that ended in a panic is missing in the queues, which therefore
    // take none of those behind it.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends `item` as whole blocks. `first`: what its frame begins with, if it
/// is a new one.
fn compress(
    encoder: &mut Option<Encoder<'static>>,
    first: &[u8],
    item: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let encoder = match encoder {
        Some(encoder) => encoder,
        None => {
            let encoder = encoder.insert(Encoder::new(LEVEL)?);
            encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
            encoder.set_parameter(CParameter::HashLog(HASH_LOG))?;
            encoder
        }
    };
    if !first.is_empty() {
        encoder.reinit()?;
    }
    for bytes in [first, item] {
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            with_room(out, |output| encoder.run(&mut input, output))?;
        }
    }
    while with_room(out, |output| encoder.flush(output))? > 0 {}
    Ok(())
}

/// Room for one block at least: then the encoder writes it where it belongs.
fn with_room<R>(out: &mut Vec<u8>, work: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> R) -> R {
    out.reserve(zstd::zstd_safe::CCtx::out_size());
    let at = out.len();
    work(&mut OutBuffer::around_pos(out, at))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test says what it expects
mod tests;
