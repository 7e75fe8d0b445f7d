//! The first pass over the spans of a segment, batch by batch: texts and
//! attribute sets become numbers while the batch that holds them is at hand.
//! The second pass goes trace by trace through all batches at once.

use crate::encoding::Reader;
use crate::intern::Interner;
use crate::json::{Slot, Type, put_slot, put_str, put_value};
use crate::schema::Column;
use spanloom_model::{Attr, Batch, Span, Value};

/// A text attribute longer than this goes to the column `attributes_long`
/// rather than into the set that spans share.
pub(crate) const LONG_TEXT: usize = 128;
/// Numbered texts and sets take at most about so many bytes; what comes then
/// has no number.
const MOST_BYTES: usize = 8 << 20;
/// Stands for "no number".
pub(crate) const NONE: u32 = u32::MAX;
/// In the place of a column: the value goes to `attributes_long`.
pub(crate) const LONG: u16 = u16::MAX;

/// What the first pass leaves of a span.
#[derive(Clone, Copy)]
pub(crate) struct Prepared {
    /// Numbers of service, name, resource and type; [`NONE`] if too many.
    pub texts: [u32; 4],
    /// Number of the attribute set, or [`NONE`].
    pub set: u32,
    /// Attributes that are not in the set: where in [`Preparer::places`].
    pub first: u32,
    pub places: u32,
}

/// The value of an attribute outside of the set, and its column.
pub(crate) type Outside = (Value, u16);

/// Numbers of texts by where they lie, which is where they are while the
/// batches are borrowed. Equal texts of a batch usually lie in one place, so
/// most need no hashing.
struct Handles {
    slots: Vec<(usize, usize, u32)>,
}

impl Handles {
    const SLOTS: usize = 256;

    fn new() -> Self {
        Self { slots: vec![(0, 0, 0); Self::SLOTS] }
    }

    #[inline]
    fn number(&mut self, bytes: &[u8], number: impl FnOnce(&[u8]) -> u32) -> u32 {
        let (at, len) = (bytes.as_ptr() as usize, bytes.len());
        let slot = &mut self.slots[(at.wrapping_mul(0x9e37_79b1) >> 12) % Self::SLOTS];
        if (slot.0, slot.1) != (at, len) {
            *slot = (at, len, number(bytes));
        }
        slot.2
    }
}

/// Numbers of texts and sets, over all batches.
pub(crate) struct Preparer {
    pub texts: Interner,
    text_handles: Handles,
    keys: Interner,
    key_handles: Handles,
    /// Promoted column by number of the key and type.
    by_key: Vec<[Option<u16>; 4]>,
    sets: Interner,
    /// The JSON of the sets.
    pub json: Interner,
    /// Number of its JSON by number of the set.
    json_of: Vec<u32>,
    pub places: Vec<Outside>,
    taken: Vec<bool>,
    scratch: Vec<u8>,
}

impl Preparer {
    pub fn new(columns: &[Column]) -> Self {
        let mut out = Self {
            texts: Interner::default(),
            text_handles: Handles::new(),
            keys: Interner::default(),
            key_handles: Handles::new(),
            by_key: Vec::new(),
            sets: Interner::default(),
            json: Interner::default(),
            json_of: Vec::new(),
            places: Vec::new(),
            taken: vec![false; columns.len()],
            scratch: Vec::new(),
        };
        for (i, c) in columns.iter().enumerate() {
            if let Some((key, kind)) = &c.attr {
                let number = out.keys.intern(key.as_bytes()).0 as usize;
                out.by_key.resize(out.by_key.len().max(number + 1), [None; 4]);
                out.by_key[number][*kind as usize] = Some(i as u16);
            }
        }
        out
    }

    /// To be called after the last span: the numbering itself is not needed any more.
    pub fn end(&mut self) {
        self.sets = Interner::default();
        self.json_of = Vec::new();
    }

    /// The first pass over a span.
    pub fn span(&mut self, batch: &Batch, span: &Span) -> Prepared {
        let mut texts = [0; 4];
        let Self { texts: known, text_handles, .. } = self;
        for (to, text) in texts.iter_mut().zip([span.service, span.name, span.resource, span.span_type]) {
            *to = text_handles.number(batch.arena.bytes(text), |bytes| {
                if known.size() > MOST_BYTES { NONE } else { known.intern(valid(bytes).as_bytes()).0 }
            });
        }
        let first = self.places.len() as u32;
        let set = self.set(batch, span);
        Prepared { texts, set, first, places: self.places.len() as u32 - first }
    }

    /// The number of the attribute set of a span.
    fn set(&mut self, batch: &Batch, span: &Span) -> u32 {
        self.gather(batch, span, true);
        if self.sets.size() + self.json.size() > MOST_BYTES {
            return NONE;
        }
        let (set, new) = self.sets.intern(&self.scratch);
        if new {
            let json = set_json(&self.scratch, &self.keys);
            self.json_of.push(self.json.intern(&json).0);
        }
        self.json_of[set as usize]
    }

    /// The JSON of a set that has no number.
    pub fn spell(&mut self, batch: &Batch, span: &Span) -> Vec<u8> {
        self.gather(batch, span, false);
        set_json(&self.scratch, &self.keys)
    }

    /// Leaves the set of a span in `scratch` and, if it is the first time,
    /// what lies elsewhere in `places`.
    fn gather(&mut self, batch: &Batch, span: &Span, first_time: bool) {
        let set = &mut self.scratch;
        set.clear();
        self.taken.fill(false);
        for a in batch.attrs(span.attrs) {
            let Self { keys, by_key, key_handles, .. } = self;
            let number = key_handles.number(batch.arena.bytes(a.key), |key| {
                let (number, new) = keys.intern(key);
                if new {
                    by_key.push([None; 4]);
                }
                number
            });
            set.extend_from_slice(&number.to_le_bytes());
            let kind = Type::of(&a.value);
            if let Some(column) = self.by_key[number as usize][kind as usize] {
                let taken = &mut self.taken[usize::from(column)];
                if !*taken && !matches!(a.value, Value::Empty) {
                    *taken = true;
                    if first_time {
                        self.places.push((a.value, column));
                    }
                    set.push(16 + kind as u8);
                    continue;
                }
            }
            if put_member(set, batch, span, a) && first_time {
                self.places.push((a.value, LONG));
            }
        }
    }
}

/// Appends an attribute's value as sets hold it (see [`set_json`]); whether it
/// lies in `attributes_long`.
fn put_member(set: &mut Vec<u8>, batch: &Batch, span: &Span, a: &Attr) -> bool {
    match a.value {
        Value::Empty => set.push(0),
        Value::Bool(b) => set.extend_from_slice(&[1, u8::from(b)]),
        Value::Int(v) => {
            set.push(2);
            set.extend_from_slice(&v.to_le_bytes());
        }
        Value::Double(v) => {
            set.push(3);
            set.extend_from_slice(&v.to_bits().to_le_bytes());
        }
        Value::Str(t) => {
            // Whether it is UTF-8 is looked at when a set is new.
            let text = batch.arena.bytes(t);
            if is_trace_high(span, text) {
                set.push(5);
            } else if text.len() > LONG_TEXT {
                set.push(6);
                return true;
            } else {
                set.extend_from_slice(&[4, text.len() as u8]);
                set.extend_from_slice(text);
            }
        }
        Value::Bytes(_) | Value::List(_) | Value::Map(_) => {
            set.push(6);
            return true;
        }
    }
    false
}

/// Appends a value of the column `attributes_long`, a list.
pub(crate) fn put_long(out: &mut Vec<u8>, batch: &Batch, value: &Value) {
    out.push(if out.is_empty() { b'[' } else { b',' });
    put_value(out, batch, value, 1);
}

/// Whether a text is the upper half of the span's trace id.
pub(crate) fn is_trace_high(span: &Span, text: &[u8]) -> bool {
    let digit = |i: usize| b"0123456789abcdef"[(span.trace_id.high() >> (60 - 4 * i) & 15) as usize];
    text.len() == 16 && text.iter().enumerate().all(|(i, b)| *b == digit(i))
}

/// The longest valid prefix, as `Arena::str` gives it.
pub(crate) fn valid(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(),
    }
}

/// The JSON of a set from its binary form (see [`put_member`]).
fn set_json(set: &[u8], keys: &Interner) -> Vec<u8> {
    let mut out = vec![b'{'];
    let mut r = Reader::new(set);
    while let Ok(code) = r.u32() {
        if out.len() > 1 {
            out.push(b',');
        }
        put_str(&mut out, valid(keys.get(code)));
        out.push(b':');
        let empty = Batch::default();
        let mut plain = |v: Value| put_value(&mut out, &empty, &v, 0);
        match r.u8().unwrap_or(0) {
            0 => plain(Value::Empty),
            1 => plain(Value::Bool(r.u8().unwrap_or(0) != 0)),
            2 => plain(Value::Int(r.i64().unwrap_or(0))),
            3 => plain(Value::Double(f64::from_bits(r.u64().unwrap_or(0)))),
            4 => {
                let n = r.u8().unwrap_or(0);
                put_str(&mut out, valid(r.take(usize::from(n)).unwrap_or_default()));
            }
            5 => put_slot(&mut out, Slot::TraceHigh),
            6 => put_slot(&mut out, Slot::Long),
            16 => put_slot(&mut out, Slot::Column(Type::Str)),
            17 => put_slot(&mut out, Slot::Column(Type::Int)),
            18 => put_slot(&mut out, Slot::Column(Type::Double)),
            _ => put_slot(&mut out, Slot::Column(Type::Json)),
        }
    }
    out.push(b'}');
    out
}
