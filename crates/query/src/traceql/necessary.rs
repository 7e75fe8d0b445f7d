//! What a trace must hold for a query to find something in it: conditions that
//! a store's indexes understand. Whatever they let through is looked at in
//! full, so they may be wider than the query, never narrower.

use super::ast::{Field, Gives, Intrinsic, Literal, Op, Pipeline, Scope, Spanset, Stage};
use crate::tags;
use spanloom_model::{AttrScope, Cond, Expr, Literal as Typed, Op as Compare, keys};

/// Conditions that each must be met by some span.
pub(super) fn of_pipeline(pipeline: &Pipeline) -> Vec<Expr> {
    let mut out = Vec::new();
    for stage in &pipeline.0 {
        if let Stage::Spanset(set) = stage {
            of_spanset(set, &mut out);
        }
    }
    out.retain(|e| *e != Expr::True);
    out.dedup();
    out
}

fn of_spanset(set: &Spanset, out: &mut Vec<Expr>) {
    match set {
        Spanset::Filter(field) => out.push(of_field(field)),
        Spanset::And(a, b) => {
            of_spanset(a, out);
            of_spanset(b, out);
        }
        Spanset::Or(a, b) => out.push(Expr::Or(vec![widest(a), widest(b)])),
        Spanset::Structure(_, Gives::Unrelated, _, right) => of_spanset(right, out),
        Spanset::Structure(_, _, left, right) => {
            of_spanset(left, out);
            of_spanset(right, out);
        }
        Spanset::Pipeline(inner) => out.extend(of_pipeline(inner)),
    }
}

/// One condition that some span meets if the spanset is not empty.
fn widest(set: &Spanset) -> Expr {
    let mut all = Vec::new();
    of_spanset(set, &mut all);
    // Different conditions may be met by different spans: any one will do.
    all.into_iter().find(|e| *e != Expr::True).unwrap_or(Expr::True)
}

/// A condition that follows from the field being true.
pub(super) fn of_field(field: &Field) -> Expr {
    match field {
        Field::Binary(Op::And, a, b) => Expr::all(vec![of_field(a), of_field(b)]),
        Field::Binary(Op::Or, a, b) => match (of_field(a), of_field(b)) {
            (Expr::True, _) | (_, Expr::True) => Expr::True,
            (a, b) => Expr::Or(vec![a, b]),
        },
        Field::Binary(op, a, b) => match (&**a, &**b) {
            (Field::Literal(literal), other) => of_comparison(other, flip(*op), literal),
            (other, Field::Literal(literal)) => of_comparison(other, *op, literal),
            _ => Expr::True,
        },
        Field::Match { field, .. } => match &**field {
            Field::Attr(scope, key) => has(*scope, key),
            _ => Expr::True,
        },
        Field::Attr(scope, key) => has(*scope, key),
        Field::Text(field, text) => match &**field {
            Field::Attr(scope, key) => {
                let value = Typed::Typed(text.clone());
                Expr::Is(Cond::Attr { scope: scope_of(*scope), key: key.clone(), op: Compare::Eq, value })
            }
            Field::Intrinsic(Intrinsic::Name) => Expr::Is(Cond::Name { name: text.clone(), fold: false }),
            _ => Expr::True,
        },
        _ => Expr::True,
    }
}

const fn flip(op: Op) -> Op {
    match op {
        Op::Lt => Op::Gt,
        Op::Le => Op::Ge,
        Op::Gt => Op::Lt,
        Op::Ge => Op::Le,
        other => other,
    }
}

const fn scope_of(scope: Scope) -> AttrScope {
    match scope {
        Scope::Any => AttrScope::SpanOrResource,
        Scope::Span => AttrScope::Span,
        Scope::Resource => AttrScope::Resource,
        Scope::Event => AttrScope::Event,
        Scope::Link => AttrScope::Link,
        Scope::Instrumentation => AttrScope::Scope,
    }
}

fn has(scope: Scope, key: &str) -> Expr {
    Expr::Is(Cond::HasAttr { scope: scope_of(scope), key: key.to_owned() })
}

fn of_comparison(field: &Field, op: Op, literal: &Literal) -> Expr {
    let comparison = match op {
        Op::Eq => Compare::Eq,
        Op::Ne => Compare::Ne,
        Op::Lt => Compare::Lt,
        Op::Le => Compare::Le,
        Op::Gt => Compare::Gt,
        Op::Ge => Compare::Ge,
        _ => return Expr::True,
    };
    match field {
        Field::Attr(scope, key) => {
            let value = match literal {
                Literal::Nil if op == Op::Ne => return has(*scope, key),
                Literal::Nil | Literal::Status(_) | Literal::Kind(_) => return Expr::True,
                Literal::Str(s) => Typed::Str(s.clone()),
                Literal::Bool(b) => Typed::Bool(*b),
                Literal::Int(n) | Literal::Duration(n) => Typed::Number(*n as f64),
                Literal::Float(n) => Typed::Number(*n),
            };
            if let (Scope::Resource, keys::SERVICE_NAME, Compare::Eq, Typed::Str(name)) =
                (scope, key.as_str(), comparison, &value)
            {
                return Expr::Is(Cond::Service { name: name.clone(), fold: false });
            }
            if matches!(value, Typed::Number(_)) && !matches!(comparison, Compare::Eq) {
                // Numbers beyond 2⁵³ are not exact here.
                return has(*scope, key);
            }
            Expr::Is(Cond::Attr { scope: scope_of(*scope), key: key.clone(), op: comparison, value })
        }
        Field::Intrinsic(intrinsic) => of_intrinsic(*intrinsic, op, literal),
        _ => Expr::True,
    }
}

fn of_intrinsic(intrinsic: Intrinsic, op: Op, literal: &Literal) -> Expr {
    match (intrinsic, op, literal) {
        (Intrinsic::Name, Op::Eq, Literal::Str(name)) => {
            Expr::Is(Cond::Name { name: name.clone(), fold: false })
        }
        (Intrinsic::Status, Op::Eq, Literal::Status(status)) => Expr::Is(Cond::Status(*status)),
        (Intrinsic::Kind, Op::Eq, Literal::Kind(kind)) => tags::of_kind(*kind),
        (Intrinsic::EventName, Op::Eq, Literal::Str(name)) => Expr::Is(Cond::EventName(name.clone())),
        (Intrinsic::Duration, _, Literal::Int(n) | Literal::Duration(n)) => {
            let (min, max) = match op {
                Op::Eq => (*n, *n),
                Op::Lt | Op::Le => (i64::MIN, *n),
                Op::Gt | Op::Ge => (*n, i64::MAX),
                _ => return Expr::True,
            };
            Expr::Is(Cond::Duration { min, max })
        }
        _ => Expr::True,
    }
}
