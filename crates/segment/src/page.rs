//! Decoded pages and dictionaries.

use crate::column::enc;
use crate::encoding::{Reader, read_delta, read_hybrid, read_ids, read_split};
use crate::error::{Decoded, Malformed};
use crate::schema::{Column, Shape};
use crate::segment::PagePlace;
use std::cell::RefCell;
use std::sync::Arc;

/// Stands for a missing value among codes and value numbers.
const NULL: u32 = u32::MAX;
/// The same among codes; dictionaries stay smaller.
pub(crate) const NO_CODE: u16 = u16::MAX;

thread_local! {
    static UNZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses with a context that each thread keeps.
pub(crate) fn decompress(data: &[u8], raw: usize) -> std::io::Result<Vec<u8>> {
    UNZSTD.with_borrow_mut(|z| {
        let z = match z {
            Some(z) => z,
            None => z.insert(zstd::bulk::Decompressor::new()?),
        };
        z.decompress(data, raw)
    })
}

/// Values of a dictionary.
#[derive(Debug, Default)]
pub(crate) struct Dict {
    data: Vec<u8>,
    /// Bounds of each value; empty if all have 8 bytes.
    bounds: Vec<(u32, u32)>,
    words: usize,
}

impl Dict {
    pub fn read(raw: Vec<u8>, n: usize, shape: Shape) -> Decoded<Self> {
        if shape != Shape::Texts {
            return if n.checked_mul(8) == Some(raw.len()) {
                Ok(Self { data: raw, bounds: Vec::new(), words: n })
            } else {
                Err(Malformed("a dictionary does not add up"))
            };
        }
        let mut r = Reader::new(&raw);
        if n > raw.len() / 4 {
            return Err(Malformed("a dictionary does not add up"));
        }
        let mut bounds = Vec::with_capacity(n);
        for _ in 0..n {
            let len = r.u32()?;
            let start = (raw.len() - r.left()) as u32;
            r.take(len as usize)?;
            bounds.push((start, start + len));
        }
        Ok(Self { data: raw, bounds, words: 0 })
    }

    pub fn len(&self) -> usize {
        self.bounds.len() + self.words
    }

    pub fn bytes(&self, code: u32) -> &[u8] {
        let i = code as usize;
        if self.words > 0 {
            return self.data.get(i * 8..i * 8 + 8).unwrap_or_default();
        }
        let (a, b) = self.bounds.get(i).copied().unwrap_or_default();
        self.data.get(a as usize..b as usize).unwrap_or_default()
    }

    pub fn size(&self) -> usize {
        self.data.len() + self.bounds.len() * 8
    }
}

#[derive(Debug)]
enum Values {
    Codes(Vec<u16>, Arc<Dict>),
    Texts {
        data: Vec<u8>,
        ends: Vec<u32>,
    },
    Words(Vec<i64>),
    /// Distinct ids, and one past the last row of each.
    Ids(Vec<u128>, Vec<u32>),
}

/// A decoded page.
#[derive(Debug)]
pub(crate) struct Page {
    /// First row, within the row group.
    pub first_row: usize,
    pub rows: usize,
    values: Values,
    /// Number of the value of each row, [`NULL`] for none; absent if every
    /// row has a value. Codes hold their nulls themselves.
    numbers: Option<Vec<u32>>,
}

impl Page {
    pub fn read(raw: Vec<u8>, place: &PagePlace, column: &Column, dict: Option<Arc<Dict>>) -> Decoded<Self> {
        let mut r = Reader::new(&raw);
        let mut numbers = None;
        let mut n = place.rows;
        if column.optional {
            let len = r.u32()?;
            let mut levels = Reader::new(r.take(len as usize)?);
            let mut defs = Vec::new();
            read_hybrid(&mut levels, 1, place.rows, &mut defs)?;
            n = 0;
            for d in &mut defs {
                if *d == 1 {
                    *d = n as u32;
                    n += 1;
                } else {
                    *d = NULL;
                }
            }
            if n != place.rows {
                numbers = Some(defs);
            }
        }
        let values = match (place.enc, dict, column.shape) {
            (enc::DICT, Some(dict), _) => {
                let width = r.u8()?;
                let mut codes = Vec::new();
                read_hybrid(&mut r, width, n, &mut codes)?;
                if codes.iter().any(|c| *c as usize >= dict.len().min(usize::from(NO_CODE))) {
                    return Err(Malformed("a code is not in its dictionary"));
                }
                let codes = match numbers.take() {
                    None => codes.into_iter().map(|c| c as u16).collect(),
                    Some(numbers) => numbers
                        .iter()
                        .map(|i| codes.get(*i as usize).map_or(NO_CODE, |c| *c as u16))
                        .collect(),
                };
                Values::Codes(codes, dict)
            }
            (enc::TEXTS, _, Shape::Texts) => {
                let mut ends = read_delta(&mut r, n)?;
                let mut end = 0u32;
                for e in &mut ends {
                    end = end.checked_add(*e).ok_or(Malformed("texts are too long"))?;
                    *e = end;
                }
                let data = r.take(end as usize)?.to_vec();
                Values::Texts { data, ends }
            }
            (enc::WORDS, _, Shape::Words | Shape::Noise) => Values::Words(read_split(&mut r, n)?),
            (enc::IDS, _, Shape::Ids) => {
                let (ids, ends) = read_ids(&mut r, n)?;
                if !ids.is_sorted() {
                    return Err(Malformed("trace ids are not sorted"));
                }
                Values::Ids(ids, ends)
            }
            _ => return Err(Malformed("a page has an unknown encoding")),
        };
        Ok(Self { first_row: place.first_row, rows: place.rows, values, numbers })
    }

    pub fn size(&self) -> usize {
        let values = match &self.values {
            Values::Codes(c, _) => c.len() * 2,
            Values::Texts { data, ends } => data.len() + ends.len() * 4,
            Values::Words(w) => w.len() * 8,
            Values::Ids(i, _) => i.len() * 20,
        };
        values + self.numbers.as_ref().map_or(0, |n| n.len() * 4)
    }

    /// Whether the row (of the row group) lies in this page.
    #[inline]
    pub fn has(&self, row: usize) -> bool {
        row.wrapping_sub(self.first_row) < self.rows
    }

    #[inline]
    fn number(&self, row: usize) -> Option<usize> {
        let i = row.wrapping_sub(self.first_row);
        match &self.numbers {
            None => Some(i),
            Some(n) => n.get(i).filter(|n| **n != NULL).map(|n| *n as usize),
        }
    }

    /// Code of each row and the dictionary, if the page has them.
    pub fn codes(&self) -> Option<(&[u16], &Arc<Dict>)> {
        match &self.values {
            Values::Codes(c, d) => Some((c, d)),
            _ => None,
        }
    }

    /// Text of a row (8 bytes in a page of words with a dictionary).
    #[inline]
    pub fn bytes(&self, row: usize) -> Option<&[u8]> {
        match &self.values {
            Values::Codes(codes, dict) => {
                let code = *codes.get(row.wrapping_sub(self.first_row))?;
                (code != NO_CODE).then(|| dict.bytes(u32::from(code)))
            }
            Values::Texts { data, ends } => {
                let i = self.number(row)?;
                let end = *ends.get(i)? as usize;
                let start = if i == 0 { 0 } else { ends[i - 1] as usize };
                data.get(start..end)
            }
            // Words of plain pages are asked for by `word`.
            Values::Words(_) | Values::Ids(..) => None,
        }
    }

    /// Word of a row.
    #[inline]
    pub fn word(&self, row: usize) -> Option<i64> {
        match &self.values {
            Values::Words(w) => w.get(self.number(row)?).copied(),
            Values::Codes(..) => {
                let bytes = self.bytes(row)?;
                Some(i64::from_le_bytes(bytes.try_into().ok()?))
            }
            _ => None,
        }
    }

    /// Distinct trace ids in order, and one past the last row (within the
    /// page) of each; empty in other columns.
    pub fn ids(&self) -> (&[u128], &[u32]) {
        match &self.values {
            Values::Ids(ids, ends) => (ids, ends),
            _ => (&[], &[]),
        }
    }

    /// Position among the distinct ids of the one that a row has.
    pub fn id_at(&self, row: usize) -> Option<(usize, u128)> {
        let (ids, ends) = self.ids();
        let row = row.checked_sub(self.first_row)?;
        let i = ends.partition_point(|e| *e as usize <= row);
        Some((i, *ids.get(i)?))
    }
}
