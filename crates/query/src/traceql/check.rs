//! Whether the types of an expression go together, so that a query that can
//! never match is refused rather than answered with nothing.

use super::ast::{Field, Intrinsic, Literal, Op, Scope};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// An attribute: whatever it is.
    Any,
    Nil,
    Number,
    Text,
    Bool,
    Status,
    Kind,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Any => "any type",
            Self::Nil => "nil",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Bool => "a truth value",
            Self::Status => "a status",
            Self::Kind => "a kind",
        }
    }

    fn is(self, wanted: Self) -> bool {
        self == Self::Any || self == wanted
    }
}

/// The expression says yes or no.
pub(super) fn condition(field: &Field) -> Result<(), String> {
    match type_of(field)? {
        Type::Any | Type::Bool => Ok(()),
        other => Err(format!("a condition is true or false, this is {}", other.name())),
    }
}

/// The expression is a number.
pub(super) fn number(field: &Field) -> Result<(), String> {
    let found = type_of(field)?;
    if found.is(Type::Number) { Ok(()) } else { Err(format!("a number is needed, this is {}", found.name())) }
}

/// The expression is a number and depends on the span.
pub(super) fn number_of_span(field: &Field) -> Result<(), String> {
    number(field)?;
    of_span(field)
}

/// The expression depends on the span.
pub(super) fn of_span(field: &Field) -> Result<(), String> {
    type_of(field)?;
    if depends(field) { Ok(()) } else { Err("the expression must mention something of the span".into()) }
}

fn depends(field: &Field) -> bool {
    match field {
        Field::Literal(_) => false,
        Field::Attr(..) | Field::Intrinsic(_) => true,
        Field::Not(inner) | Field::Minus(inner) | Field::Text(inner, _) => depends(inner),
        Field::Match { field, .. } => depends(field),
        Field::Binary(_, a, b) => depends(a) || depends(b),
    }
}

fn type_of(field: &Field) -> Result<Type, String> {
    let need = |field: &Field, wanted: Type| {
        let found = type_of(field)?;
        if found.is(wanted) {
            Ok(())
        } else {
            Err(format!("{} is needed, this is {}", wanted.name(), found.name()))
        }
    };
    Ok(match field {
        Field::Literal(literal) => match literal {
            Literal::Nil => Type::Nil,
            Literal::Int(_) | Literal::Float(_) | Literal::Duration(_) => Type::Number,
            Literal::Str(_) => Type::Text,
            Literal::Bool(_) => Type::Bool,
            Literal::Status(_) => Type::Status,
            Literal::Kind(_) => Type::Kind,
        },
        Field::Attr(..) => Type::Any,
        Field::Intrinsic(intrinsic) => match intrinsic {
            Intrinsic::Status => Type::Status,
            Intrinsic::Kind => Type::Kind,
            Intrinsic::Duration
            | Intrinsic::ChildCount
            | Intrinsic::TraceDuration
            | Intrinsic::EventTimeSinceStart
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent => Type::Number,
            _ => Type::Text,
        },
        Field::Not(inner) => {
            need(inner, Type::Bool)?;
            Type::Bool
        }
        Field::Minus(inner) => {
            need(inner, Type::Number)?;
            Type::Number
        }
        Field::Match { field, .. } => {
            need(field, Type::Text)?;
            Type::Bool
        }
        Field::Text(..) => Type::Bool,
        Field::Binary(op, a, b) => match op {
            Op::And | Op::Or => {
                need(a, Type::Bool)?;
                need(b, Type::Bool)?;
                Type::Bool
            }
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Mod | Op::Pow => {
                need(a, Type::Number)?;
                need(b, Type::Number)?;
                Type::Number
            }
            _ => compared(*op, a, b)?,
        },
    })
}

fn compared(op: Op, a: &Field, b: &Field) -> Result<Type, String> {
    let (left, right) = (type_of(a)?, type_of(b)?);
    let equality = matches!(op, Op::Eq | Op::Ne);
    if left == Type::Nil || right == Type::Nil {
        let always = |f: &Field| match f {
            Field::Intrinsic(_) => true,
            Field::Attr(Scope::Resource, name) => name == "service.name",
            _ => false,
        };
        if !equality || op == Op::Eq && (always(a) || always(b)) {
            return Err("only attributes can be nil, and nil is compared with = and !=".into());
        }
        return Ok(Type::Bool);
    }
    if left != Type::Any && right != Type::Any && left != right {
        return Err(format!("{} cannot be compared with {}", left.name(), right.name()));
    }
    let unordered = |t| matches!(t, Type::Status | Type::Kind | Type::Bool);
    if !equality && (unordered(left) || unordered(right)) {
        return Err("statuses, kinds and truth values are compared with = and != only".into());
    }
    Ok(Type::Bool)
}
