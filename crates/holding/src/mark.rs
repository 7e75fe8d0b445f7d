//! What the log remembers besides pieces: verdicts, with the places of the
//! pieces that are done, and requests to keep a trace.

use crate::verdicts::Ruling;
use bytes::Bytes;
use spanloom_journal::{Reader, ShortRead, Writer};
use std::sync::Arc;

/// Kinds of frames.
pub(crate) mod kind {
    /// Pieces that wait.
    pub const PIECES: u8 = 1;
    /// Verdicts.
    pub const VERDICTS: u8 = 2;
    /// A trace that a person wants kept.
    pub const KEEP: u8 = 3;
}

const VERSION: u8 = 1;
/// Least bytes of a verdict.
const LEAST: usize = 13;

/// A verdict that was carried out for the pieces at these places.
pub(crate) struct Carried<'a> {
    /// Lower half of the trace id.
    pub trace: u64,
    /// The verdict.
    pub ruling: Ruling,
    /// Sequence numbers of the frames whose pieces are done.
    pub done: &'a [u64],
}

/// A frame of verdicts.
pub(crate) fn write_verdicts(carried: &[Carried<'_>]) -> Bytes {
    let mut rules: Vec<&Arc<str>> = Vec::new();
    let mut body = Writer::default();
    body.u64(carried.len() as u64);
    for c in carried {
        let rule = rules.iter().position(|r| **r == c.ruling.rule).unwrap_or_else(|| {
            rules.push(&c.ruling.rule);
            rules.len() - 1
        });
        body.fixed64(c.trace);
        body.u8(u8::from(c.ruling.keep));
        body.u64(rule as u64);
        body.u64(u64::from((c.ruling.rate as f32).to_bits()));
        body.u64(u64::from(c.ruling.spans));
        body.u64(c.done.len() as u64);
        c.done.iter().for_each(|seq| body.u64(*seq));
    }
    let mut w = Writer::default();
    w.u8(VERSION);
    w.u64(rules.len() as u64);
    rules.iter().for_each(|r| w.bytes(r.as_bytes()));
    w.out.extend_from_slice(&body.out);
    w.out.into()
}

/// Reads such a frame.
pub(crate) fn read_verdicts(
    frame: &[u8],
    each: &mut dyn FnMut(u64, Ruling, &[u64]),
) -> Result<(), ShortRead> {
    let mut r = Reader::new(frame);
    if r.u8()? != VERSION {
        return Err(ShortRead);
    }
    let mut rules: Vec<Arc<str>> = Vec::new();
    for _ in 0..r.count(1)? {
        rules.push(std::str::from_utf8(r.bytes()?).map_err(|_| ShortRead)?.into());
    }
    let mut done = Vec::new();
    for _ in 0..r.count(LEAST)? {
        let trace = r.fixed64()?;
        let keep = r.u8()? != 0;
        let rule = usize::try_from(r.u64()?).ok().and_then(|n| rules.get(n)).ok_or(ShortRead)?;
        let rate = f64::from(f32::from_bits(r.u32()?));
        let spans = r.u32()?;
        done.clear();
        for _ in 0..r.count(1)? {
            done.push(r.u64()?);
        }
        each(trace, Ruling { keep, rule: Arc::clone(rule), rate, spans }, &done);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_come_back_and_damage_is_no_panic() {
        let ruling = |keep, rule: &str| Ruling { keep, rule: rule.into(), rate: 0.5, spans: 7 };
        let given = [
            (9, ruling(true, "errors"), vec![1, 300]),
            (8, ruling(false, "rest"), vec![2]),
            (7, ruling(false, "rest"), vec![]),
        ];
        let carried: Vec<Carried<'_>> =
            given.iter().map(|(t, r, d)| Carried { trace: *t, ruling: r.clone(), done: d }).collect();
        let frame = write_verdicts(&carried);
        let mut found = Vec::new();
        read_verdicts(&frame, &mut |t, r, d| found.push((t, r, d.to_vec()))).unwrap();
        assert_eq!(found, given);
        for cut in 0..frame.len() {
            assert!(read_verdicts(&frame[..cut], &mut |_, _, _| ()).is_err(), "cut at {cut}");
        }
    }
}
