//! Latency sketch: DDSketch with relative accuracy 1 %, as the Datadog Agent
//! writes it, readable from any logarithmic mapping.
//!
//! Own code rather than `libdd-ddsketch`: that crate is fixed to the tracers'
//! mapping (gamma 1.015625) and cannot decode or merge.

/// Why bytes are not a sketch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SketchError {
    /// The protobuf message ends early or is malformed.
    #[error("malformed protobuf")]
    Malformed,
    /// A mapping that is missing or cannot be converted (an interpolation that
    /// no tracer uses, or gamma outside 1–2).
    #[error("unsupported index mapping")]
    Mapping,
    /// A bin count or zero count is negative, infinite or not a number.
    #[error("impossible count")]
    Count,
}

/// Base of the bins: bin `i` holds values in `[GAMMA^i, GAMMA^(i+1))`.
pub const GAMMA: f64 = (1.0 + 0.01) / (1.0 - 0.01);
/// Most bins that a store keeps; beyond it the lowest are folded together.
pub const MAX_BINS: usize = 2048;
/// 1 / ln(GAMMA); `ln` is not const, a test checks the figure.
const MULTIPLIER: f64 = 49.998_333_288_887_7;
/// Smallest value with a bin of its own; smaller ones count as zero.
const MIN_VALUE: f64 = f64::MIN_POSITIVE * GAMMA;
/// Bins are allocated in groups of this many.
const STEP: i32 = 16;
/// Indexes beyond ±this do not exist for 64-bit floats in any accepted mapping
/// with gamma ≥ 1.0001, so they are hostile.
const MAX_INDEX: i32 = 1 << 23;

/// Bin of a positive value.
#[inline]
pub fn index(value: f64) -> i32 {
    let x = value.ln() * MULTIPLIER;
    // Truncation toward zero, as in sketches-go: exact negative integers get
    // one less than the floor.
    if x >= 0.0 { x as i32 } else { x as i32 - 1 }
}

fn lower_bound(index: i32) -> f64 {
    (f64::from(index) / MULTIPLIER).exp()
}

/// A duration in nanoseconds as it enters a sketch: 9 explicit bits of
/// mantissa are kept (`datadog-agent:pkg/trace/stats/statsraw.go`).
#[inline]
pub fn truncate_duration(ns: u64) -> f64 {
    f64::from_bits((ns as f64).to_bits() & 0xffff_f800_0000_0000)
}

/// Counts per bin, dense, collapsing the lowest bins.
#[derive(Clone, Default, Debug)]
struct Store {
    /// Index of `bins[0]`.
    offset: i32,
    bins: Vec<f64>,
    /// Highest index that was counted; meaningful only if `bins` has any.
    top: i32,
}

impl Store {
    #[inline]
    fn add(&mut self, index: i32, count: f64) {
        let at = index.wrapping_sub(self.offset) as usize;
        if index <= self.top
            && let Some(bin) = self.bins.get_mut(at)
        {
            *bin += count;
            return;
        }
        self.add_outside(index, count);
    }

    #[cold]
    fn add_outside(&mut self, index: i32, count: f64) {
        if self.bins.is_empty() {
            self.offset = index.div_euclid(STEP) * STEP;
            self.bins = vec![0.0; STEP as usize];
            self.top = index;
        } else {
            if index > self.top {
                self.top = index;
                self.collapse();
            }
            let index = index.max(self.lowest());
            if index < self.offset {
                let new = (index.div_euclid(STEP) * STEP).max(self.lowest());
                self.bins.splice(0..0, std::iter::repeat_n(0.0, (self.offset - new) as usize));
                self.offset = new;
            }
            let needed = (self.top - self.offset + 1) as usize;
            if needed > self.bins.len() {
                self.bins.resize(needed.next_multiple_of(STEP as usize).min(MAX_BINS.max(needed)), 0.0);
            }
        }
        let index = index.max(self.lowest());
        if let Some(bin) = self.bins.get_mut((index - self.offset) as usize) {
            *bin += count;
        }
    }

    fn lowest(&self) -> i32 {
        self.top - (MAX_BINS as i32 - 1)
    }

    /// Folds bins below the lowest allowed one into it.
    fn collapse(&mut self) {
        let lowest = self.lowest();
        if self.offset >= lowest {
            return;
        }
        let gone = ((lowest - self.offset) as usize).min(self.bins.len());
        let folded: f64 = self.bins.drain(..gone).sum();
        self.offset = lowest;
        match self.bins.first_mut() {
            Some(bin) => *bin += folded,
            None => self.bins.push(folded),
        }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, f64)> + '_ {
        self.bins.iter().enumerate().filter(|(_, c)| **c > 0.0).map(|(i, c)| (self.offset + i as i32, *c))
    }

    fn count(&self) -> f64 {
        self.bins.iter().sum()
    }
}

/// A sketch of values, in practice of latencies in nanoseconds.
#[derive(Clone, Default, Debug)]
pub struct Sketch {
    positive: Store,
    /// Boxed because durations are never negative; only foreign sketches have it.
    negative: Option<Box<Store>>,
    zero: f64,
}

impl PartialEq for Sketch {
    fn eq(&self, other: &Self) -> bool {
        self.zero == other.zero
            && self.bins().eq(other.bins())
            && self.negative_bins().eq(other.negative_bins())
    }
}

impl Sketch {
    /// Counts one value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.add_count(value, 1.0);
    }

    /// Counts a value several times. Values that are not numbers are ignored.
    pub fn add_count(&mut self, value: f64, count: f64) {
        if value >= MIN_VALUE {
            self.positive.add(index(value.min(f64::MAX)), count);
        } else if value <= -MIN_VALUE {
            self.negative.get_or_insert_default().add(index((-value).min(f64::MAX)), count);
        } else if !value.is_nan() {
            self.zero += count;
        }
    }

    /// Adds `count` to a bin of positive values.
    pub fn add_bin(&mut self, index: i32, count: f64) {
        if count > 0.0 {
            self.positive.add(index.clamp(-MAX_INDEX, MAX_INDEX), count);
        }
    }

    /// Takes the counts of another sketch in.
    pub fn merge(&mut self, other: &Self) {
        for (i, c) in other.positive.iter() {
            self.positive.add(i, c);
        }
        if let Some(negative) = &other.negative {
            let own = self.negative.get_or_insert_default();
            for (i, c) in negative.iter() {
                own.add(i, c);
            }
        }
        self.zero += other.zero;
    }

    /// Non-empty bins of positive values, ascending.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = (i32, f64)> + '_ {
        self.positive.iter()
    }

    /// Non-empty bins of negative values, by ascending magnitude.
    pub fn negative_bins(&self) -> impl DoubleEndedIterator<Item = (i32, f64)> + '_ {
        self.negative.iter().flat_map(|s| s.iter())
    }

    /// How many values were zero or too small for a bin.
    pub fn zero_count(&self) -> f64 {
        self.zero
    }

    /// How many values were counted.
    pub fn count(&self) -> f64 {
        self.zero + self.positive.count() + self.negative.as_ref().map_or(0.0, |s| s.count())
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        let bins = |s: &Store| s.bins.capacity() * size_of::<f64>();
        bins(&self.positive) + self.negative.as_ref().map_or(0, |s| size_of::<Store>() + bins(s))
    }

    /// Value below which the part `q` (0 to 1) of the values lies, exact to
    /// 1 %; nothing for an empty sketch.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count <= 0.0 || q.is_nan() {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * (count - 1.0).max(0.0);
        // Middle of a bin in the sense of equal relative error both ways.
        let value = |i: i32| lower_bound(i) * (2.0 * GAMMA / (1.0 + GAMMA));
        let mut seen = 0.0;
        let mut last = 0.0;
        for (i, c) in self.negative_bins().rev() {
            (seen, last) = (seen + c, -value(i));
            if seen > rank {
                return Some(last);
            }
        }
        if self.zero > 0.0 {
            (seen, last) = (seen + self.zero, 0.0);
            if seen > rank {
                return Some(last);
            }
        }
        for (i, c) in self.bins() {
            (seen, last) = (seen + c, value(i));
            if seen > rank {
                return Some(last);
            }
        }
        Some(last)
    }

    /// Appends the protobuf message `DDSketch` (spec in sketches-go). An empty
    /// sketch is a message too.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // mapping { gamma = 1: double }
        out.extend_from_slice(&[0x0a, 9, 0x09]);
        out.extend_from_slice(&GAMMA.to_le_bytes());
        encode_store(0x12, Some(&self.positive), out);
        encode_store(0x1a, self.negative.as_deref(), out);
        if self.zero != 0.0 {
            out.push(0x21);
            out.extend_from_slice(&self.zero.to_le_bytes());
        }
    }

    /// The protobuf message, see [`Sketch::encode`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.positive.bins.len() * 8);
        self.encode(&mut out);
        out
    }

    /// Reads a protobuf `DDSketch`. Other gammas are converted: a bin is
    /// spread over the bins it overlaps, so counts may become fractional while
    /// their sum stays (sketches-go `ChangeMapping`). Empty bytes are an empty
    /// sketch. Work and memory are bounded by the length of the input and by
    /// [`MAX_BINS`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut mapping = None;
        let (mut positive, mut negative) = (Store::default(), Store::default());
        let mut zero = 0.0;
        let mut r = Reader(bytes);
        while let Some(field) = r.field()? {
            match field {
                (1, Field::Bytes(m)) => mapping = Some(Mapping::decode(m)?),
                (2, Field::Bytes(m)) => decode_store(m, &mut positive)?,
                (3, Field::Bytes(m)) => decode_store(m, &mut negative)?,
                (4, Field::Fixed64(v)) => zero = checked_count(f64::from_bits(v))?,
                _ => {}
            }
        }
        let mut out = Self { zero, ..Self::default() };
        if bytes.is_empty() {
            return Ok(out);
        }
        let mapping = mapping.ok_or(SketchError::Mapping)?;
        if mapping.is_ours() {
            out.positive = positive;
            out.negative = (!negative.bins.is_empty()).then(|| Box::new(negative));
            return Ok(out);
        }
        mapping.convert(&positive, &mut out.positive);
        if !negative.bins.is_empty() {
            mapping.convert(&negative, out.negative.get_or_insert_default());
        }
        Ok(out)
    }
}

#[derive(Clone, Copy)]
struct Mapping {
    gamma: f64,
    offset: f64,
    steps: Steps,
}

/// How the logarithm grows between two powers of two: exactly, or as one of
/// the cheaper formulas of sketches-go and sketches-java approximates it.
#[derive(Clone, Copy, PartialEq)]
enum Steps {
    Logarithmic,
    Linear,
    Cubic,
}

impl Steps {
    /// The value whose approximate binary logarithm is `log`.
    fn value(self, log: f64) -> f64 {
        let whole = log.floor();
        let part = log - whole;
        let significand = match self {
            Self::Logarithmic => part.exp2(),
            Self::Linear => 1.0 + part,
            Self::Cubic => {
                // The root of a·s³ + b·s² + c·s = part between 0 and 1.
                const A: f64 = 6.0 / 35.0;
                const B: f64 = -3.0 / 5.0;
                const C: f64 = 10.0 / 7.0;
                let d0 = B * B - 3.0 * A * C;
                let d1 = 2.0 * B * B * B - 9.0 * A * B * C - 27.0 * A * A * part;
                let p = ((d1 - (d1 * d1 - 4.0 * d0 * d0 * d0).sqrt()) / 2.0).cbrt();
                1.0 - (B + p + d0 / p) / (3.0 * A)
            }
        };
        significand * whole.exp2()
    }
}

impl Mapping {
    fn decode(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut m = Self { gamma: 0.0, offset: 0.0, steps: Steps::Logarithmic };
        let mut r = Reader(bytes);
        while let Some(field) = r.field()? {
            match field {
                (1, Field::Fixed64(v)) => m.gamma = f64::from_bits(v),
                (2, Field::Fixed64(v)) => m.offset = f64::from_bits(v),
                (3, Field::Varint(v)) => {
                    m.steps = match v {
                        0 => Steps::Logarithmic,
                        1 => Steps::Linear,
                        3 => Steps::Cubic,
                        _ => return Err(SketchError::Mapping),
                    }
                }
                _ => {}
            }
        }
        // A finer gamma than 1.0001 or a coarser one than 2 no tracer uses;
        // the bounds limit how many bins one bin can turn into.
        if (1.0001..=2.0).contains(&m.gamma) && m.offset.is_finite() {
            Ok(m)
        } else {
            Err(SketchError::Mapping)
        }
    }

    fn is_ours(self) -> bool {
        self.steps == Steps::Logarithmic && self.offset == 0.0 && (self.gamma - GAMMA).abs() <= 1e-12
    }

    /// Where a bin begins.
    fn bound(self, i: i32) -> f64 {
        let at = f64::from(i) - self.offset;
        match self.steps {
            // In the order in which the reference rounds.
            Steps::Logarithmic => (at / (1.0 / self.gamma.ln())).exp(),
            steps => steps.value(at / (1.0 / self.gamma.log2())),
        }
    }

    fn convert(self, from: &Store, to: &mut Store) {
        // Highest first: then the collapsing store grows downwards only.
        for (i, count) in from.iter().rev() {
            let (low, high) = (self.bound(i), self.bound(i + 1));
            if !high.is_finite() || low < MIN_VALUE {
                // Beyond what a float holds: at the edge, but not lost.
                to.add(index(if low < MIN_VALUE { MIN_VALUE } else { f64::MAX }), count);
                continue;
            }
            let mut out = index(low);
            loop {
                let (l, h) = (lower_bound(out), lower_bound(out + 1));
                if l >= high {
                    break;
                }
                let part = (h.min(high) - l.max(low)) / (high - low);
                if part > 0.0 {
                    to.add(out, part * count);
                }
                out += 1;
            }
        }
    }
}

fn checked_count(c: f64) -> Result<f64, SketchError> {
    // 2^60 spans are beyond any tracer; larger counts would overflow sums.
    if (0.0..=1.15e18).contains(&c) { Ok(c) } else { Err(SketchError::Count) }
}

fn encode_store(tag: u8, store: Option<&Store>, out: &mut Vec<u8>) {
    let used = store.and_then(|s| {
        let first = s.bins.iter().position(|c| *c > 0.0)?;
        let last = s.bins.iter().rposition(|c| *c > 0.0)?;
        Some((s.offset + first as i32, s.bins.get(first..=last)?))
    });
    out.push(tag);
    let Some((offset, bins)) = used else { return out.push(0) };
    let zigzag = (i64::from(offset) << 1) ^ (i64::from(offset) >> 63);
    let packed = bins.len() * 8;
    let index = if offset == 0 { 0 } else { 1 + varint_len(zigzag as u64) };
    put_varint(out, (1 + varint_len(packed as u64) + packed + index) as u64);
    out.push(0x12);
    put_varint(out, packed as u64);
    for count in bins {
        out.extend_from_slice(&count.to_le_bytes());
    }
    if offset != 0 {
        out.push(0x18);
        put_varint(out, zigzag as u64);
    }
}

fn decode_store(bytes: &[u8], store: &mut Store) -> Result<(), SketchError> {
    let mut runs: Vec<&[u8]> = Vec::new();
    let mut first = 0i64;
    let mut r = Reader(bytes);
    while let Some(field) = r.field()? {
        match field {
            (1, Field::Bytes(entry)) => {
                let (mut index, mut count) = (0, 0.0);
                let mut r = Reader(entry);
                while let Some(field) = r.field()? {
                    match field {
                        (1, Field::Varint(v)) => index = unzigzag(v),
                        (2, Field::Fixed64(v)) => count = checked_count(f64::from_bits(v))?,
                        _ => {}
                    }
                }
                add_checked(store, index, count)?;
            }
            (2, Field::Bytes(packed)) if packed.len() % 8 == 0 => runs.push(packed),
            (2, Field::Bytes(_)) => return Err(SketchError::Malformed),
            (2, Field::Fixed64(_)) => return Err(SketchError::Malformed),
            (3, Field::Varint(v)) => first = unzigzag(v),
            _ => {}
        }
    }
    // Highest first: then the collapsing store grows downwards only.
    let mut index = first + runs.iter().map(|r| r.len() as i64 / 8).sum::<i64>();
    for run in runs.iter().rev() {
        for raw in run.rchunks_exact(8) {
            index -= 1;
            let mut le = [0; 8];
            le.copy_from_slice(raw);
            add_checked(store, index, checked_count(f64::from_le_bytes(le))?)?;
        }
    }
    Ok(())
}

fn add_checked(store: &mut Store, index: i64, count: f64) -> Result<(), SketchError> {
    let index = i32::try_from(index).ok().filter(|i| (-MAX_INDEX..=MAX_INDEX).contains(i));
    match index {
        Some(index) if count > 0.0 => store.add(index, count),
        None if count > 0.0 => return Err(SketchError::Mapping),
        _ => {}
    }
    Ok(())
}

fn unzigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

fn varint_len(v: u64) -> usize {
    (64 - (v | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The four wire types, no more: sketches are two levels deep.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], SketchError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(SketchError::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, SketchError> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            v |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(v);
            }
        }
        Err(SketchError::Malformed)
    }

    fn field(&mut self) -> Result<Option<(u64, Field<'a>)>, SketchError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                let mut le = [0; 8];
                le.copy_from_slice(self.take(8)?);
                Field::Fixed64(u64::from_le_bytes(le))
            }
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| SketchError::Malformed)?;
                Field::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Field::Other
            }
            _ => return Err(SketchError::Malformed),
        };
        Ok(Some((tag >> 3, field)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_multiplier_is_one_over_the_logarithm_of_gamma() {
        assert!((MULTIPLIER - 1.0 / GAMMA.ln()).abs() < 1e-12, "{}", 1.0 / GAMMA.ln());
    }

    #[test]
    fn a_wide_range_keeps_2048_bins_and_every_count() {
        let mut s = Sketch::default();
        for i in (-3000..3000).step_by(7) {
            s.add_bin(i, 1.0);
        }
        let bins: Vec<_> = s.bins().collect();
        assert_eq!(bins.last().map(|b| b.0), Some(2999));
        assert_eq!(bins.first().map(|b| b.0), Some(2999 - 2047));
        assert_eq!(s.count(), 858.0);
        let mut down = Sketch::default();
        for i in (-3000..3000).step_by(7).rev() {
            down.add_bin(i, 1.0);
        }
        assert_eq!(down, s);
        assert!(s.positive.bins.len() <= MAX_BINS + STEP as usize);
    }

    #[test]
    fn an_empty_sketch_is_a_message_and_empty_bytes_are_an_empty_sketch() {
        let bytes = Sketch::default().to_bytes();
        assert_eq!(bytes.len(), 15);
        assert_eq!(Sketch::decode(&bytes), Ok(Sketch::default()));
        assert_eq!(Sketch::decode(&[]), Ok(Sketch::default()));
        assert_eq!(Sketch::default().quantile(0.5), None);
    }

    #[test]
    fn bins_of_the_tracers_mapping_spread_over_ours_and_keep_their_sum() {
        // Recorded from the reference: bins 960 and 961 of gamma 1.015625.
        let mut bytes = vec![0x0a, 9, 0x09];
        bytes.extend(1.015625f64.to_le_bytes());
        bytes.extend([0x12, 21, 0x12, 16]);
        bytes.extend(1f64.to_le_bytes());
        bytes.extend(2f64.to_le_bytes());
        bytes.extend([0x18, 0x80, 0x0f]);
        let got: Vec<_> = Sketch::decode(&bytes).unwrap().bins().collect();
        assert_eq!(got.iter().map(|b| b.0).collect::<Vec<_>>(), [744, 745]);
        assert!((got[0].1 - 1.1247).abs() < 1e-3 && (got[0].1 + got[1].1 - 3.0).abs() < 1e-9, "{got:?}");
    }

    #[test]
    fn hostile_messages_are_refused_or_bounded() {
        let coarse = [&[0x0a, 9, 0x09][..], &1e300f64.to_le_bytes()].concat();
        assert_eq!(Sketch::decode(&coarse), Err(SketchError::Mapping));
        assert_eq!(Sketch::decode(&[0x12, 200]), Err(SketchError::Malformed));
        let nan = [&[0x21][..], &f64::NAN.to_le_bytes()].concat();
        assert_eq!(Sketch::decode(&nan), Err(SketchError::Count));
        // binCounts { key: 2^31 - 1 … } would need an index no float has.
        let far = [&[0x12, 17, 0x0a, 15, 0x08, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x11][..], &1f64.to_le_bytes()]
            .concat();
        assert!(Sketch::decode(&far).is_err());
    }
}
