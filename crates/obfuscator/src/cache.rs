//! Results of recent statements. One per worker, so that it needs no lock.

use std::mem;

use foldhash::HashMap;

/// Statements and their results, bounded in bytes. Two generations: when the
/// young one holds half the bound it becomes the old one, and the former old
/// one goes. What is still in use is copied to the young one as it is met.
#[derive(Debug)]
pub struct SqlCache {
    young: HashMap<Box<str>, Box<str>>,
    old: HashMap<Box<str>, Box<str>>,
    young_bytes: usize,
    max_bytes: usize,
    hits: u64,
    misses: u64,
}

/// Map slot, two pointers and lengths, two allocations' headers.
const ENTRY_OVERHEAD: usize = 96;

impl SqlCache {
    /// A cache that takes about `max_bytes` bytes at most.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            young_bytes: 0,
            max_bytes,
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

    pub(crate) fn get(&mut self, statement: &str) -> Option<&str> {
        if !self.young.contains_key(statement) {
            let Some((key, value)) = self.old.remove_entry(statement) else {
                self.misses += 1;
                return None;
            };
            self.insert(key, value);
        }
        self.hits += 1;
        self.young.get(statement).or_else(|| self.old.get(statement)).map(|value| &**value)
    }

    pub(crate) fn put(&mut self, statement: &str, result: &str) {
        self.insert(statement.into(), result.into());
    }

    fn insert(&mut self, key: Box<str>, value: Box<str>) {
        let cost = key.len() + value.len() + ENTRY_OVERHEAD;
        if cost > self.max_bytes / 2 {
            return;
        }
        if self.young_bytes + cost > self.max_bytes / 2 {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += cost;
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_found_again() {
        let mut cache = SqlCache::new(10_000);
        assert_eq!(cache.get("a"), None);
        cache.put("a", "b");
        assert_eq!(cache.get("a"), Some("b"));
        assert_eq!(cache.counts(), (1, 1));
    }

    #[test]
    fn memory_stays_below_the_bound() {
        let mut cache = SqlCache::new(10_000);
        for i in 0..10_000 {
            cache.put(&format!("statement {i}"), "?");
            assert!(cache.young_bytes() <= 5_000);
            assert!((cache.young.len() + cache.old.len()) * ENTRY_OVERHEAD <= 10_000);
        }
    }

    #[test]
    fn a_statement_in_use_outlives_the_generations() {
        let mut cache = SqlCache::new(10_000);
        cache.put("hot", "?");
        for i in 0..1_000 {
            cache.put(&format!("cold {i}"), "?");
            assert_eq!(cache.get("hot"), Some("?"), "after {i}");
        }
        assert_eq!(cache.get("cold 0"), None);
    }

    #[test]
    fn a_statement_larger_than_the_cache_is_not_kept() {
        let mut cache = SqlCache::new(1_000);
        cache.put(&"x".repeat(2_000), "?");
        assert_eq!(cache.get(&"x".repeat(2_000)), None);
    }
}
