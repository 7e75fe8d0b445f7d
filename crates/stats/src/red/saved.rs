//! Figures as records, one a minute, so that a new process knows them. A
//! record holds all of its minute: a later one takes the place of an earlier.
//!
//! ```text
//! format (1) | minute | series | per series: service, operation, resource, kind,
//!   requests, errors, top-level, duration, zeros (f32), bins | per bin: index, count (f32)
//! ```
//!
//! Numbers are varints, signed ones in zigzag.

use super::{Cell, Red};
use crate::record::{Malformed, Reader, put_text, unzigzag, zigzag};
use crate::sketch::put_varint;

const FORMAT: u8 = 1;

impl Red {
    /// Records of the minutes that have changed since the last call, with the
    /// minutes (since the Unix epoch), in order of time.
    pub fn save(&mut self) -> Vec<(i64, Vec<u8>)> {
        std::mem::take(&mut self.unsaved).into_iter().map(|minute| (minute, self.record(minute))).collect()
    }

    /// The oldest minute that is kept. Records of those before it are not
    /// needed any more.
    pub fn oldest(&self) -> Option<i64> {
        self.minutes.keys().next().copied()
    }

    /// Takes a record in; if it is of a minute no longer kept at `now`
    /// (nanoseconds since the Unix epoch), nothing happens.
    ///
    /// # Errors
    /// [`Malformed`]; what came before the damage is taken in.
    pub fn restore(&mut self, record: &[u8], now: i64) -> Result<(), Malformed> {
        let mut r = Reader(record);
        if r.byte()? != FORMAT {
            return Err(Malformed);
        }
        let minute = unzigzag(r.varint()?);
        let present = now.div_euclid(super::MINUTE);
        let oldest = present - i64::from(self.settings.minutes.max(1)) + 1;
        if !(oldest..=present).contains(&minute) {
            return Ok(());
        }
        for cell in self.minutes.remove(&minute).unwrap_or_default().into_values() {
            self.bytes = self.bytes.saturating_sub(cell.size());
        }
        for _ in 0..r.varint()? {
            let key = [r.str()?, r.str()?, r.str()?, r.str()?];
            let mut cell = Cell {
                requests: r.varint()?,
                errors: r.varint()?,
                top_level: r.varint()?,
                duration: r.varint()?,
                zero: r.float()?,
                bins: Vec::new(),
            };
            for _ in 0..r.varint()? {
                let index = i16::try_from(unzigzag(r.varint()?)).map_err(|_| Malformed)?;
                cell.add_bin(index, r.float()?);
            }
            self.add_cell(minute, key, &cell);
        }
        self.prune(oldest);
        Ok(())
    }

    fn record(&self, minute: i64) -> Vec<u8> {
        let cells = self.minutes.get(&minute);
        let mut out = vec![FORMAT];
        put_varint(&mut out, zigzag(minute));
        put_varint(&mut out, cells.map_or(0, |c| c.len() as u64));
        for (series, cell) in cells.into_iter().flatten() {
            self.series[*series as usize].key.iter().for_each(|text| put_text(&mut out, text.as_bytes()));
            for number in [cell.requests, cell.errors, cell.top_level, cell.duration] {
                put_varint(&mut out, number);
            }
            out.extend_from_slice(&cell.zero.to_le_bytes());
            put_varint(&mut out, cell.bins.len() as u64);
            for (index, count) in &cell.bins {
                put_varint(&mut out, zigzag(i64::from(*index)));
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
        out
    }
}
