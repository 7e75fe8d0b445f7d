//! Rulings on traces that were judged lately, so that late pieces follow them
//! and the store need not judge again. A bounded memory: the oldest go first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Traces remembered: 9 MiB at most, two minutes of two thousand
/// traces a second.
pub(crate) const REMEMBERED: usize = 229_376;

/// What became of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Ruling {
    /// Whether it leaves.
    pub keep: bool,
    /// Rule that decided.
    pub rule: Arc<str>,
    /// Rate at which it decided; 0 when not rate-based.
    pub rate: f64,
    /// Spans that were judged.
    pub spans: u32,
}

/// How far a trace is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// It is being judged.
    Judging,
    /// It leaves.
    Keep,
    /// It does not.
    Drop,
}

#[derive(Clone, Copy)]
struct Known {
    rate: f32,
    spans: u32,
    rule: u16,
    state: State,
}

/// By the lower half of the trace id: some tracers send no more.
pub(crate) struct Verdicts {
    known: HashMap<u64, Known, foldhash::fast::RandomState>,
    order: VecDeque<u64>,
    rules: Vec<Arc<str>>,
    limit: usize,
}

impl Verdicts {
    pub fn new(limit: usize) -> Self {
        Self { known: HashMap::default(), order: VecDeque::new(), rules: Vec::new(), limit: limit.max(1) }
    }

    pub fn state(&self, trace: u64) -> Option<State> {
        self.known.get(&trace).map(|k| k.state)
    }

    /// Says that a trace is being judged.
    pub fn begin(&mut self, trace: u64) {
        self.put(trace, Known { rate: 0.0, spans: 0, rule: 0, state: State::Judging });
    }

    pub fn set(&mut self, trace: u64, ruling: &Ruling) {
        let rule = match self.rules.iter().position(|r| *r == ruling.rule) {
            Some(at) => at,
            None => {
                self.rules.push(Arc::clone(&ruling.rule));
                self.rules.len() - 1
            }
        };
        let state = if ruling.keep { State::Keep } else { State::Drop };
        let rule = u16::try_from(rule).unwrap_or(u16::MAX);
        self.put(trace, Known { rate: ruling.rate as f32, spans: ruling.spans, rule, state });
    }

    fn put(&mut self, trace: u64, known: Known) {
        if self.known.insert(trace, known).is_some() {
            return;
        }
        self.order.push_back(trace);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// The ruling on a trace, once there is one.
    pub fn ruling(&self, trace: u64) -> Option<Ruling> {
        let k = self.known.get(&trace)?;
        if k.state == State::Judging {
            return None;
        }
        let rule = self.rules.get(usize::from(k.rule)).cloned().unwrap_or_else(|| "".into());
        // The shortest number that is the same: 0.2 stays 0.2.
        let rate = k.rate.to_string().parse().unwrap_or(f64::from(k.rate));
        Some(Ruling { keep: k.state == State::Keep, rule, rate, spans: k.spans })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rulings_are_remembered_up_to_the_limit() {
        let mut verdicts = Verdicts::new(2);
        let ruling = |keep| Ruling { keep, rule: "rest".into(), rate: 0.2, spans: 3 };
        verdicts.begin(1);
        assert_eq!((verdicts.state(1), verdicts.ruling(1)), (Some(State::Judging), None));
        verdicts.set(1, &ruling(true));
        verdicts.set(2, &ruling(false));
        assert_eq!(verdicts.ruling(1), Some(ruling(true)));
        verdicts.set(3, &ruling(true));
        assert_eq!((verdicts.state(1), verdicts.state(2)), (None, Some(State::Drop)));
        assert_eq!(verdicts.known.len(), verdicts.order.len());
    }
}
