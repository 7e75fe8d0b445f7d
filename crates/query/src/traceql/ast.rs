//! What a query is made of.

use regex::Regex;
use spanloom_model::{SpanKind, Status};

/// Where an attribute is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `.x`: the span, then its resource.
    Any,
    /// `span.x`
    Span,
    /// `resource.x`
    Resource,
    /// `event.x`: some event.
    Event,
    /// `link.x`: some link.
    Link,
    /// `instrumentation.x`
    Instrumentation,
}

/// What every span has without being an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is explained by its name in the language
pub enum Intrinsic {
    Name,
    Status,
    StatusMessage,
    Kind,
    Duration,
    ChildCount,
    RootName,
    RootServiceName,
    TraceDuration,
    TraceId,
    SpanId,
    ParentId,
    EventName,
    EventTimeSinceStart,
    LinkTraceId,
    LinkSpanId,
    InstrumentationName,
    InstrumentationVersion,
    NestedSetLeft,
    NestedSetRight,
    NestedSetParent,
}

impl Intrinsic {
    /// All, under the names of the language; the first name of each is the one
    /// that answers use.
    pub const NAMES: [(&str, Self); 34] = [
        ("name", Self::Name),
        ("status", Self::Status),
        ("statusMessage", Self::StatusMessage),
        ("kind", Self::Kind),
        ("duration", Self::Duration),
        ("childCount", Self::ChildCount),
        ("rootName", Self::RootName),
        ("rootServiceName", Self::RootServiceName),
        ("traceDuration", Self::TraceDuration),
        ("trace:id", Self::TraceId),
        ("span:id", Self::SpanId),
        ("span:parentID", Self::ParentId),
        ("event:name", Self::EventName),
        ("event:timeSinceStart", Self::EventTimeSinceStart),
        ("link:traceID", Self::LinkTraceId),
        ("link:spanID", Self::LinkSpanId),
        ("instrumentation:name", Self::InstrumentationName),
        ("instrumentation:version", Self::InstrumentationVersion),
        ("nestedSetLeft", Self::NestedSetLeft),
        ("nestedSetRight", Self::NestedSetRight),
        ("nestedSetParent", Self::NestedSetParent),
        ("span:name", Self::Name),
        ("span:status", Self::Status),
        ("span:statusMessage", Self::StatusMessage),
        ("span:kind", Self::Kind),
        ("span:duration", Self::Duration),
        ("span:childCount", Self::ChildCount),
        ("span:nestedSetLeft", Self::NestedSetLeft),
        ("span:nestedSetRight", Self::NestedSetRight),
        ("span:nestedSetParent", Self::NestedSetParent),
        ("trace:rootName", Self::RootName),
        ("trace:rootService", Self::RootServiceName),
        ("trace:duration", Self::TraceDuration),
        // Older spelling of Tempo's tag names.
        ("rootService", Self::RootServiceName),
    ];

    /// From a name of the language.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, i)| *i)
    }

    /// The name that answers use.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, i)| *i == self).map_or("", |(n, _)| *n)
    }
}

/// A value that stands in the query.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Literal {
    Nil,
    Int(i64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    Str(String),
    Bool(bool),
    Status(Status),
    Kind(SpanKind),
}

/// Operators between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    And,
    Or,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
}

/// An expression on one span.
#[derive(Clone, Debug)]
pub enum Field {
    /// A constant.
    Literal(Literal),
    /// An attribute.
    Attr(Scope, String),
    /// An intrinsic.
    Intrinsic(Intrinsic),
    /// `!x`
    Not(Box<Field>),
    /// `-x`
    Minus(Box<Field>),
    /// `x op y`
    Binary(Op, Box<Field>, Box<Field>),
    /// `x =~ "…"`, or `!~` if it must not match.
    Match {
        /// What is matched.
        field: Box<Field>,
        /// The pattern, for all of the text.
        pattern: Regex,
        /// `=~` rather than `!~`.
        wanted: bool,
    },
    /// The value printed as text is this: a tag of the older search.
    Text(Box<Field>, String),
}

/// How two spansets are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `>`: the right span's parent is on the left.
    Child,
    /// `>>`: some ancestor is on the left.
    Descendant,
    /// `<`: a child is on the left.
    Parent,
    /// `<<`: some descendant is on the left.
    Ancestor,
    /// `~`: another child of its parent is on the left.
    Sibling,
}

/// What a structural operator gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// Spans on the right that are related.
    Right,
    /// Spans on the right that are not (`!>>`).
    Unrelated,
    /// Related spans of both sides (`&>>`).
    Both,
}

/// Spans of one trace.
#[derive(Clone, Debug)]
pub enum Spanset {
    /// `{ … }`
    Filter(Field),
    /// `x && y`
    And(Box<Spanset>, Box<Spanset>),
    /// `x || y`
    Or(Box<Spanset>, Box<Spanset>),
    /// `x >> y` and its kin.
    Structure(Relation, Gives, Box<Spanset>, Box<Spanset>),
    /// `( … | … )`
    Pipeline(Box<Pipeline>),
}

/// Aggregates of a spanset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Aggregate {
    Count,
    Avg,
    Min,
    Max,
    Sum,
}

/// One step of a pipeline.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Spans of each spanset that are in this one.
    Spanset(Spanset),
    /// `by(x)`: one spanset for each value.
    By(Field),
    /// `coalesce()`: one spanset of all.
    Coalesce,
    /// `select(x, …)`: attributes to be shown.
    Select(Vec<Field>),
    /// `avg(x) > 1`: spansets for which it holds.
    Aggregate {
        /// Which figure.
        what: Aggregate,
        /// Of what; nothing for a count.
        of: Option<Field>,
        /// A comparison.
        op: Op,
        /// With what.
        with: Field,
    },
}

/// Steps, one after another.
#[derive(Clone, Debug)]
pub struct Pipeline(pub Vec<Stage>);
