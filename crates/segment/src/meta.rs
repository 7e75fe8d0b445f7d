//! What is known about a segment without reading its spans.

/// Summary of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Directory name, `seg-<minstart>-<maxstart>-<id>`.
    pub name: String,
    /// [`crate::WriteOptions::id`].
    pub id: u64,
    /// Spans.
    pub spans: u64,
    /// Traces (a trace may have further spans in other segments).
    pub traces: u64,
    /// Earliest start, nanoseconds since the Unix epoch. Spans without a start
    /// count as 0.
    pub min_start: i64,
    /// Latest start.
    pub max_start: i64,
    /// Latest end.
    pub max_end: i64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Format version.
    pub version: u32,
}

impl SegmentMeta {
    pub(crate) fn empty(id: u64) -> Self {
        Self {
            name: String::new(),
            id,
            spans: 0,
            traces: 0,
            min_start: i64::MAX,
            max_start: i64::MIN,
            max_end: i64::MIN,
            bytes: 0,
            version: crate::format::VERSION,
        }
    }
}
