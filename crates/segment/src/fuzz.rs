//! One pure entry to all decoders of stored bytes, for mutation tests and
//! fuzzing (the files' checksums keep such bytes away in practice), and a
//! search that never scans, so that tests of small segments reach that way too.

use crate::encoding::Reader;
use crate::json::Parser;
use crate::page::{Dict, Page, decompress};
use crate::recent;
use crate::schema::{self, Shape};
use crate::segment::{self, PagePlace, Place, Segment};
use crate::tags::Tags;
use crate::traces::{self, Strings, TraceBlock};
use crate::{Hits, SegmentError, format, rows};
use spanloom_model::{Batch, Search, TraceId};
use std::sync::Arc;

/// Gives bytes to one of the decoders: the first byte says to which, the next
/// two how many rows or values are expected.
pub fn decode(bytes: &[u8]) {
    let mut r = Reader::new(bytes);
    let (Ok(kind), Ok(a), Ok(b)) = (r.u8(), r.u8(), r.u8()) else { return };
    let n = usize::from(a) | usize::from(b & 63) << 8;
    let rest = r.take(r.left()).unwrap_or_default();
    let mut batch = Batch::default();
    match kind {
        0 => drop(format::read_tail(rest)),
        1 => drop(format::read_directory(rest)),
        2 => drop(segment::read_columns(rest)),
        3 => drop(segment::read_group(rest, n, u32::from(b >> 7) + 1)),
        4 => drop(segment::read_postings(rest)),
        5 => drop(segment::read_filters(rest)),
        6 => drop(segment::read_fences(rest)),
        7 => drop(traces::read_directory(rest)),
        8 => {
            if let Ok(strings) = Strings::read(rest)
                && let Ok(listed) = traces::Operations::read(rest.to_vec(), u32::from(b >> 7) + 1)
            {
                let _ = listed.names(&strings, |_, _| ());
            }
        }
        9 => {
            if let Ok(block) = TraceBlock::read(rest.to_vec()) {
                for i in 0..block.starts.len() + 1 {
                    drop(block.part(i, TraceId(1), &Strings::default()));
                }
            }
        }
        10 => drop(Parser::new(rest).attrs(&mut batch, 0, Some(&mut Vec::new()))),
        11 => drop(rows::read_process(rest, &mut batch)),
        12 => drop(rows::read_scope(rest, &mut batch)),
        13 => drop(rows::read_chunk(rest, &mut batch)),
        14 => drop(rows::read_events(rest, &mut batch)),
        15 => drop(rows::read_links(rest, &mut batch)),
        18 => drop((recent::Times::read(rest), recent::v1::Whole::read(rest))),
        19 => {
            let place = recent::ListPlace { part: 0, at: 0, len: u32::from(a) };
            let _ = recent::read_list(rest, place, n, 0, &mut Vec::new());
            let _ = recent::v1::read_list(rest, 0, &vec![0; n], &mut Vec::new());
        }
        20 => drop(recent::Order::read(rest, n)),
        21 => drop(segment::read_zones(&mut Reader::new(rest))),
        22 => {
            if let Ok(tags) = Tags::read(rest) {
                let hash = u32::from(a) << 16 | n as u32;
                let _ = tags.page(hash).map(|p| p.blocks(rest, hash, &mut Default::default()));
            }
        }
        16 => drop(decompress(rest, n)),
        17 => drop(Dict::read(rest.to_vec(), n, if b & 64 == 0 { Shape::Texts } else { Shape::Words })),
        _ => {
            let columns = schema::fixed();
            let dict = Dict::read(vec![0; 64], 8, Shape::Words).ok().map(Arc::new);
            let place = Place { offset: 0, len: 0, raw: rest.len(), crc: 0 };
            let place = PagePlace { first_row: 0, rows: n, enc: b >> 6, place };
            let column = &columns[usize::from(kind) % columns.len()];
            if let Ok(page) = Page::read(rest.to_vec(), &place, column, dict) {
                for row in 0..n + 2 {
                    let _ = (page.bytes(row), page.word(row), page.id_at(row));
                }
            }
        }
    }
}

/// [`Segment::search`], trying trace after trace whatever the indexes say.
pub fn search_by_trace<'s>(segment: &'s Segment, search: &Search) -> Result<Hits<'s>, SegmentError> {
    segment.search_within(search, 0, usize::MAX)
}
