//! Calls between services as the APIs show them. The rules by which they are
//! found are [`spanloom_model::Links`]'.

use spanloom_model::Dependency;

/// An edge of Jaeger's system architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge<'a> {
    /// Caller.
    pub parent: &'a str,
    /// Callee.
    pub child: &'a str,
    /// Calls.
    pub calls: u64,
}

/// Jaeger's view: also calls that only the services of parent and child tell
/// of; only the edges of one service if it is not empty.
pub fn jaeger<'a>(found: &'a [Dependency], service: &str) -> Vec<Edge<'a>> {
    found
        .iter()
        .filter(|d| service.is_empty() || d.parent == service || d.child == service)
        .map(|d| Edge { parent: &d.parent, child: &d.child, calls: d.calls.saturating_add(d.implied) })
        .filter(|e| e.calls > 0)
        .collect()
}

/// Zipkin's view: names in lower case, calls that differ only in case summed.
pub fn zipkin(found: &[Dependency]) -> Vec<Dependency> {
    let mut sums = std::collections::BTreeMap::<(String, String), (u64, u64)>::new();
    for d in found.iter().filter(|d| d.calls > 0) {
        let sum = sums.entry((d.parent.to_lowercase(), d.child.to_lowercase())).or_default();
        sum.0 = sum.0.saturating_add(d.calls);
        sum.1 = sum.1.saturating_add(d.errors);
    }
    sums.into_iter()
        .map(|((parent, child), (calls, errors))| Dependency { parent, child, calls, errors, implied: 0 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(parent: &str, child: &str, calls: u64, implied: u64) -> Dependency {
        Dependency { parent: parent.into(), child: child.into(), calls, errors: 1.min(calls), implied }
    }

    #[test]
    fn jaeger_counts_implied_calls_and_zipkin_does_not() {
        let all = [found("A", "b", 2, 1), found("a", "b", 1, 0), found("b", "c", 0, 3)];
        let jaeger: Vec<_> = jaeger(&all, "b").into_iter().map(|e| (e.parent, e.child, e.calls)).collect();
        assert_eq!(jaeger, [("A", "b", 3), ("a", "b", 1), ("b", "c", 3)]);
        let zipkin = zipkin(&all);
        assert_eq!(zipkin.len(), 1);
        assert_eq!((zipkin[0].parent.as_str(), zipkin[0].calls, zipkin[0].errors), ("a", 3, 2));
    }
}
