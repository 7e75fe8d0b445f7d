//! Which blocks of a row group hold an attribute with a given value: what
//! makes searches for rare tags cheap.
//!
//! Every scalar attribute of a span, its resource, scope, events and links
//! has an entry (24 bits of a hash of key and value, block). A value in more
//! than [`FEW`] blocks is only said to be frequent; dictionaries and postings
//! answer for it. Entries lie in small pages that are read one by one, so a
//! look costs one short read and no memory.
//!
//! A value is hashed as it is stored: JSON text in sets and objects, raw bytes
//! in promoted columns. A search looks for all forms that can equal its literal.

use crate::column::{Blocks, GROUP_BLOCKS, block_list};
use crate::encoding::{Reader, put_varint, stable_hash};
use crate::error::{Decoded, Malformed};
use crate::json::{Slot, Type, put_int, put_slot, put_str, put_value};
use crate::prepare::LONG_TEXT;
use crate::schema;
use spanloom_model::{Batch, Cond, Literal, Op, Value, is_intrinsic};

/// A value in more blocks than this is frequent.
const FEW: usize = 8;
/// Bits of the hash in an entry; the block takes the other eight.
const HASH_BITS: u32 = 24;
/// Entries of a page, about.
const PAGE_ENTRIES: usize = 1024;
/// A row group has at most 2^8 pages.
const MAX_PAGE_BITS: u32 = 8;

/// How a column holds attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holds {
    /// None that can be searched for.
    Nothing,
    /// The values of one attribute; the hash of its key and type.
    Values(u64),
    /// Attribute sets.
    Sets,
    /// Objects with a member `attributes`.
    Objects,
    /// Lists of such objects.
    Lists,
}

impl Holds {
    /// What a column of the schema holds.
    pub fn of(position: usize, attr: Option<&(String, Type)>) -> Self {
        match (position, attr) {
            (_, Some((key, kind))) => Self::Values(column_seed(key, *kind)),
            (schema::ATTRIBUTES, _) => Self::Sets,
            (schema::PROCESS | schema::SCOPE, _) => Self::Objects,
            (schema::EVENTS | schema::LINKS, _) => Self::Lists,
            _ => Self::Nothing,
        }
    }

    /// Calls back with the hash of each attribute in a value of the column.
    pub fn hashes(self, value: &[u8], f: &mut dyn FnMut(u32)) {
        let mut scan = Scan { text: value, at: 0 };
        // What we have written ourselves is well-formed.
        let _ = match self {
            Self::Nothing => Some(()),
            Self::Values(seed) => {
                f(mix(seed, value));
                Some(())
            }
            Self::Sets => scan.pairs(&mut |key, value| f(mix(json_seed(key), value))),
            Self::Objects => scan.object(f),
            Self::Lists => scan.list(f),
        };
    }
}

fn mix(seed: u64, value: &[u8]) -> u32 {
    let h = (seed ^ stable_hash(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (h >> (64 - HASH_BITS)) as u32
}

fn json_seed(key: &[u8]) -> u64 {
    stable_hash(key)
}

fn column_seed(key: &str, kind: Type) -> u64 {
    stable_hash(key.as_bytes()).rotate_left(17 + kind as u32)
}

/// Walks over JSON that this crate has written, without building anything.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, b: u8) -> Option<()> {
        (self.peek()? == b).then(|| self.at += 1)
    }

    /// A text as it is written, without its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.eat(b'"')?;
        let start = self.at;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.text.get(self.at..)?)?;
            if self.peek()? == b'"' {
                self.at += 1;
                return self.text.get(start..self.at - 1);
            }
            self.at += 2;
        }
    }

    /// Any value as it is written.
    fn value(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b'}' | b']') if depth == 0 => break,
                Some(_) => self.at += 1,
                None if depth == 0 => break,
                None => return None,
            }
        }
        self.text.get(start..self.at)
    }

    /// The members of an object.
    fn pairs(&mut self, f: &mut dyn FnMut(&'a [u8], &'a [u8])) -> Option<()> {
        self.eat(b'{')?;
        while self.peek()? != b'}' {
            let key = self.string()?;
            self.eat(b':')?;
            f(key, self.value()?);
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
        self.eat(b'}')
    }

    /// The attributes of an object that has them as a member.
    fn object(&mut self, f: &mut dyn FnMut(u32)) -> Option<()> {
        let mut inner = None;
        self.pairs(&mut |key, value| {
            if key == b"attributes" {
                inner = Some(value);
            }
        })?;
        let Some(mut text) = inner else { return Some(()) };
        if let Some(rest) = text.strip_prefix(b"{\"$map\":") {
            text = rest;
        }
        Scan { text, at: 0 }.pairs(&mut |key, value| f(mix(json_seed(key), value)))
    }

    fn list(&mut self, f: &mut dyn FnMut(u32)) -> Option<()> {
        self.eat(b'[')?;
        while self.peek()? != b']' {
            self.object(f)?;
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
        Some(())
    }
}

/// The hashes of all stored forms that can meet a condition; none if the
/// index cannot tell.
pub(crate) fn wanted(cond: &Cond) -> Option<Vec<u32>> {
    let Cond::Attr { key, op: Op::Eq, value, .. } = cond else { return None };
    // Fields of the model are not attributes.
    if is_intrinsic(key) {
        return None;
    }
    let mut quoted = Vec::new();
    put_str(&mut quoted, key);
    let seed = json_seed(quoted.get(1..quoted.len() - 1)?);
    let mut out = Vec::new();
    let json = |put: &dyn Fn(&mut Vec<u8>)| {
        let mut text = Vec::new();
        put(&mut text);
        mix(seed, &text)
    };
    let text = match value {
        Literal::Typed(t) | Literal::Str(t) => Some(t),
        _ => None,
    };
    if let Some(t) = text {
        out.push(mix(column_seed(key, Type::Str), t.as_bytes()));
        out.push(json(&|o| put_str(o, t)));
        if t.len() > LONG_TEXT {
            out.push(json(&|o| put_slot(o, Slot::Long)));
        }
        if t.len() == 16 {
            out.push(json(&|o| put_slot(o, Slot::TraceHigh)));
        }
    }
    let truth = match value {
        Literal::Bool(b) => Some(*b),
        Literal::Typed(t) => t.parse().ok(),
        _ => None,
    };
    if let Some(b) = truth {
        out.push(json(&|o| put_value(o, &Batch::default(), &Value::Bool(b), 0)));
    }
    let (int, number) = match value {
        Literal::Typed(t) => (t.parse::<i64>().ok(), t.parse::<f64>().ok()),
        Literal::Number(n) => (None, Some(*n)),
        Literal::Str(_) | Literal::Bool(_) => (None, None),
        Literal::Fold(_) | Literal::Glob(_) => return None,
    };
    let int = match (int, number) {
        (None, Some(n)) if n.fract() == 0.0 => {
            // Beyond 2^53 several integers equal one floating-point number.
            if n.abs() >= 9e15 {
                return None;
            }
            Some(n as i64)
        }
        (int, _) => int,
    };
    if let Some(i) = int {
        out.push(mix(column_seed(key, Type::Int), &i.to_le_bytes()));
        out.push(json(&|o| put_int(o, i)));
    }
    if let Some(n) = number {
        let zeros = if n == 0.0 { [Some(0.0), Some(-0.0)] } else { [Some(n), None] };
        for n in zeros.into_iter().flatten() {
            out.push(mix(column_seed(key, Type::Double), &n.to_le_bytes()));
            out.push(json(&|o| put_value(o, &Batch::default(), &Value::Double(n), 0)));
        }
    }
    out.sort_unstable();
    out.dedup();
    Some(out)
}

/// Entries of a row group, gathered column by column.
#[derive(Default)]
pub(crate) struct Entries {
    /// Hash << 8 | block, in any order, repeated.
    few: Vec<u32>,
    /// Hashes of frequent values.
    many: Vec<u32>,
}

impl Entries {
    /// Adds a value of a plain block.
    #[inline]
    pub fn add(&mut self, holds: Holds, value: &[u8], block: usize) {
        let block = (block & 0xff) as u32;
        match holds {
            Holds::Nothing => {}
            Holds::Values(seed) => self.few.push(mix(seed, value) << 8 | block),
            _ => holds.hashes(value, &mut |hash| self.few.push(hash << 8 | block)),
        }
    }

    /// Adds a value of a dictionary.
    pub fn add_coded(&mut self, holds: Holds, value: &[u8], blocks: &Blocks) {
        let count: u32 = blocks.iter().map(|w| w.count_ones()).sum();
        let many = count as usize > FEW;
        holds.hashes(value, &mut |hash| {
            if many {
                self.many.push(hash);
            } else {
                self.few.extend(block_list(blocks).map(|b| hash << 8 | b as u32));
            }
        });
    }

    /// Takes over what another column has.
    pub fn append(&mut self, other: &mut Self) {
        self.few.append(&mut other.few);
        self.many.append(&mut other.many);
    }

    /// The pages, one after the other, and their directory; the pages will
    /// lie at `offset` of the index.
    pub fn finish(&mut self, offset: u64) -> (Vec<u8>, Vec<u8>) {
        let Self { few, many } = self;
        few.sort_unstable();
        few.dedup();
        many.extend(few.chunk_by(|a, b| a >> 8 == b >> 8).filter(|c| c.len() > FEW).map(|c| c[0] >> 8));
        many.sort_unstable();
        many.dedup();
        let mut frequent = many.iter().peekable();
        few.retain(|entry| {
            while frequent.next_if(|m| **m < entry >> 8).is_some() {}
            frequent.peek().is_none_or(|m| **m != entry >> 8)
        });
        let bits = few.len().div_ceil(PAGE_ENTRIES).next_power_of_two().ilog2().min(MAX_PAGE_BITS);
        let mut pages = Vec::with_capacity(few.len() * 5 / 2);
        let mut directory = vec![bits as u8];
        put_varint(&mut directory, offset);
        let mut rest = few.as_slice();
        for page in 0..1u32 << bits {
            let start = pages.len();
            let shift = HASH_BITS - bits;
            let n = rest.partition_point(|e| (e >> 8) >> shift <= page);
            let (here, after) = rest.split_at(n);
            rest = after;
            let mut last = page << shift;
            for e in here {
                put_varint(&mut pages, u64::from((e >> 8) - last));
                pages.push(*e as u8);
                last = e >> 8;
            }
            put_varint(&mut directory, (pages.len() - start) as u64);
            directory.extend_from_slice(&crc32fast::hash(&pages[start..]).to_le_bytes());
        }
        put_varint(&mut directory, many.len() as u64);
        let mut last = 0;
        for m in many.iter() {
            put_varint(&mut directory, u64::from(m - last));
            last = *m;
        }
        *self = Self::default();
        (pages, directory)
    }
}

/// Where the entries of a row group lie.
#[derive(Debug)]
pub(crate) struct Tags {
    bits: u32,
    /// Offset in the index, length and checksum of each page.
    pages: Vec<(u64, u32, u32)>,
    many: Vec<u32>,
}

impl Tags {
    pub fn read(raw: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(raw);
        let bits = u32::from(r.u8()?);
        if bits > MAX_PAGE_BITS {
            return Err(Malformed("a row group has too many pages of tags"));
        }
        let mut offset = r.varint()?;
        let mut pages = Vec::with_capacity(1 << bits);
        for _ in 0..1u32 << bits {
            let len = r.count(u32::MAX as usize)? as u32;
            pages.push((offset, len, r.u32()?));
            offset = offset.checked_add(u64::from(len)).ok_or(Malformed("an offset is out of range"))?;
        }
        let n = r.count(r.left())?;
        let mut many = Vec::with_capacity(n);
        let mut last = 0u32;
        for _ in 0..n {
            last = last.saturating_add(r.count(1 << HASH_BITS)? as u32);
            many.push(last);
        }
        Ok(Self { bits, pages, many })
    }

    pub fn size(&self) -> usize {
        self.pages.len() * 16 + self.many.len() * 4
    }

    pub fn is_frequent(&self, hash: u32) -> bool {
        self.many.binary_search(&hash).is_ok()
    }

    /// The page that lists a hash.
    pub fn page(&self, hash: u32) -> Decoded<TagPage> {
        let shift = HASH_BITS - self.bits;
        let n = hash >> shift;
        let (offset, len, crc) = self.pages.get(n as usize).copied().ok_or(Malformed("a page is missing"))?;
        Ok(TagPage { offset, len: len as usize, crc, first: n << shift })
    }
}

/// Where a page lies in the index.
pub(crate) struct TagPage {
    pub offset: u64,
    pub len: usize,
    pub crc: u32,
    /// Least hash that it can list.
    first: u32,
}

impl TagPage {
    /// Adds the blocks that the page lists for a hash.
    pub fn blocks(&self, page: &[u8], hash: u32, out: &mut Blocks) -> Decoded<()> {
        let mut r = Reader::new(page);
        let mut at = self.first;
        while !r.is_empty() && at <= hash {
            at = at.saturating_add(r.count(1 << HASH_BITS)? as u32);
            let block = usize::from(r.u8()?);
            if at == hash && block < GROUP_BLOCKS {
                out[block / 64] |= 1 << (block % 64);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_model::AttrScope;

    fn typed(key: &str, value: &str) -> Cond {
        let value = Literal::Typed(value.into());
        Cond::Attr { scope: AttrScope::Any, key: key.into(), op: Op::Eq, value }
    }

    fn found(holds: Holds, stored: &[u8], cond: &Cond) -> bool {
        let wanted = wanted(cond).unwrap();
        let mut found = false;
        holds.hashes(stored, &mut |h| found |= wanted.contains(&h));
        found
    }

    #[test]
    fn a_value_is_found_in_every_form_that_equals_it() {
        let set = br#"{"a":12,"b":12.0,"c":"12","d":true,"e\"\\":"x\ny","f":{"a":7},"g":["a",8],"z":-0.0}"#;
        for (key, value) in
            [("a", "12"), ("b", "12"), ("c", "12"), ("d", "true"), ("e\"\\", "x\ny"), ("z", "0")]
        {
            assert!(found(Holds::Sets, set, &typed(key, value)), "{key} {value}");
        }
        for (key, value) in [("a", "7"), ("a", "13"), ("g", "8"), ("c", "13"), ("f", "7")] {
            assert!(!found(Holds::Sets, set, &typed(key, value)), "{key} {value}");
        }
        for (kind, stored, value) in [
            (Type::Str, b"shop".to_vec(), "shop"),
            (Type::Int, 5i64.to_le_bytes().to_vec(), "5"),
            (Type::Double, 5f64.to_le_bytes().to_vec(), "5"),
        ] {
            assert!(found(Holds::Values(column_seed("k", kind)), &stored, &typed("k", value)));
        }
    }

    #[test]
    fn attributes_of_resources_and_events_are_found() {
        let process = br#"{"env":"prod","attributes":{"$map":{"$":1,"k8s.pod":"p-1"}}}"#;
        assert!(found(Holds::Objects, process, &typed("k8s.pod", "p-1")));
        assert!(found(Holds::Objects, process, &typed("$", "1")));
        let events = br#"[{"time":1,"name":"x"},{"time":2,"name":"y","attributes":{"k":"v"}}]"#;
        assert!(found(Holds::Lists, events, &typed("k", "v")));
        assert!(!found(Holds::Lists, events, &typed("name", "y")));
    }

    #[test]
    fn fields_patterns_and_huge_numbers_are_left_to_others() {
        assert!(wanted(&typed("resource.name", "x")).is_none());
        assert!(wanted(&typed("a", "1e300")).is_none());
        let glob = Literal::Glob("x*".into());
        assert!(
            wanted(&Cond::Attr { scope: AttrScope::Any, key: "a".into(), op: Op::Eq, value: glob }).is_none()
        );
    }

    #[test]
    fn entries_come_back_by_page_and_frequent_ones_by_name() {
        let mut entries = Entries::default();
        let holds = Holds::Values(column_seed("id", Type::Str));
        for i in 0..20_000usize {
            entries.add(holds, format!("id-{i}").as_bytes(), i / 100);
            entries.add(holds, b"everywhere", i / 100);
        }
        let (pages, directory) = entries.finish(0);
        let tags = Tags::read(&directory).unwrap();
        let hash = |text: &str| mix(column_seed("id", Type::Str), text.as_bytes());
        assert!(tags.is_frequent(hash("everywhere")));
        let mut wrong = 0;
        for i in 0..20_000usize {
            let h = hash(&format!("id-{i}"));
            let page = tags.page(h).unwrap();
            let data = &pages[page.offset as usize..page.offset as usize + page.len];
            assert_eq!(crc32fast::hash(data), page.crc);
            let mut out = Blocks::default();
            page.blocks(data, h, &mut out).unwrap();
            assert!(block_list(&out).any(|b| b == i / 100));
            wrong += block_list(&out).count() - 1;
        }
        assert!(wrong < 200, "{wrong} of 20,000");
    }
}
