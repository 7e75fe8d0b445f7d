//! Requests, errors and durations: the question and its answer.

/// What a question is about. Empty fields hold for everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedFilter<'a> {
    /// Only these services.
    pub services: &'a [&'a str],
    /// Only this operation.
    pub operation: Option<&'a str>,
    /// Only this resource.
    pub resource: Option<&'a str>,
    /// Only these span kinds (`server`).
    pub kinds: &'a [&'a str],
    /// Only spans that enter their service: what it was asked to do.
    pub entries: bool,
    /// From this time on, nanoseconds since the Unix epoch; rounded down to a minute.
    pub from: i64,
    /// Before this time; rounded up to a minute.
    pub to: i64,
    /// From one point to the next, in nanoseconds, rounded down to minutes,
    /// one at least; 0: one point for the whole time.
    pub step: i64,
    /// How much time a point covers, in nanoseconds, rounded down to minutes;
    /// 0: one step. All points then lie within the time as a whole.
    pub window: i64,
    /// How many of service, operation, resource, kind tell series apart
    /// (1 to 4); the others are added up.
    pub depth: u8,
    /// Asks for [`RedPoint::latency`], from 0 to 1.
    pub quantile: f64,
}

/// Figures of one series.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RedSeries {
    /// Service.
    pub service: String,
    /// Operation; empty if added up.
    pub operation: String,
    /// Resource; empty if added up.
    pub resource: String,
    /// Span kind; empty if added up or unknown.
    pub kind: String,
    /// Points in order of time; empty times have none.
    pub points: Vec<RedPoint>,
}

/// Figures of one time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct RedPoint {
    /// Start, nanoseconds since the Unix epoch.
    pub start: i64,
    /// Spans counted.
    pub requests: u64,
    /// Of these, failed.
    pub errors: u64,
    /// Of these, entries of their service.
    pub top_level: u64,
    /// Sum of durations, nanoseconds.
    pub duration: u64,
    /// Median latency in nanoseconds, exact to about 1 %.
    pub p50: f64,
    /// 95th percentile, likewise.
    pub p95: f64,
    /// 99th percentile, likewise.
    pub p99: f64,
    /// The quantile that was asked for, likewise.
    pub latency: f64,
}
