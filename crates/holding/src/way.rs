//! An exporter behind the buffer.

use crate::Buffer;
use spanloom_model::{AckFn, Batch, Chunk};
use spanloom_pipeline::Exporter;
use std::sync::Arc;

/// What is to be done with a chunk of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// Nothing: it is not for this way.
    Skip,
    /// It leaves at once: no rule is asked.
    AtOnce,
    /// It waits for the verdict on its trace.
    Wait {
        /// Its sender wants the trace kept whatever rules say.
        exempt: bool,
    },
}

/// A way out: an exporter, and which chunks of a batch it wants held.
pub trait Way: Exporter {
    /// What is to be done with a chunk. Only asked about kept chunks that have
    /// spans.
    fn takes(&self, batch: &Batch, chunk: &Chunk) -> Take;

    /// The batch that leaves by this way, where it is not the client's own
    /// ([`Batch::for_datadog`]).
    fn leaving(&self, batch: &Arc<Batch>) -> Arc<Batch> {
        Arc::clone(batch)
    }

    /// Where the chunk goes, in words that mean the same after a restart.
    fn destination(&self, chunk: &Chunk) -> String;

    /// Makes a chunk that was read back go there. False: there is no such
    /// destination any more.
    fn send_to(&self, chunk: &mut Chunk, destination: &str) -> bool;
}

/// The door of a way: an exporter for the pipeline that holds what must wait.
pub struct Held {
    buffer: Arc<Buffer>,
    way: u8,
}

impl Held {
    /// In front of the way with this position in the buffer.
    pub fn new(buffer: Arc<Buffer>, way: u8) -> Self {
        Self { buffer, way }
    }
}

impl Exporter for Held {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        self.buffer.hold(self.way, &batch, done);
    }
}
