//! Traces by their number: the position among the traces of a segment in order
//! of id. Users keep one bit per trace by it.

use crate::error::{Malformed, SegmentError};
use crate::format;
use crate::segment::Segment;
use crate::traces::TracePart;
use spanloom_model::TraceId;

impl Segment {
    /// Number of a trace, from 0 to [`crate::SegmentMeta::traces`] - 1; none
    /// if it is not here.
    pub fn number_of(&self, id: TraceId) -> Result<Option<u32>, SegmentError> {
        Ok(self.find(id)?.map(|f| f.ordinal))
    }

    /// Id of the trace with this number.
    pub fn id_of(&self, number: u32) -> Result<TraceId, SegmentError> {
        Ok(TraceId(self.by_ordinal(number)?.0))
    }

    /// What the segment holds of the trace with this number, whose id is known.
    pub fn part_of(&self, number: u32, id: TraceId) -> Result<TracePart, SegmentError> {
        let (block, place) = self.trace_at(number)?;
        let strings = self.strings()?;
        if place >= block.starts.len() {
            return Err(self.damaged(format::TRACES, Malformed("a trace is not in its block")));
        }
        block.part(place, id, &strings).map_err(|e| self.damaged(format::TRACES, e))
    }
}
