//! Names, keys and values that occur in a segment.

use crate::error::{Malformed, SegmentError};
use crate::format;
use crate::json::Type;
use crate::schema;
use crate::segment::Segment;
use spanloom_model::{AttrKey, Operation};
use std::collections::{BTreeMap, BTreeSet};

impl Segment {
    /// Every service with its operations, sorted. With more than about 4 MiB
    /// of distinct names, those of the highest trace ids are missing.
    pub fn operations(&self) -> Result<BTreeMap<String, BTreeSet<Operation>>, SegmentError> {
        let mut out: BTreeMap<String, BTreeSet<Operation>> = BTreeMap::new();
        let strings = self.strings()?;
        let mut last: Option<(String, BTreeSet<Operation>)> = None;
        let names = self.listed()?;
        let read = names.names(&strings, |service, operation| match &mut last {
            Some((known, operations)) if known == service => {
                operations.insert(operation);
            }
            _ => {
                let next = (service.to_owned(), BTreeSet::from([operation]));
                if let Some((service, operations)) = last.replace(next) {
                    out.entry(service).or_default().extend(operations);
                }
            }
        });
        read.map_err(|e| self.damaged(format::INDEX, e))?;
        if let Some((service, operations)) = last {
            out.entry(service).or_default().extend(operations);
        }
        Ok(out)
    }

    /// Names of services, sorted.
    pub fn services(&self) -> Result<Vec<String>, SegmentError> {
        let strings = self.strings()?;
        let names = self.listed()?;
        let text = |n: u32| strings.get(n as usize).map(|t| String::from_utf8_lossy(t).into_owned());
        let found: Option<BTreeSet<String>> = names.services.iter().map(|(n, _)| text(*n)).collect();
        let missing = || self.damaged(format::INDEX, Malformed("a service has no name"));
        Ok(found.ok_or_else(missing)?.into_iter().collect())
    }

    /// Attribute keys that occur on spans and on resources.
    pub fn attribute_keys(&self) -> Result<BTreeSet<AttrKey>, SegmentError> {
        let mut out = BTreeSet::new();
        for c in &self.columns {
            if let Some((key, _)) = &c.attr {
                out.insert(AttrKey { key: key.clone(), resource: false });
            }
        }
        for (column, resource) in [(schema::ATTRIBUTES, false), (schema::PROCESS, true)] {
            self.each_object(column, &mut |batch, range| {
                let range = if resource { crate::rows::member(batch, range, "attributes") } else { range };
                for a in batch.attrs(range) {
                    out.insert(AttrKey { key: batch.str(a.key).to_owned(), resource });
                }
            })?;
        }
        Ok(out)
    }

    /// Up to `limit` values of a span or resource attribute, printed as text
    /// and sorted.
    pub fn attribute_values(&self, key: &str, limit: usize) -> Result<BTreeSet<String>, SegmentError> {
        let mut out = BTreeSet::new();
        let add = |out: &mut BTreeSet<String>, text: String| {
            out.insert(text);
            if out.len() > limit {
                out.pop_last();
            }
        };
        for (column, resource) in [(schema::ATTRIBUTES, false), (schema::PROCESS, true)] {
            self.each_object(column, &mut |batch, range| {
                let range = if resource { crate::rows::member(batch, range, "attributes") } else { range };
                for a in batch.attrs(range) {
                    if batch.str(a.key) == key
                        && let Some(text) = crate::rows::print(batch, a.value)
                    {
                        add(&mut out, text);
                    }
                }
            })?;
        }
        for (i, c) in self.columns.iter().enumerate() {
            let Some((k, kind)) = &c.attr else { continue };
            if k != key || *kind == Type::Json {
                continue;
            }
            self.each_value(i, &mut |bytes| {
                if let Some(text) = crate::rows::print_column(*kind, bytes) {
                    add(&mut out, text);
                }
            })?;
        }
        Ok(out)
    }

    /// Calls back for every distinct (or, in plain pages, every) value.
    fn each_value(&self, column: usize, f: &mut dyn FnMut(&[u8])) -> Result<(), SegmentError> {
        for g in 0..self.group_rows.len() as u32 {
            let dict = self.dict(g, column)?;
            for i in 0..dict.len() {
                f(dict.bytes(i as u32));
            }
            let dir = self.group(g)?;
            for (n, p) in dir.columns[column].pages.iter().enumerate() {
                if p.enc == crate::column::enc::DICT {
                    continue;
                }
                let page = self.load_page(g, column, n)?;
                for row in page.first_row..page.first_row + page.rows {
                    match (page.bytes(row), page.word(row)) {
                        (Some(v), _) => f(v),
                        (None, Some(w)) => f(&w.to_le_bytes()),
                        (None, None) => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// The same for a column of JSON objects.
    fn each_object(
        &self,
        column: usize,
        f: &mut dyn FnMut(&spanloom_model::Batch, spanloom_model::Range32),
    ) -> Result<(), SegmentError> {
        let mut bad = None;
        self.each_value(column, &mut |bytes| {
            let mut batch = spanloom_model::Batch::default();
            let mut slots = Vec::new();
            match crate::json::Parser::new(bytes).attrs(&mut batch, 0, Some(&mut slots)) {
                Ok(range) => f(&batch, range),
                Err(e) => bad = Some(e),
            }
        })?;
        bad.map_or(Ok(()), |e| Err(self.damaged(format::SPANS, e)))
    }
}
