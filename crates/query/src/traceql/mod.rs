//! TraceQL, the query language of Grafana Tempo
//! (tempo:pkg/traceql/expr.y, lexer.go, ast_execute.go), as far as searches go.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Query`]: parse, narrow down, find; the tags of the older search |
//! | `lexer.rs`, `parser.rs`, `ast.rs` | text → words → tree |
//! | `check.rs` | types that go together |
//! | `necessary.rs` | what a store can look for |
//! | `eval.rs` | [`View`]: values of a span |
//! | `spansets.rs` | spansets, structure, pipelines |
//!
//! Understood: `{ … }` with all comparisons, arithmetic, regular expressions
//! and nil; attributes of all scopes and all intrinsics; `&&`, `||` and all
//! structural operators between spansets; `by`, `coalesce`, `select` and
//! filters by `count`, `avg`, `min`, `max`, `sum`; hints, which are ignored.
//! Not understood, and refused with a text: metrics (`rate()` …), `parent.`,
//! comparisons of two aggregates.

mod ast;
mod check;
mod eval;
mod lexer;
mod necessary;
mod parser;
mod spansets;

pub use ast::{Field, Intrinsic, Scope};
pub use eval::{Val, View};
pub use spansets::Group;

use crate::{Invalid, parse_go_duration};
use ast::{Literal, Op, Pipeline, Spanset, Stage};
use spanloom_model::Expr;

/// Why a text is not a query, and at which character (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mistake {
    text: String,
    at: usize,
}

/// A query that was understood.
#[derive(Clone, Debug)]
pub struct Query {
    pipeline: Pipeline,
    mentioned: Vec<Field>,
}

impl Query {
    /// Reads a query. The error is in Tempo's form.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        parser::parse(text).map(Self::new).map_err(|m| {
            Invalid(format!("invalid TraceQL query: parse error at line 1, col {}: {}", m.at, m.text))
        })
    }

    /// The older search: tags in logfmt (`service.name=shop http.method="GET"`)
    /// and bounds of the trace's duration as Go writes them; all may be empty.
    pub fn of_tags(tags: &str, min: &str, max: &str) -> Result<Self, Invalid> {
        let mut conditions = Vec::new();
        for (key, value) in logfmt(tags)? {
            let field = match key.as_str() {
                "root.service.name" => Field::Intrinsic(Intrinsic::RootServiceName),
                "root.name" => Field::Intrinsic(Intrinsic::RootName),
                "status.code" => Field::Intrinsic(Intrinsic::Status),
                "error" if value == "true" => {
                    let failed = Field::Literal(Literal::Status(spanloom_model::Status::Error));
                    let status = Field::Intrinsic(Intrinsic::Status);
                    conditions.push(Field::Binary(Op::Eq, Box::new(status), Box::new(failed)));
                    continue;
                }
                "name" | "status" | "kind" => Intrinsic::from_name(&key)
                    .map_or_else(|| Field::Attr(Scope::Any, key.clone()), Field::Intrinsic),
                _ => Field::Attr(Scope::Any, key),
            };
            conditions.push(Field::Text(Box::new(field), value));
        }
        let bound = |name: &str, text: &str| match text {
            "" => Ok(None),
            text => parse_go_duration(text).map(Some).map_err(|e| Invalid(format!("invalid {name}: {e}"))),
        };
        let (min, max) = (bound("minDuration", min)?, bound("maxDuration", max)?);
        if let (Some(min), Some(max)) = (min, max)
            && max <= min
        {
            return Err(Invalid("invalid maxDuration: must be greater than minDuration".into()));
        }
        for (op, bound) in [(Op::Ge, min), (Op::Le, max)] {
            if let Some(nanos) = bound {
                let whole = Field::Intrinsic(Intrinsic::TraceDuration);
                let nanos = Field::Literal(Literal::Duration(nanos));
                conditions.push(Field::Binary(op, Box::new(whole), Box::new(nanos)));
            }
        }
        let all = conditions.into_iter().reduce(|a, b| Field::Binary(Op::And, Box::new(a), Box::new(b)));
        let filter = all.unwrap_or(Field::Literal(Literal::Bool(true)));
        Ok(Self::new(Pipeline(vec![Stage::Spanset(Spanset::Filter(filter))])))
    }

    fn new(pipeline: Pipeline) -> Self {
        let mut mentioned = Vec::new();
        of_pipeline(&pipeline, &mut mentioned);
        Self { pipeline, mentioned }
    }

    /// Conditions of which each must be met by some span of a trace for
    /// [`Query::find`] to find anything in it; empty: any trace may do.
    pub fn necessary(&self) -> Vec<Expr> {
        necessary::of_pipeline(&self.pipeline)
    }

    /// The spansets of a trace; none if the query does not find it.
    pub fn find<'a>(&self, trace: &View<'a>) -> Vec<Group<'a>> {
        trace.run(&self.pipeline)
    }

    /// Attributes and intrinsics that the query mentions, each once: what
    /// answers show of the spans found.
    pub fn mentioned(&self) -> &[Field] {
        &self.mentioned
    }
}

/// An attribute or intrinsic as clients name a tag: `resource.service.name`,
/// `.x`, `status`. A name without scope is an attribute of any.
pub fn tag(name: &str) -> Field {
    if let Some(intrinsic) = Intrinsic::from_name(name) {
        return Field::Intrinsic(intrinsic);
    }
    let (scope, rest) = match name.split_once('.') {
        Some(("", rest)) => ("", rest),
        Some((scope @ ("span" | "resource" | "event" | "link" | "instrumentation"), rest)) => (scope, rest),
        _ => ("", name),
    };
    let bare = rest.strip_prefix('"').and_then(|r| r.strip_suffix('"')).unwrap_or(rest);
    parser::attribute(scope, bare.to_owned()).unwrap_or_else(|_| Field::Attr(Scope::Any, name.to_owned()))
}

/// How an answer names an expression.
pub fn label(field: &Field) -> String {
    match field {
        Field::Attr(scope, name) => match scope {
            Scope::Any => format!(".{name}"),
            Scope::Span => format!("span.{name}"),
            Scope::Resource => format!("resource.{name}"),
            Scope::Event => format!("event.{name}"),
            Scope::Link => format!("link.{name}"),
            Scope::Instrumentation => format!("instrumentation.{name}"),
        },
        Field::Intrinsic(intrinsic) => intrinsic.name().to_owned(),
        _ => "expression".to_owned(),
    }
}

fn of_pipeline(pipeline: &Pipeline, out: &mut Vec<Field>) {
    for stage in &pipeline.0 {
        match stage {
            Stage::Spanset(set) => of_spanset(set, out),
            Stage::By(field) => of_field(field, out),
            Stage::Select(fields) => fields.iter().for_each(|f| of_field(f, out)),
            Stage::Aggregate { of, .. } => of.iter().for_each(|f| of_field(f, out)),
            Stage::Coalesce => {}
        }
    }
}

fn of_spanset(set: &Spanset, out: &mut Vec<Field>) {
    match set {
        Spanset::Filter(field) => of_field(field, out),
        Spanset::And(a, b) | Spanset::Or(a, b) | Spanset::Structure(_, _, a, b) => {
            of_spanset(a, out);
            of_spanset(b, out);
        }
        Spanset::Pipeline(inner) => of_pipeline(inner, out),
    }
}

fn of_field(field: &Field, out: &mut Vec<Field>) {
    match field {
        Field::Literal(_) => {}
        Field::Attr(..) | Field::Intrinsic(_) => {
            let name = label(field);
            if out.iter().all(|known| label(known) != name) {
                out.push(field.clone());
            }
        }
        Field::Not(inner) | Field::Minus(inner) | Field::Text(inner, _) => of_field(inner, out),
        Field::Match { field, .. } => of_field(field, out),
        Field::Binary(_, a, b) => {
            of_field(a, out);
            of_field(b, out);
        }
    }
}

/// Most tags of the older search.
const MAX_TAGS: usize = 100;

/// Pairs of `key=value`, values with spaces in double quotes.
fn logfmt(text: &str) -> Result<Vec<(String, String)>, Invalid> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let wrong =
            |what: &str| Invalid(format!("invalid tags: {what} at pos {}", text.len() - rest.len() + 1));
        let Some((key, after)) =
            rest.split_once('=').filter(|(k, _)| !k.is_empty() && !k.contains([' ', '"']))
        else {
            return Err(wrong("expected key=value"));
        };
        let (value, after) = match after.strip_prefix('"') {
            None => after.split_at(after.find(' ').unwrap_or(after.len())),
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                let Some(end) = end else { return Err(wrong("a quote has no end")) };
                (&quoted[..end], &quoted[end + 1..])
            }
        };
        if out.iter().any(|(k, _)| k == key) {
            return Err(Invalid(format!("invalid tags: tag {key} has been set twice")));
        }
        if out.len() >= MAX_TAGS {
            return Err(Invalid(format!("invalid tags: more than {MAX_TAGS}")));
        }
        out.push((key.to_owned(), value.replace("\\\"", "\"").replace("\\\\", "\\")));
        rest = after.trim_start();
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
