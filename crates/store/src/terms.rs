//! What a record must contain for a condition to be met in it: a cheap look at
//! its texts decides for most records that they need not be read.

use spanloom_model::{Cond, Expr, Literal, Op, is_intrinsic};

/// Texts that all must occur.
#[derive(Default)]
pub(crate) struct Terms {
    texts: Vec<memchr::memmem::Finder<'static>>,
}

impl Terms {
    /// The texts without which no span meets the condition.
    pub fn required(expr: &Expr) -> Self {
        let mut texts = Vec::new();
        collect(expr, &mut texts);
        texts.retain(|t| !t.is_empty());
        texts.sort_by_key(|t| std::cmp::Reverse(t.len()));
        texts.dedup();
        let finder = |t: &String| memchr::memmem::Finder::new(t.as_bytes()).into_owned();
        Self { texts: texts.iter().map(finder).collect() }
    }

    /// Whether all texts occur in these bytes.
    pub fn all_in(&self, bytes: &[u8]) -> bool {
        self.texts.iter().all(|t| t.find(bytes).is_some())
    }

    /// Whether the condition looks at attributes, events or links.
    pub fn needs_attributes(expr: &Expr) -> bool {
        match expr {
            Expr::True => false,
            Expr::And(parts) | Expr::Or(parts) => parts.iter().any(Self::needs_attributes),
            Expr::Not(part) => Self::needs_attributes(part),
            Expr::Is(cond) => {
                matches!(
                    cond,
                    Cond::Attr { .. } | Cond::HasAttr { .. } | Cond::EventName(_) | Cond::FullText(_)
                )
            }
        }
    }
}

fn collect(expr: &Expr, out: &mut Vec<String>) {
    match expr {
        Expr::And(parts) => parts.iter().for_each(|p| collect(p, out)),
        Expr::Is(cond) => one(cond, out),
        Expr::True | Expr::Or(_) | Expr::Not(_) => {}
    }
}

fn one(cond: &Cond, out: &mut Vec<String>) {
    match cond {
        // Without regard to case nothing is known about the bytes.
        Cond::Service { name, fold } | Cond::Name { name, fold } if !fold => out.push(name.clone()),
        Cond::Attr { key, op, value, .. } => {
            // Some keys are fields of the model and stand in no text.
            if !is_intrinsic(key) {
                out.push(key.clone());
            }
            if let (Op::Eq, Literal::Typed(text) | Literal::Str(text)) = (op, value)
                && (matches!(value, Literal::Str(_)) || !is_number_or_truth(text))
            {
                out.push(text.clone());
            }
        }
        Cond::HasAttr { key, .. } if !is_intrinsic(key) => out.push(key.clone()),
        Cond::EventName(name) => out.push(name.clone()),
        _ => {}
    }
}

fn is_number_or_truth(text: &str) -> bool {
    text.parse::<f64>().is_ok() || text.parse::<bool>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_model::AttrScope;

    fn tag(key: &str, value: &str) -> Expr {
        Expr::Is(Cond::Attr {
            scope: AttrScope::Any,
            key: key.into(),
            op: Op::Eq,
            value: Literal::Typed(value.into()),
        })
    }

    #[test]
    fn every_conjunct_must_be_there_but_numbers_may_be_numbers() {
        let expr = Expr::And(vec![
            Expr::Is(Cond::Service { name: "shop".into(), fold: false }),
            tag("user.id", "u-17"),
            tag("http.status_code", "500"),
        ]);
        let terms = Terms::required(&expr);
        assert!(terms.all_in(b"shopuser.idu-17http.status_code"));
        assert!(!terms.all_in(b"shopuser.idu-18http.status_code"));
        assert!(Terms::needs_attributes(&expr));
    }

    #[test]
    fn alternatives_and_negations_require_nothing() {
        let expr = Expr::Or(vec![tag("a", "b"), Expr::Not(Box::new(tag("c", "d")))]);
        assert!(Terms::required(&expr).all_in(b""));
        let folded = Expr::Is(Cond::Service { name: "Shop".into(), fold: true });
        assert!(Terms::required(&folded).all_in(b""));
    }
}
