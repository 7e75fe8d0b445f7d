//! The value of an expression on one span of a trace.

use super::ast::{Field, Intrinsic, Literal, Op, Scope};
use crate::trace::Tree;
use spanloom_model::{Batch, Resource, Span, SpanKind, Status, Value, flags, keys};
use std::borrow::Cow;
use std::cmp::Ordering;

/// A value of a span.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Val<'a> {
    /// It is not there.
    Nil,
    Int(i64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    Str(Cow<'a, str>),
    Bool(bool),
    Status(Status),
    Kind(SpanKind),
}

impl Val<'_> {
    fn number(&self) -> Option<f64> {
        match *self {
            Self::Int(n) | Self::Duration(n) => Some(n as f64),
            Self::Float(n) => Some(n),
            _ => None,
        }
    }

    /// As Tempo prints it.
    pub fn text(&self) -> String {
        match self {
            Self::Nil => "nil".into(),
            Self::Int(n) => n.to_string(),
            Self::Float(n) => n.to_string(),
            Self::Duration(n) => format!("{n}ns"),
            Self::Str(s) => s.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::Status(Status::Ok) => "ok".into(),
            Self::Status(Status::Error) => "error".into(),
            Self::Status(Status::Unset) => "unset".into(),
            Self::Kind(SpanKind::Unspecified) => "unspecified".into(),
            Self::Kind(kind) => kind.name().into(),
        }
    }
}

/// A whole trace, ready to be asked about its spans by their position.
pub struct View<'a> {
    pub(super) batch: &'a Batch,
    pub(super) tree: Tree,
    resources: Vec<Option<&'a Resource>>,
    root: Option<usize>,
    start: i64,
    end: i64,
    /// Left and right number of each span in a walk through the tree.
    nested: Vec<(i64, i64)>,
}

impl<'a> View<'a> {
    /// Looks at a trace: the batch holds its spans and no other's.
    pub fn new(batch: &'a Batch) -> Self {
        let tree = Tree::new(batch);
        let mut resources = vec![None; batch.spans.len()];
        for chunk in &batch.chunks {
            for at in chunk.spans.usize() {
                if let Some(place) = resources.get_mut(at) {
                    *place = batch.resources.get(chunk.resource as usize);
                }
            }
        }
        let timed = || batch.spans.iter().filter(|s| s.flags & flags::NO_START == 0);
        let root = tree.roots.iter().copied().filter(|at| batch.spans[*at].parent_id.is_zero());
        let root = root.min_by_key(|at| batch.spans[*at].flags & flags::NO_START != 0);
        let nested = nest(&tree);
        Self {
            batch,
            resources,
            root,
            start: timed().map(|s| s.start).min().unwrap_or(0),
            end: timed().map(Span::end).max().unwrap_or(0),
            nested,
            tree,
        }
    }

    /// Number of spans.
    pub fn len(&self) -> usize {
        self.batch.spans.len()
    }

    /// Whether there is no span.
    pub fn is_empty(&self) -> bool {
        self.batch.spans.is_empty()
    }

    /// Position of the root, if it arrived.
    pub fn root(&self) -> Option<usize> {
        self.root
    }

    /// Earliest start and latest end, nanoseconds.
    pub fn times(&self) -> (i64, i64) {
        (self.start, self.end)
    }

    /// Whether the condition holds on the span at a position.
    pub(super) fn holds(&self, at: usize, field: &Field) -> bool {
        self.each(at, field, &mut |v| matches!(v, Val::Bool(true)))
    }

    /// The first value of an expression.
    pub fn value(&self, at: usize, field: &Field) -> Val<'a> {
        let mut found = Val::Nil;
        self.each(at, field, &mut |v| {
            found = v.clone();
            true
        });
        found
    }

    /// Calls `f` with each value of an expression until it says yes; events and
    /// links have several. What is not there is nil.
    pub fn each(&self, at: usize, field: &Field, f: &mut dyn FnMut(&Val<'a>) -> bool) -> bool {
        match field {
            Field::Literal(literal) => f(&constant(literal)),
            Field::Attr(scope, name) => self.attribute(at, *scope, name, f),
            Field::Intrinsic(intrinsic) => self.intrinsic(at, *intrinsic, f),
            Field::Not(inner) => self.each(at, inner, &mut |v| match v {
                Val::Bool(b) => f(&Val::Bool(!b)),
                _ => f(&Val::Nil),
            }),
            Field::Minus(inner) => self.each(at, inner, &mut |v| match v {
                Val::Int(n) => f(&Val::Int(n.saturating_neg())),
                Val::Duration(n) => f(&Val::Duration(n.saturating_neg())),
                Val::Float(n) => f(&Val::Float(-n)),
                _ => f(&Val::Nil),
            }),
            Field::Match { field, pattern, wanted } => {
                let matches = |v: &Val<'_>| matches!(v, Val::Str(s) if pattern.is_match(s) == *wanted);
                let found = self.each(at, field, &mut |v| matches(v));
                f(&Val::Bool(found))
            }
            Field::Text(field, text) => {
                let found = self.each(at, field, &mut |v| *v != Val::Nil && v.text() == *text);
                f(&Val::Bool(found))
            }
            Field::Binary(Op::And, a, b) => f(&Val::Bool(self.holds(at, a) && self.holds(at, b))),
            Field::Binary(Op::Or, a, b) => f(&Val::Bool(self.holds(at, a) || self.holds(at, b))),
            Field::Binary(op @ (Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Mod | Op::Pow), a, b) => {
                f(&arithmetic(*op, &self.value(at, a), &self.value(at, b)))
            }
            Field::Binary(op, a, b) => f(&Val::Bool(self.compare(at, *op, a, b))),
        }
    }

    fn compare(&self, at: usize, op: Op, a: &Field, b: &Field) -> bool {
        // Nil is asked for by name; otherwise what is not there compares as false.
        let nil = |f: &Field| matches!(f, Field::Literal(Literal::Nil));
        if nil(a) || nil(b) {
            let other = if nil(b) { a } else { b };
            let there = self.each(at, other, &mut |v| *v != Val::Nil);
            return there == (op == Op::Ne);
        }
        self.each(at, a, &mut |left| self.each(at, b, &mut |right| compare(op, left, right)))
    }

    fn attribute(&self, at: usize, scope: Scope, name: &str, f: &mut dyn FnMut(&Val<'a>) -> bool) -> bool {
        let span = &self.batch.spans[at];
        let one = |v: Option<Val<'a>>| v.unwrap_or(Val::Nil);
        let attrs = |range| self.batch.get(range, name).and_then(|v| self.shown(v));
        match scope {
            Scope::Any => f(&one(self.of_span(span, name).or_else(|| self.of_resource(at, name)))),
            Scope::Span => f(&one(self.of_span(span, name))),
            Scope::Resource => f(&one(self.of_resource(at, name))),
            Scope::Instrumentation => {
                let scope = self.batch.scopes.get(span.scope as usize);
                f(&one(scope.and_then(|s| attrs(s.attrs))))
            }
            Scope::Event => {
                let mut found = self.batch.span_events(span).iter().filter_map(|e| attrs(e.attrs)).peekable();
                if found.peek().is_none() { f(&Val::Nil) } else { found.any(|v| f(&v)) }
            }
            Scope::Link => {
                let mut found = self.batch.span_links(span).iter().filter_map(|l| attrs(l.attrs)).peekable();
                if found.peek().is_none() { f(&Val::Nil) } else { found.any(|v| f(&v)) }
            }
        }
    }

    fn of_span(&self, span: &Span, name: &str) -> Option<Val<'a>> {
        let field = match name {
            keys::RESOURCE_NAME => span.resource,
            keys::SPAN_TYPE => span.span_type,
            _ => Default::default(),
        };
        let attr = || self.batch.get(span.attrs, name).and_then(|v| self.shown(v));
        text(self.batch.str(field)).or_else(attr)
    }

    fn of_resource(&self, at: usize, name: &str) -> Option<Val<'a>> {
        if name == keys::SERVICE_NAME {
            return text(self.batch.str(self.batch.spans[at].service));
        }
        let resource = self.resources[at]?;
        let attr = self.batch.get(resource.attrs, name).and_then(|v| self.shown(v));
        attr.or_else(|| resource.field(name).and_then(|t| text(self.batch.str(t))))
    }

    /// Scalars; lists, maps and bytes are not compared.
    fn shown(&self, value: Value) -> Option<Val<'a>> {
        Some(match value {
            Value::Str(t) => Val::Str(self.batch.str(t).into()),
            Value::Bool(b) => Val::Bool(b),
            Value::Int(n) => Val::Int(n),
            Value::Double(n) => Val::Float(n),
            Value::Empty | Value::Bytes(_) | Value::List(_) | Value::Map(_) => return None,
        })
    }

    fn intrinsic(&self, at: usize, which: Intrinsic, f: &mut dyn FnMut(&Val<'a>) -> bool) -> bool {
        let span = &self.batch.spans[at];
        let said = |t| Val::Str(self.batch.str(t).into());
        let root = |of: fn(&Span) -> spanloom_model::Text| {
            self.root.map_or(Val::Nil, |r| Val::Str(self.batch.str(of(&self.batch.spans[r])).into()))
        };
        let scope = || self.batch.scopes.get(span.scope as usize);
        let timed = span.flags & flags::NO_DURATION == 0;
        let value = match which {
            Intrinsic::Name => said(span.name),
            Intrinsic::Status if span.is_error() => Val::Status(Status::Error),
            Intrinsic::Status => Val::Status(span.status),
            Intrinsic::StatusMessage => said(span.status_message),
            Intrinsic::Kind => Val::Kind(self.batch.role(span)),
            Intrinsic::Duration => {
                if timed {
                    Val::Duration(span.duration)
                } else {
                    Val::Nil
                }
            }
            Intrinsic::ChildCount => Val::Int(self.tree.nodes[at].children.len() as i64),
            Intrinsic::RootName => root(|s| s.name),
            Intrinsic::RootServiceName => root(|s| s.service),
            Intrinsic::TraceDuration => Val::Duration(self.end.saturating_sub(self.start)),
            Intrinsic::TraceId => Val::Str(span.trace_id.to_string().into()),
            Intrinsic::SpanId => Val::Str(span.span_id.to_string().into()),
            Intrinsic::ParentId if span.parent_id.is_zero() => Val::Nil,
            Intrinsic::ParentId => Val::Str(span.parent_id.to_string().into()),
            Intrinsic::InstrumentationName => scope().map_or(Val::Nil, |s| said(s.name)),
            Intrinsic::InstrumentationVersion => scope().map_or(Val::Nil, |s| said(s.version)),
            Intrinsic::NestedSetLeft => Val::Int(self.nested[at].0),
            Intrinsic::NestedSetRight => Val::Int(self.nested[at].1),
            // Roots are looked for by a number below 0.
            Intrinsic::NestedSetParent => Val::Int(match self.tree.nodes[at].parent {
                Some(parent) => self.nested[parent].0,
                None if span.parent_id.is_zero() => -1,
                None => 0,
            }),
            Intrinsic::EventName | Intrinsic::EventTimeSinceStart => {
                let events = self.batch.span_events(span);
                return events.iter().any(|e| {
                    f(&match which {
                        Intrinsic::EventName => said(e.name),
                        _ => {
                            let time = i64::try_from(e.time).unwrap_or(i64::MAX);
                            Val::Duration(time.saturating_sub(span.start))
                        }
                    })
                }) || events.is_empty() && f(&Val::Nil);
            }
            Intrinsic::LinkTraceId | Intrinsic::LinkSpanId => {
                let links = self.batch.span_links(span);
                return links.iter().any(|l| {
                    let id = if which == Intrinsic::LinkTraceId {
                        l.trace_id.to_string()
                    } else {
                        l.span_id.to_string()
                    };
                    f(&Val::Str(id.into()))
                }) || links.is_empty() && f(&Val::Nil);
            }
        };
        f(&value)
    }

    /// The span at a position, which must be below [`View::len`].
    pub fn span(&self, at: usize) -> &'a Span {
        &self.batch.spans[at]
    }

    /// For each span its service and whether it failed.
    pub fn services(&self) -> impl Iterator<Item = (String, bool)> {
        self.batch.spans.iter().map(|s| (self.batch.str(s.service).to_owned(), s.is_error()))
    }

    /// Calls `f` with the keys of attributes inside of spans: of events, links
    /// and scopes, by the name of the TraceQL scope.
    pub fn inner_keys(&self, f: &mut dyn FnMut(&'static str, &'a str)) {
        let mut all = |scope, range| {
            for attr in self.batch.attrs(range) {
                f(scope, self.batch.str(attr.key));
            }
        };
        for span in &self.batch.spans {
            self.batch.span_events(span).iter().for_each(|e| all("event", e.attrs));
            self.batch.span_links(span).iter().for_each(|l| all("link", l.attrs));
        }
        self.batch.scopes.iter().for_each(|s| all("instrumentation", s.attrs));
    }
}

fn text(s: &str) -> Option<Val<'_>> {
    (!s.is_empty()).then(|| Val::Str(s.into()))
}

fn nest(tree: &Tree) -> Vec<(i64, i64)> {
    let mut out = vec![(0, 0); tree.nodes.len()];
    let mut next = 0;
    for root in &tree.roots {
        // (span, whether its children were numbered)
        let mut stack = vec![(*root, false)];
        while let Some((at, done)) = stack.pop() {
            next += 1;
            if done {
                out[at].1 = next;
                continue;
            }
            out[at].0 = next;
            stack.push((at, true));
            stack.extend(tree.nodes[at].children.iter().rev().map(|c| (*c, false)));
        }
    }
    out
}

/// The value of a literal.
pub(super) fn constant<'a>(literal: &Literal) -> Val<'a> {
    match literal {
        Literal::Nil => Val::Nil,
        Literal::Int(n) => Val::Int(*n),
        Literal::Float(n) => Val::Float(*n),
        Literal::Duration(n) => Val::Duration(*n),
        Literal::Str(s) => Val::Str(s.clone().into()),
        Literal::Bool(b) => Val::Bool(*b),
        Literal::Status(s) => Val::Status(*s),
        Literal::Kind(k) => Val::Kind(*k),
    }
}

/// The value of an expression without a span; `None` if it needs one.
pub(super) fn fold(field: &Field) -> Option<Val<'static>> {
    match field {
        Field::Literal(literal) => Some(constant(literal)),
        Field::Minus(inner) => Some(arithmetic(Op::Sub, &Val::Int(0), &fold(inner)?)),
        Field::Binary(op @ (Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Mod | Op::Pow), a, b) => {
            Some(arithmetic(*op, &fold(a)?, &fold(b)?))
        }
        _ => None,
    }
}

fn arithmetic(op: Op, a: &Val<'_>, b: &Val<'_>) -> Val<'static> {
    if let (Val::Int(x), Val::Int(y)) = (a, b) {
        let exact = match op {
            Op::Add => x.checked_add(*y),
            Op::Sub => x.checked_sub(*y),
            Op::Mul => x.checked_mul(*y),
            Op::Div => x.checked_div(*y),
            Op::Mod => x.checked_rem(*y),
            _ => u32::try_from(*y).ok().and_then(|y| x.checked_pow(y)),
        };
        if let Some(n) = exact {
            return Val::Int(n);
        }
    }
    let (Some(x), Some(y)) = (a.number(), b.number()) else { return Val::Nil };
    Val::Float(match op {
        Op::Add => x + y,
        Op::Sub => x - y,
        Op::Mul => x * y,
        Op::Div => x / y,
        Op::Mod => x % y,
        _ => x.powf(y),
    })
}

/// Compares two values; types that do not go together compare as false.
pub(super) fn compare(op: Op, a: &Val<'_>, b: &Val<'_>) -> bool {
    let ordering = match (a, b) {
        (Val::Nil, _) | (_, Val::Nil) => None,
        (Val::Int(x) | Val::Duration(x), Val::Int(y) | Val::Duration(y)) => Some(x.cmp(y)),
        (Val::Str(x), Val::Str(y)) => Some(x.cmp(y)),
        (Val::Bool(x), Val::Bool(y)) => Some(x.cmp(y)),
        (Val::Status(x), Val::Status(y)) => Some((*x as u8).cmp(&(*y as u8))),
        (Val::Kind(x), Val::Kind(y)) => Some(x.cmp(y)),
        _ => a.number().zip(b.number()).and_then(|(x, y)| x.partial_cmp(&y)),
    };
    let Some(ordering) = ordering else { return false };
    match op {
        Op::Eq => ordering == Ordering::Equal,
        Op::Ne => ordering != Ordering::Equal,
        Op::Lt => ordering == Ordering::Less,
        Op::Le => ordering != Ordering::Greater,
        Op::Gt => ordering == Ordering::Greater,
        Op::Ge => ordering != Ordering::Less,
        _ => false,
    }
}
