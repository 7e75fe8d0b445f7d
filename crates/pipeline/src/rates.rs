//! Sampling rates on their way from the samplers back to the tracers, as the
//! bytes that the Datadog receiver answers with.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The rates that tracers are told now. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub struct Rates {
    inner: Arc<RwLock<State>>,
}

#[derive(Default)]
struct State {
    rates: BTreeMap<String, f64>,
    updates: u64,
    now: Arc<RatesSnapshot>,
}

/// The rates at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RatesSnapshot {
    /// `{"rate_by_service":{…}}` and a newline, keys sorted.
    pub body: Bytes,
    /// Changes exactly when a rate or a key changes; empty before the first
    /// update.
    pub version: String,
}

impl Default for RatesSnapshot {
    fn default() -> Self {
        Self { body: Bytes::from_static(b"{\"rate_by_service\":{}}\n"), version: String::new() }
    }
}

impl Rates {
    /// Rates that say "send everything" for good: what a system that keeps
    /// every trace tells its tracers.
    pub fn keep_everything(now: i64) -> Self {
        let rates = Self::default();
        rates.publish(BTreeMap::from([("service:,env:".into(), 1.0)]), now);
        rates
    }

    /// Replaces the rates. Keys are `service:<name>,env:<env>`; the values are
    /// brought into 0..=1. `now` (nanoseconds) becomes part of the version.
    /// Nothing changes if the rates are the same.
    pub fn publish(&self, rates: BTreeMap<String, f64>, now: i64) {
        let mut state = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if state.updates > 0 && state.rates == rates {
            return;
        }
        state.updates += 1;
        let mut body = String::from("{\"rate_by_service\":{");
        for (i, (key, rate)) in rates.iter().enumerate() {
            if i > 0 {
                body.push(',');
            }
            push_json_string(&mut body, key);
            body.push(':');
            push_number(&mut body, *rate);
        }
        body.push_str("}}\n");
        state.now = Arc::new(RatesSnapshot {
            body: body.into(),
            version: format!("{:x}-{:x}", now.div_euclid(1_000_000_000), state.updates),
        });
        state.rates = rates;
    }

    /// The rate of a service in an environment; without one of its own, the
    /// highest that it has anywhere, else the default, else 1.
    pub fn of(&self, service: &str, env: &str) -> f64 {
        let state = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let prefix = format!("service:{service},env:");
        let own = state.rates.get(&format!("{prefix}{env}")).copied();
        let anywhere = || {
            let own = state.rates.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
            own.map(|(_, rate)| *rate).reduce(f64::max)
        };
        let default = || state.rates.get("service:,env:").copied();
        let rate = own.or_else(anywhere).or_else(default).unwrap_or(1.0);
        if rate.is_finite() { rate.clamp(0.0, 1.0) } else { 1.0 }
    }

    /// The rates now.
    pub fn snapshot(&self) -> Arc<RatesSnapshot> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner).now)
    }
}

/// Go's `encoding/json`: HTML characters escaped.
fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Shortest notation; exponents below 1e-6, as Go writes them.
fn push_number(out: &mut String, rate: f64) {
    let rate = if rate.is_finite() { rate.clamp(0.0, 1.0) } else { 1.0 };
    if rate != 0.0 && rate < 1e-6 {
        out.push_str(&format!("{rate:e}"))
    } else {
        out.push_str(&rate.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_the_rate_of_its_environment_or_the_nearest() {
        let rates = Rates::default();
        assert_eq!(rates.of("web", "prod"), 1.0);
        let map = [("service:,env:", 0.1), ("service:web,env:a", 0.2), ("service:web,env:b", 0.3)];
        rates.publish(map.map(|(k, v)| (k.to_owned(), v)).into(), 0);
        assert_eq!(rates.of("web", "a"), 0.2);
        assert_eq!(rates.of("web", "c"), 0.3);
        assert_eq!(rates.of("webs", "a"), 0.1);
        assert_eq!(rates.of("we", "a"), 0.1);
    }

    #[test]
    fn the_version_changes_only_with_the_rates() {
        let rates = Rates::default();
        assert_eq!(rates.snapshot().version, "");
        assert_eq!(rates.snapshot().body, "{\"rate_by_service\":{}}\n");
        let mut map = BTreeMap::from([
            ("service:web,env:prod".to_owned(), 0.25),
            ("service:,env:".to_owned(), 1.0),
            ("service:a\"<b,env:".to_owned(), 0.000_000_12),
        ]);
        rates.publish(map.clone(), 255_000_000_000);
        let first = rates.snapshot();
        assert_eq!(first.version, "ff-1");
        assert_eq!(
            first.body,
            "{\"rate_by_service\":{\"service:,env:\":1,\"service:a\\\"\\u003cb,env:\":1.2e-7,\"service:web,env:prod\":0.25}}\n"
        );
        rates.publish(map.clone(), 300_000_000_000);
        assert_eq!(rates.snapshot(), first);
        map.insert("service:x,env:".into(), f64::NAN);
        rates.publish(map, 256_000_000_000);
        assert_eq!(rates.snapshot().version, "100-2");
    }
}
