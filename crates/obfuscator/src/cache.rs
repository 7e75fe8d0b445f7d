//! Results of recent statements. One per worker, so that it needs no lock.

use std::hash::BuildHasher;
use std::mem;

use foldhash::HashMap;
use foldhash::fast::RandomState;

/// Statements and their results, bounded in bytes. A statement is kept from
/// its second time on: most of those with values written into them never come
/// again. Two generations: when the young one holds half the bound it becomes
/// the old one, and the former old one goes. What is still in use is copied to
/// the young one as it is met.
#[derive(Debug)]
pub struct SqlCache {
    hasher: RandomState,
    /// By hash; of two statements with one hash, the later one is known.
    young: HashMap<u64, Entry>,
    old: HashMap<u64, Entry>,
    young_bytes: usize,
    max_bytes: usize,
    /// Parts of the hashes of statements that came once, the last ones of each
    /// set.
    seen: Vec<[u32; 8]>,
    hits: u64,
    misses: u64,
}

#[derive(Debug)]
struct Entry {
    statement: Box<str>,
    result: Box<str>,
}

/// The hash of a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fingerprint(u64);

/// Map slot, two pointers and lengths, two allocations' headers.
const ENTRY_OVERHEAD: usize = 96;

/// Sets of [`SqlCache::seen`]: with eight places each, about as many as
/// statements fit.
const SETS: usize = 512;

impl SqlCache {
    /// A cache that takes about `max_bytes` bytes at most.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            hasher: RandomState::default(),
            young: HashMap::default(),
            old: HashMap::default(),
            young_bytes: 0,
            max_bytes,
            seen: vec![[0; 8]; SETS],
            hits: 0,
            misses: 0,
        }
    }

    /// Look-ups answered and not answered so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    /// Bytes the young generation accounts for; the old one had at most as many.
    #[cfg(test)]
    fn young_bytes(&self) -> usize {
        self.young_bytes
    }

    pub(crate) fn fingerprint(&self, statement: &str) -> Fingerprint {
        Fingerprint(self.hasher.hash_one(statement))
    }

    /// Whether the statement's result is known; [`SqlCache::result`] has it then.
    pub(crate) fn knows(&mut self, statement: &str, of: Fingerprint) -> bool {
        let same = |entry: &Entry| *entry.statement == *statement;
        if !self.young.get(&of.0).is_some_and(same) {
            if !self.old.get(&of.0).is_some_and(same) {
                self.misses += 1;
                return false;
            }
            if let Some(entry) = self.old.remove(&of.0) {
                self.insert(of, entry);
            }
        }
        self.hits += 1;
        true
    }

    /// The result of a statement that is known.
    pub(crate) fn result(&self, of: Fingerprint) -> Option<&str> {
        self.young.get(&of.0).map(|entry| &*entry.result)
    }

    /// Keeps the result, if the statement came before.
    pub(crate) fn put(&mut self, statement: &str, of: Fingerprint, result: &str) {
        let (set, part) = (of.0 as usize % SETS, (of.0 >> 32) as u32);
        let set = &mut self.seen[set];
        if set.contains(&part) {
            self.insert(of, Entry { statement: statement.into(), result: result.into() });
        } else {
            set.copy_within(1.., 0);
            set[7] = part;
        }
    }

    fn insert(&mut self, of: Fingerprint, entry: Entry) {
        let cost = entry.statement.len() + entry.result.len() + ENTRY_OVERHEAD;
        if cost > self.max_bytes / 2 {
            return;
        }
        if self.young_bytes + cost > self.max_bytes / 2 {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += cost;
        self.young.insert(of.0, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'c>(cache: &'c mut SqlCache, statement: &str) -> Option<&'c str> {
        let of = cache.fingerprint(statement);
        if cache.knows(statement, of) { cache.result(of) } else { None }
    }

    fn put(cache: &mut SqlCache, statement: &str, result: &str) {
        let of = cache.fingerprint(statement);
        cache.put(statement, of, result);
    }

    /// So that it is kept.
    fn put_twice(cache: &mut SqlCache, statement: &str, result: &str) {
        put(cache, statement, result);
        put(cache, statement, result);
    }

    #[test]
    fn a_statement_is_found_from_its_third_time_on() {
        let mut cache = SqlCache::new(10_000);
        for found in [None, None, Some("b")] {
            assert_eq!(get(&mut cache, "a"), found);
            put(&mut cache, "a", "b");
        }
        assert_eq!(cache.counts(), (1, 2));
    }

    #[test]
    fn statements_that_come_once_are_not_kept() {
        let mut cache = SqlCache::new(1_000_000);
        for i in 0..1_000 {
            put(&mut cache, &format!("statement {i}"), "?");
        }
        assert_eq!(cache.young_bytes(), 0);
    }

    #[test]
    fn memory_stays_below_the_bound() {
        let mut cache = SqlCache::new(10_000);
        for i in 0..10_000 {
            put_twice(&mut cache, &format!("statement {i}"), "?");
            assert!(cache.young_bytes() <= 5_000);
            assert!((cache.young.len() + cache.old.len()) * ENTRY_OVERHEAD <= 10_000);
        }
        assert!(cache.young_bytes() > 0);
    }

    #[test]
    fn a_statement_in_use_outlives_the_generations() {
        let mut cache = SqlCache::new(10_000);
        put_twice(&mut cache, "hot", "?");
        for i in 0..1_000 {
            put_twice(&mut cache, &format!("cold {i}"), "?");
            assert_eq!(get(&mut cache, "hot"), Some("?"), "after {i}");
        }
        assert_eq!(get(&mut cache, "cold 0"), None);
    }

    #[test]
    fn a_statement_larger_than_the_cache_is_not_kept() {
        let mut cache = SqlCache::new(1_000);
        put_twice(&mut cache, &"x".repeat(2_000), "?");
        assert_eq!(get(&mut cache, &"x".repeat(2_000)), None);
    }

    #[test]
    fn another_statement_with_the_same_hash_is_not_mistaken_for_it() {
        let mut cache = SqlCache::new(10_000);
        let of = cache.fingerprint("a");
        cache.put("a", of, "b");
        cache.put("a", of, "b");
        assert!(cache.knows("a", of));
        assert!(!cache.knows("other", of));
    }
}
