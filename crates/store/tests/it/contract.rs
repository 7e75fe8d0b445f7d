//! The contract of all stores, with the spans in every place they can lie.

use crate::support::Fixture;
use spanloom_model::contract::{Subject, check};
use spanloom_model::{SpanReader, SpanWriter};

struct Here {
    fixture: Fixture,
    settle: fn(&Fixture),
}

impl Subject for Here {
    fn writer(&self) -> &dyn SpanWriter {
        self.fixture.store()
    }
    fn reader(&self) -> &dyn SpanReader {
        self.fixture.store()
    }
    fn settle(&self) {
        (self.settle)(&self.fixture);
    }
}

fn run(settle: fn(&Fixture)) {
    check(&|| Box::new(Here { fixture: Fixture::new(), settle }));
}

#[test]
fn live_spans_keep_the_contract() {
    run(|_| ());
}

#[test]
fn flushed_spans_keep_the_contract() {
    run(|f| f.store().flush().unwrap());
}

#[test]
fn merged_spans_keep_the_contract() {
    run(|f| {
        f.store().flush().unwrap();
        f.store().compact_now(true).unwrap();
    });
}

#[test]
fn spans_in_many_small_segments_keep_the_contract() {
    check(&|| {
        // Every append fills a generation.
        let fixture = Fixture::with(|c| c.flush_spans = 1);
        Box::new(Here { fixture, settle: |f| f.store().flush().unwrap() })
    });
}

#[test]
fn spans_in_many_live_generations_keep_the_contract() {
    check(&|| Box::new(Here { fixture: Fixture::with(|c| c.flush_spans = 1), settle: |_| () }));
}
