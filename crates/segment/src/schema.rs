//! The columns of `spans.parquet`.

use crate::json::Type;
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::Type as Node;
use std::sync::Arc;

/// How the values of a column are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// 16-byte ids, sorted.
    Ids,
    /// 8-byte words that hardly repeat; never a dictionary.
    Noise,
    /// 8-byte words.
    Words,
    /// Texts.
    Texts,
}

/// What a column means to Parquet readers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Logical {
    Id,
    Unsigned,
    Timestamp,
    Int,
    Double,
    Text,
    Json,
}

/// One column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Column {
    pub name: String,
    pub shape: Shape,
    pub logical: Logical,
    pub optional: bool,
    /// Key and type of a promoted attribute.
    pub attr: Option<(String, Type)>,
}

pub(crate) const TRACE_ID: usize = 0;
pub(crate) const SPAN_ID: usize = 1;
pub(crate) const PARENT_ROW: usize = 2;
pub(crate) const PARENT_ID: usize = 3;
pub(crate) const START: usize = 4;
pub(crate) const DURATION: usize = 5;
pub(crate) const SERVICE: usize = 6;
pub(crate) const NAME: usize = 7;
pub(crate) const RESOURCE: usize = 8;
pub(crate) const TYPE: usize = 9;
pub(crate) const KIND: usize = 10;
pub(crate) const STATUS: usize = 11;
pub(crate) const ERROR: usize = 12;
pub(crate) const FLAGS: usize = 13;
pub(crate) const STATUS_MESSAGE: usize = 14;
pub(crate) const TRACE_STATE: usize = 15;
pub(crate) const ATTRIBUTES: usize = 16;
pub(crate) const LONG: usize = 17;
pub(crate) const EVENTS: usize = 18;
pub(crate) const LINKS: usize = 19;
pub(crate) const DROPPED: usize = 20;
pub(crate) const PROCESS: usize = 21;
pub(crate) const SCOPE: usize = 22;
pub(crate) const CHUNK: usize = 23;
/// Number of columns that every segment has; promoted ones follow.
pub(crate) const FIXED: usize = 24;

/// Most promoted columns that a merge makes: more only happens when inputs
/// have nothing in common.
pub(crate) const MAX_COLUMNS: usize = FIXED + 512;

/// The columns that every segment has.
pub(crate) fn fixed() -> Vec<Column> {
    use Logical as L;
    use Shape as S;
    let list: [(&str, Shape, Logical, bool); FIXED] = [
        ("trace_id", S::Ids, L::Id, false),
        ("span_id", S::Noise, L::Unsigned, false),
        ("parent_row", S::Words, L::Int, false),
        ("parent_id", S::Words, L::Unsigned, true),
        ("start", S::Noise, L::Timestamp, false),
        ("duration", S::Noise, L::Int, false),
        ("service", S::Texts, L::Text, false),
        ("name", S::Texts, L::Text, false),
        ("resource", S::Texts, L::Text, false),
        ("type", S::Texts, L::Text, false),
        ("kind", S::Texts, L::Text, false),
        ("status", S::Texts, L::Text, false),
        ("error", S::Words, L::Int, false),
        ("flags", S::Words, L::Unsigned, false),
        ("status_message", S::Texts, L::Text, false),
        ("trace_state", S::Texts, L::Text, false),
        ("attributes", S::Texts, L::Json, false),
        ("attributes_long", S::Texts, L::Json, true),
        ("events", S::Texts, L::Json, true),
        ("links", S::Texts, L::Json, true),
        ("dropped", S::Texts, L::Json, true),
        ("process", S::Texts, L::Json, false),
        ("scope", S::Texts, L::Json, true),
        ("chunk", S::Texts, L::Json, false),
    ];
    list.into_iter()
        .map(|(name, shape, logical, optional)| Column {
            name: name.to_owned(),
            shape,
            logical,
            optional,
            attr: None,
        })
        .collect()
}

/// The column of a promoted attribute.
pub(crate) fn promoted(key: &str, kind: Type) -> Column {
    let (shape, logical) = match kind {
        Type::Str => (Shape::Texts, Logical::Text),
        Type::Int => (Shape::Words, Logical::Int),
        Type::Double => (Shape::Words, Logical::Double),
        Type::Json => (Shape::Texts, Logical::Json),
    };
    let name = match kind {
        Type::Str => format!("attr.{key}"),
        other => format!("attr.{key}:{}", other.name()),
    };
    Column { name, shape, logical, optional: true, attr: Some((key.to_owned(), kind)) }
}

/// The Parquet schema of the columns.
pub(crate) fn parquet(columns: &[Column]) -> Result<Arc<Node>, ParquetError> {
    let fields = columns
        .iter()
        .map(|c| {
            let (physical, logical, length) = match c.logical {
                Logical::Id => (Physical::FIXED_LEN_BYTE_ARRAY, None, 16),
                Logical::Unsigned => (Physical::INT64, Some(LogicalType::integer(64, false)), -1),
                Logical::Timestamp => {
                    (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::NANOS)), -1)
                }
                Logical::Int => (Physical::INT64, None, -1),
                Logical::Double => (Physical::DOUBLE, None, -1),
                Logical::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String), -1),
                Logical::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json), -1),
            };
            let repetition = if c.optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
            Node::primitive_type_builder(&c.name, physical)
                .with_logical_type(logical)
                .with_repetition(repetition)
                .with_length(length)
                .build()
                .map(Arc::new)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Node::group_type_builder("span").with_fields(fields).build().map(Arc::new)
}
