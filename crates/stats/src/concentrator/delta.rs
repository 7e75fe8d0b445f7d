//! What counting changes, in a few bytes per span, and the way back: a log of
//! these records rebuilds the buckets of a process that was killed.
//!
//! A record is a sequence of operations, numbers as varints:
//!
//! ```text
//! n << 2 | error << 1 | top_level, duration     a span of group n - 1 (n > 0)
//! 0, era                                        the following spans are of this bucket
//! 1, weight (8 bytes)                           the following spans stand for so many
//! 2, texts                                      the record's next source
//! 3, 0, era, start, n, source, key              group n of a bucket
//! 3, 1, …, sums, sketches                       the same, with what it has counted so far
//! 3, 2, era                                     the bucket is over
//! ```
//!
//! Groups are defined once per bucket, in or before the first record that
//! needs them. Spans of a bucket or group that is not (any more) defined are
//! passed over: their bucket has been flushed with them, or replaced by a
//! snapshot that has them. An `era` names a bucket; no two ever have the same.

use super::{
    BASE_SERVICE, Bucket, Concentrator, Group, KeyRef, One, Own, Source, SourceRef, bucket_find, hash_value,
    intern,
};
use crate::record::{Malformed, Reader, put_text, unzigzag, zigzag};
use crate::rules::peers_of_calls;
use crate::sketch::{Sketch, put_varint};
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};

const IN: u64 = 0;
const WEIGHT: u64 = 1;
const SOURCE: u64 = 2;
const MORE: u64 = 3;
const GROUP: u8 = 0;
const GROUP_SO_FAR: u8 = 1;
const OVER: u8 = 2;

/// What a batch has changed, see [`Concentrator::count_logged`].
#[derive(Debug)]
pub struct Delta {
    out: Vec<u8>,
    era: u64,
    weight: f64,
}

impl Default for Delta {
    fn default() -> Self {
        Self { out: Vec::new(), era: 0, weight: 1.0 }
    }
}

impl Delta {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    #[inline]
    pub(super) fn span(&mut self, era: u64, group: usize, one: One) {
        if era != self.era {
            self.era = era;
            put_varint(&mut self.out, IN);
            put_varint(&mut self.out, era);
        }
        if one.weight.to_bits() != self.weight.to_bits() {
            self.weight = one.weight;
            put_varint(&mut self.out, WEIGHT);
            self.out.extend_from_slice(&one.weight.to_le_bytes());
        }
        let head = (group as u64 + 1) << 2 | u64::from(one.error) << 1 | u64::from(one.top_level);
        put_varint(&mut self.out, head);
        put_varint(&mut self.out, one.duration);
    }
}

/// The concentrator's side of the log.
#[derive(Debug, Default)]
pub(super) struct Log {
    on: bool,
    last_era: u64,
    pub(super) position: u64,
    /// Definitions that no record holds yet.
    defined: Vec<u8>,
    /// The sources in them, by number.
    sources: HashMap<u32, u64, FixedState>,
    next_source: u64,
    /// Buckets flushed since they were last asked for.
    flushed: Vec<u64>,
}

impl Log {
    pub(super) fn era(&mut self) -> u64 {
        self.last_era += 1;
        self.last_era
    }

    pub(super) fn define(&mut self, bucket: &Bucket, at: usize, sources: &[Source]) {
        if self.on {
            self.group(bucket, at, sources, false);
        }
    }

    fn group(&mut self, bucket: &Bucket, at: usize, sources: &[Source], so_far: bool) {
        let group = &bucket.groups[at];
        let source = match self.sources.get(&group.source) {
            Some(known) => *known,
            None => {
                let number = self.next_source;
                self.next_source += 1;
                self.sources.insert(group.source, number);
                put_varint(&mut self.defined, SOURCE);
                let source = &sources[group.source as usize];
                source.texts.iter().for_each(|t| put_text(&mut self.defined, t.as_bytes()));
                put_text(&mut self.defined, source.container_tags.as_bytes());
                put_text(&mut self.defined, source.process_tags.as_bytes());
                number
            }
        };
        let out = &mut self.defined;
        put_varint(out, MORE);
        out.push(if so_far { GROUP_SO_FAR } else { GROUP });
        for number in [bucket.era, zigzag(bucket.start), at as u64, source] {
            put_varint(out, number);
        }
        (0..6).for_each(|i| put_text(out, group.text(i)));
        put_varint(out, u64::from(group.status));
        put_varint(out, group.grpc.map_or(0, |g| u64::from(g) + 1));
        out.push(u8::from(group.synthetics) | u8::from(group.root) << 1);
        for tags in [&group.peer_tags, &group.extra_tags] {
            put_varint(out, tags.len() as u64);
            tags.iter().for_each(|t| put_text(out, t.as_bytes()));
        }
        if so_far {
            for sum in [group.hits, group.top_level, group.errors, group.duration] {
                out.extend_from_slice(&sum.to_le_bytes());
            }
            put_text(out, &group.ok.to_bytes());
            put_text(out, &group.failed.as_deref().map(Sketch::to_bytes).unwrap_or_default());
        }
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.defined);
        if self.defined.capacity() > 1 << 20 {
            self.defined = Vec::new();
        }
        self.sources.clear();
        self.next_source = 0;
    }

    pub(super) fn flushed(&mut self, eras: impl Iterator<Item = u64>) {
        if self.on {
            self.flushed.extend(eras);
        }
    }

    /// Sources have got other numbers, or are gone.
    pub(super) fn renumber(&mut self, place: impl Fn(u32) -> Option<u32>) {
        let old = std::mem::take(&mut self.sources);
        self.sources.extend(old.into_iter().filter_map(|(s, number)| Some((place(s)?, number))));
    }
}

/// What reading a log back has seen so far.
#[derive(Debug, Default)]
pub struct Replay {
    buckets: HashMap<u64, Known>,
    last_era: u64,
    /// Spans counted again.
    pub spans: u64,
}

/// A bucket of the log: its start, and where its groups lie now.
#[derive(Debug)]
struct Known {
    start: i64,
    groups: HashMap<u64, u32, FixedState>,
}

impl Concentrator {
    /// Begins to keep what [`Concentrator::record`] needs. `position`: number
    /// of the next record. `replay`: what was read back before. Follow with
    /// [`Concentrator::snapshot`] of everything.
    pub fn start_log(&mut self, position: u64, replay: &Replay) {
        self.log.on = true;
        self.log.position = position;
        self.log.last_era = self.log.last_era.max(replay.last_era);
        for bucket in &mut self.buckets {
            bucket.since = 0;
        }
    }

    /// Appends a record of a batch's changes, with all definitions that the log
    /// has not got yet. Records must be logged in the order of these calls;
    /// then call [`Concentrator::logged`].
    pub fn record(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        self.log.take(out);
        out.extend_from_slice(&delta.out);
    }

    /// Tells the number that the next record will have, or more.
    pub fn logged(&mut self, position: u64) {
        self.log.position = position;
    }

    /// Records before this one are not needed any more.
    pub fn oldest_record(&self) -> u64 {
        self.buckets.iter().map(|b| b.since).min().unwrap_or(self.log.position)
    }

    /// Which buckets were flushed since this was last asked, by era.
    pub fn take_flushed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.log.flushed)
    }

    /// Appends a record of everything that buckets have counted whose oldest
    /// record is before `since`; afterwards older ones are not needed for
    /// them. Nothing is appended if there are none.
    pub fn snapshot(&mut self, since: u64, out: &mut Vec<u8>) {
        let mut stale = self.buckets.iter_mut().filter(|b| b.since < since).peekable();
        if stale.peek().is_none() {
            return;
        }
        // What is defined already goes first: its eras may end here.
        for bucket in stale {
            put_varint(&mut self.log.defined, MORE);
            self.log.defined.push(OVER);
            put_varint(&mut self.log.defined, bucket.era);
            bucket.era = self.log.era();
            bucket.since = self.log.position;
            for at in 0..bucket.groups.len() {
                self.log.group(bucket, at, &self.sources, true);
            }
        }
        self.log.take(out);
    }

    /// Does what a record says. An error leaves what came before it done.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn replay(&mut self, record: &[u8], replay: &mut Replay) -> Result<(), Malformed> {
        let mut r = Reader(record);
        let mut sources: Vec<u32> = Vec::new();
        let mut weight = 1.0;
        let mut place = None;
        while !r.0.is_empty() {
            let head = r.varint()?;
            match (head >> 2, head & 3) {
                (0, IN) => place = self.place(replay, r.varint()?),
                (0, WEIGHT) => weight = r.double()?,
                (0, SOURCE) => sources.push(self.read_source(&mut r)?),
                (0, _) => {
                    match r.byte()? {
                        OVER => self.forget(r.varint()?, replay),
                        op => self.read_group(&mut r, &sources, op == GROUP_SO_FAR, replay)?,
                    }
                    place = None;
                }
                (n, flags) => {
                    let duration = r.varint()?;
                    let Some((era, bucket)) = place else { continue };
                    let group = replay.buckets.get(&era).and_then(|known| known.groups.get(&(n - 1)));
                    let Some(group) = group else { continue };
                    // A damaged log may name a group of a bucket that has been
                    // dropped since under the same start.
                    let Some(group) = self.buckets[bucket].groups.get_mut(*group as usize) else { continue };
                    group.count(One { top_level: flags & 1 != 0, error: flags & 2 != 0, duration, weight });
                    replay.spans += 1;
                }
            }
        }
        Ok(())
    }

    /// Drops what was read back of a bucket: it has been flushed.
    pub fn forget(&mut self, era: u64, replay: &mut Replay) {
        replay.last_era = replay.last_era.max(era);
        let Some(known) = replay.buckets.remove(&era) else { return };
        if let Some(at) = self.buckets.iter().position(|b| b.start == known.start) {
            self.groups -= self.buckets[at].groups.len();
            self.buckets.remove(at);
        }
    }

    /// Where the bucket of an era is, if it is still open.
    fn place(&self, replay: &Replay, era: u64) -> Option<(u64, usize)> {
        let start = replay.buckets.get(&era)?.start;
        Some((era, self.buckets.iter().rposition(|b| b.start == start)?))
    }

    fn read_source(&mut self, r: &mut Reader<'_>) -> Result<u32, Malformed> {
        let mut texts = [""; 8];
        for text in &mut texts {
            *text = r.str()?;
        }
        let (container_tags, process_tags) = (r.str()?, r.str()?);
        let key = SourceRef { texts, container_tags, process_tags };
        Ok(intern(&mut self.sources, &mut self.source_table, &self.scanner.hasher, &key))
    }

    fn read_group(
        &mut self,
        r: &mut Reader<'_>,
        sources: &[u32],
        so_far: bool,
        replay: &mut Replay,
    ) -> Result<(), Malformed> {
        let (era, start, number) = (r.varint()?, unzigzag(r.varint()?), r.varint()?);
        let source = usize::try_from(r.varint()?).ok().and_then(|i| sources.get(i)).ok_or(Malformed)?;
        let mut texts = [&[][..]; 6];
        for text in &mut texts {
            *text = r.text()?;
        }
        let status = u32::try_from(r.varint()?).map_err(|_| Malformed)?;
        let grpc = match r.varint()? {
            0 => None,
            n => Some(u32::try_from(n - 1).map_err(|_| Malformed)?),
        };
        let flags = r.byte()?;
        let (peers, extra) = (r.texts()?, r.texts()?);
        let own = Own {
            texts,
            status,
            grpc,
            dims_hash: self.tags_hash(texts[4], &peers, &extra),
            synthetics: flags & 1 != 0,
            root: flags & 2 != 0,
        };
        let key = KeyRef::new(*source, own, &self.scanner.hasher);
        let hash = key.hash(&self.scanner.hasher);
        let bucket = self.buckets.iter().rposition(|b| b.start == start).unwrap_or_else(|| self.open(start));
        self.buckets[bucket].era = era;
        let at = match bucket_find(&self.buckets[bucket], hash, &key) {
            Some(at) => at,
            None => self.insert(bucket, hash, &key, peers, extra),
        };
        if so_far {
            self.buckets[bucket].groups[at].read_sums(r)?;
        }
        replay.last_era = replay.last_era.max(era);
        let new = || Known { start, groups: HashMap::default() };
        replay.buckets.entry(era).or_insert_with(new).groups.insert(number, at as u32);
        Ok(())
    }

    /// The hash of dimensions that are texts already, as a tally makes it.
    fn tags_hash(&self, kind: &[u8], peers: &[String], extra: &[String]) -> u64 {
        if peers.is_empty() && extra.is_empty() {
            return 0;
        }
        let mut hash = self.scanner.hasher.build_hasher();
        let mut add = |(place, value): (u16, &str)| {
            place.hash(&mut hash);
            hash_value(value.as_bytes(), &mut hash);
        };
        // Counting hashes them in the order of their keys; they are kept in
        // that of their texts.
        let by_key = |tags: &mut dyn Iterator<Item = &'_ String>| {
            let mut dims: Vec<_> =
                tags.map(|tag| self.scanner.keys.split(tag)).map(|(p, v)| (p, v.to_owned())).collect();
            dims.sort_unstable_by_key(|d| d.0);
            dims
        };
        // Where not all peers count, the one that does is the base service,
        // which comes last.
        if peers_of_calls(kind) {
            by_key(&mut peers.iter().chain(extra)).iter().for_each(|(place, v)| add((*place, v)));
        } else {
            by_key(&mut extra.iter()).iter().for_each(|(place, v)| add((*place, v)));
            peers.iter().for_each(|tag| add((BASE_SERVICE, self.scanner.keys.split(tag).1)));
        }
        hash.finish()
    }
}

impl Group {
    fn read_sums(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        self.hits += r.double()?;
        self.top_level += r.double()?;
        self.errors += r.double()?;
        self.duration += r.double()?;
        let (ok, failed) = (r.text()?, r.text()?);
        self.ok.merge(&Sketch::decode(ok).map_err(|_| Malformed)?);
        if !failed.is_empty() {
            let failed = Sketch::decode(failed).map_err(|_| Malformed)?;
            self.failed.get_or_insert_default().merge(&failed);
        }
        Ok(())
    }
}
