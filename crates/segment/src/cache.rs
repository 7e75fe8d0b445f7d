//! Decoded pages, dictionaries and index sections, shared by all segments.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an entry is: segment, kind, and two numbers.
pub(crate) type Key = (u64, u8, u32, u32);

type Entry = (Arc<dyn Any + Send + Sync>, usize);

#[derive(Default)]
struct Generations {
    young: HashMap<Key, Entry, foldhash::fast::RandomState>,
    old: HashMap<Key, Entry, foldhash::fast::RandomState>,
    young_bytes: usize,
    old_bytes: usize,
}

/// A bounded cache of decoded parts of segments. When the younger half is
/// full the older half is dropped, so what is used often stays.
pub struct Cache {
    half: usize,
    generations: Mutex<Generations>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("bound", &(self.half * 2)).field("bytes", &self.bytes()).finish()
    }
}

impl Cache {
    /// A cache of at most about `bytes`; 0 keeps nothing.
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { half: bytes / 2, generations: Mutex::default() })
    }

    /// Bytes held now, roughly.
    pub fn bytes(&self) -> usize {
        let g = self.lock();
        g.young_bytes + g.old_bytes
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get<T: Any + Send + Sync>(&self, key: Key) -> Option<Arc<T>> {
        let mut g = self.lock();
        if let Some((value, _)) = g.young.get(&key) {
            return value.clone().downcast().ok();
        }
        let (value, size) = g.old.remove(&key)?;
        g.old_bytes -= size;
        self.insert(&mut g, key, value.clone(), size);
        value.downcast().ok()
    }

    pub(crate) fn put<T: Any + Send + Sync>(&self, key: Key, value: &Arc<T>, size: usize) {
        let size = size + 96;
        if size > self.half {
            return;
        }
        self.insert(&mut self.lock(), key, value.clone(), size);
    }

    fn insert(&self, g: &mut Generations, key: Key, value: Arc<dyn Any + Send + Sync>, size: usize) {
        if g.young_bytes + size > self.half {
            g.old = std::mem::take(&mut g.young);
            g.old_bytes = std::mem::take(&mut g.young_bytes);
        }
        g.young_bytes += size;
        if let Some((_, before)) = g.young.insert(key, (value, size)) {
            g.young_bytes -= before;
        }
    }

    /// Drops what belongs to a segment.
    pub(crate) fn forget(&self, segment: u64) {
        let mut g = self.lock();
        g.young.retain(|k, _| k.0 != segment);
        g.old.retain(|k, _| k.0 != segment);
        g.young_bytes = g.young.values().map(|v| v.1).sum();
        g.old_bytes = g.old.values().map(|v| v.1).sum();
    }
}
