//! Counters of a small, unforeseen set of names, without locks. Names are
//! added once and never removed; when the table is full, what comes after is
//! counted under its last slot, so memory is bounded and sums stay right.

use std::hash::BuildHasher;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Cells of a key in [`Table`], one row for each protocol.
pub(crate) const ROWS: usize = spanloom_model::Protocol::ALL.len();

/// Counters by (a small key) and by protocol; `N` numbers in each cell.
pub(crate) struct Table<K, const N: usize> {
    slots: Box<[Slot<K, N>]>,
}

struct Slot<K, const N: usize> {
    key: OnceLock<K>,
    cells: [[AtomicU64; N]; ROWS],
}

impl<K: Copy + PartialEq, const N: usize> Table<K, N> {
    /// A table of `capacity` keys. `other` is the key under which everything
    /// beyond is counted.
    pub(crate) fn new(capacity: usize, other: K) -> Self {
        let slots: Box<[Slot<K, N>]> = (0..capacity.max(1))
            .map(|_| Slot {
                key: OnceLock::new(),
                cells: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            })
            .collect();
        if let Some(last) = slots.last() {
            // A fresh slot: cannot be taken.
            let _ = last.key.set(other);
        }
        Self { slots }
    }

    /// Adds to the cell of a key.
    pub(crate) fn add(&self, key: K, row: usize, numbers: [u64; N]) {
        let slot = self.slots.iter().find(|s| *s.key.get_or_init(|| key) == key).or(self.slots.last());
        let Some(cells) = slot.and_then(|s| s.cells.get(row)) else { return };
        for (cell, n) in cells.iter().zip(numbers) {
            if n > 0 {
                cell.fetch_add(n, Relaxed);
            }
        }
    }

    /// All cells that are not zero: key, row, numbers.
    pub(crate) fn read(&self) -> Vec<(K, usize, [u64; N])> {
        let mut out = Vec::new();
        for slot in &self.slots {
            let Some(key) = slot.key.get() else { continue };
            for (row, cells) in slot.cells.iter().enumerate() {
                let numbers: [u64; N] = std::array::from_fn(|i| cells[i].load(Relaxed));
                if numbers.iter().any(|n| *n > 0) {
                    out.push((*key, row, numbers));
                }
            }
        }
        out
    }
}

/// Counters by a name that clients choose (a service). At most `capacity`
/// names of at most [`NAME_BYTES`] bytes are kept apart.
pub(crate) struct Names<const N: usize> {
    slots: Box<[OnceLock<Box<Named<N>>>]>,
    hash: foldhash::fast::RandomState,
    other: Named<N>,
}

struct Named<const N: usize> {
    name: Box<str>,
    numbers: [AtomicU64; N],
}

/// Longest name kept, in bytes; what is longer is cut.
pub(crate) const NAME_BYTES: usize = 100;
/// Slots looked at for a name before it is counted under "other".
const PROBES: usize = 16;

impl<const N: usize> Named<N> {
    fn new(name: &str) -> Self {
        Self { name: name.into(), numbers: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl<const N: usize> Names<N> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            slots: (0..capacity.max(1).next_power_of_two()).map(|_| OnceLock::new()).collect(),
            hash: foldhash::fast::RandomState::default(),
            other: Named::new("(other)"),
        }
    }

    pub(crate) fn add(&self, name: &str, index: usize, n: u64) {
        let name = name.get(..name.floor_char_boundary(NAME_BYTES)).unwrap_or_default();
        let mask = self.slots.len() - 1;
        let start = self.hash.hash_one(name) as usize;
        let named = (0..PROBES)
            .filter_map(|i| self.slots.get(start.wrapping_add(i) & mask))
            .map(|slot| &**slot.get_or_init(|| Box::new(Named::new(name))))
            .find(|named| &*named.name == name)
            .unwrap_or(&self.other);
        if let Some(cell) = named.numbers.get(index) {
            cell.fetch_add(n, Relaxed);
        }
    }

    /// All names with their numbers, sorted by name, "other" last.
    pub(crate) fn read(&self) -> Vec<(String, [u64; N])> {
        let numbers = |n: &Named<N>| std::array::from_fn(|i| n.numbers[i].load(Relaxed));
        let mut out: Vec<(String, [u64; N])> =
            self.slots.iter().filter_map(OnceLock::get).map(|n| (n.name.to_string(), numbers(n))).collect();
        out.sort();
        let other: [u64; N] = numbers(&self.other);
        if other.iter().any(|n| *n > 0) {
            out.push((self.other.name.to_string(), other));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_counts_the_rest_under_its_last_key() {
        let table: Table<&str, 1> = Table::new(3, "other");
        for key in ["a", "b", "c", "d", "a"] {
            table.add(key, 0, [1]);
        }
        assert_eq!(table.read(), [("a", 0, [2]), ("b", 0, [1]), ("other", 0, [2])]);
    }

    #[test]
    fn names_are_bounded_and_no_count_is_lost() {
        let names: Names<2> = Names::new(64);
        for i in 0..10_000 {
            names.add(&format!("service-{i}"), i % 2, 1);
        }
        names.add(&"é".repeat(80), 0, 1);
        let all = names.read();
        assert!(all.len() <= 65);
        assert!(all.iter().all(|(name, _)| name.len() <= NAME_BYTES));
        assert_eq!(all.iter().map(|(_, n)| n[0] + n[1]).sum::<u64>(), 10_001);
        assert_eq!(all.last().unwrap().0, "(other)");
    }
}
