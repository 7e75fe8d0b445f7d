//! What was decided about a trace: heard when a batch ends, told by `why`.

use super::tail::BY_HAND;
use crate::report::Gauge;
use serde_json::{Value as Json, json};
use spanloom_api::Problem;
use spanloom_decisions::{Answer, Decision, Decisions, Outcome, to};
use spanloom_holding::{Buffer, KeptHere};
use spanloom_model::{
    Batch, Chunk, Fate, Leaves, ROUTE_DEFAULT, ROUTE_NOWHERE, SpanReader, TimeRange, TraceId,
};
use spanloom_pipeline::{Clock, Recorder, Verdict};
use spanloom_store::{KeptByHand, Store};
use std::sync::Arc;

/// Rule of spans that no sampler was asked about.
const KEEP_ALL: &str = "keep_all";
/// Outcome of pieces that wait for the verdict on their trace.
const WAITS: &str = "waits";
/// Rule of spans that came a second time.
const SENT_AGAIN: &str = "sent_again";

/// Records what became of every chunk.
pub struct Settling {
    /// Where to.
    pub decisions: Arc<Decisions>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Whether there is a store, which takes everything.
    pub store: bool,
    /// Whether spans leave for Datadog.
    pub datadog: bool,
    /// Whether what leaves waits for the verdict on its trace.
    pub waits: bool,
}

impl Settling {
    /// Where a kept chunk goes, as bits.
    fn places(&self, chunk: &Chunk) -> u8 {
        let store = if self.store { to::STORE } else { 0 };
        let waits = if self.waits { to::WAITS } else { 0 };
        let leaves = match (chunk.route, chunk.sampled.leaves) {
            (ROUTE_NOWHERE, _) => 0,
            (ROUTE_DEFAULT, _) if !self.datadog => 0,
            (ROUTE_DEFAULT, Leaves::Whole) => to::DATADOG | waits,
            (ROUTE_DEFAULT, Leaves::Marked) => to::DATADOG_MARKED,
            (ROUTE_DEFAULT, Leaves::Nothing) => 0,
            _ => to::BACKENDS | waits,
        };
        store | leaves
    }
}

impl Recorder for Settling {
    fn settled(&self, batch: &Batch, verdict: Verdict) {
        let at = self.clock.now();
        self.decisions.record(batch.chunks.iter().map(|chunk| {
            let sampled = chunk.sampled;
            let (outcome, rule) = match (chunk.fate, verdict) {
                (Fate::Filtered(rule), _) => (Outcome::Filtered, rule),
                (Fate::Rejected(rule), _) => (Outcome::Rejected, rule),
                (Fate::Kept, Verdict::Refused(rule)) => (Outcome::Refused, rule),
                (Fate::Kept, Verdict::Lost(rule)) => (Outcome::Lost, rule),
                (Fate::Kept, Verdict::Delivered { .. }) => {
                    let all = if batch.intake.resent { SENT_AGAIN } else { KEEP_ALL };
                    let rule = if sampled.by.is_empty() { all } else { sampled.by };
                    let places = self.places(chunk);
                    let out = places == 0 && sampled.leaves == Leaves::Nothing;
                    (if out { Outcome::SampledOut } else { Outcome::Kept }, rule)
                }
            };
            let mut places = if outcome == Outcome::Kept { self.places(chunk) } else { 0 };
            if self.datadog && chunk.route == ROUTE_DEFAULT && !sampled.by.is_empty() {
                places |= to::ASKED;
            }
            Decision {
                trace_id: chunk.trace_id,
                at,
                outcome,
                to: places,
                rule,
                rate: sampled.rate as f32,
                spans: chunk.spans.len() as u32,
            }
        }));
    }
}

/// Answers `why`.
pub struct Why {
    /// The log of decisions.
    pub decisions: Arc<Decisions>,
    store: Option<Arc<Store>>,
    buffer: Option<Arc<Buffer>>,
    clock: Arc<dyn Clock>,
}

impl Why {
    /// From a log, a store, and the buffer of what waits to leave.
    pub fn new(
        decisions: Decisions,
        store: Option<Arc<Store>>,
        buffer: Option<Arc<Buffer>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { decisions: Arc::new(decisions), store, buffer, clock }
    }

    /// Keeps a trace whatever rules say, here and of what leaves.
    pub fn keep(&self, id: TraceId) -> Option<Result<Json, Problem>> {
        if self.store.is_none() && self.buffer.is_none() {
            return None;
        }
        Some(self.try_to_keep(id))
    }

    fn try_to_keep(&self, id: TraceId) -> Result<Json, Problem> {
        let (mut places, mut name, mut parts) = (0, "kept", Vec::new());
        let stored = self.store.as_ref().map(|s| s.keep(id)).transpose();
        match stored.map_err(|e| Problem::Store(e.to_string()))? {
            Some(KeptByHand::Undropped) => {
                (places, name) = (to::STORE, "undropped");
                parts.push("it had been dropped and is there again");
            }
            Some(KeptByHand::Kept) => {
                places = to::STORE;
                parts.push("it is there, and no rule drops it");
            }
            Some(KeptByHand::Missing) | None => {}
        }
        let leaving = self.buffer.as_ref().map(|b| b.keep(id)).transpose();
        match leaving.map_err(|e| Problem::Store(e.to_string()))? {
            Some(KeptHere::Waits) => {
                places |= to::DATADOG | to::BACKENDS;
                parts.push("what waits of it to leave will leave");
            }
            Some(KeptHere::Left) => parts.push("it has left already"),
            Some(KeptHere::Dropped) => {
                parts.push("it was decided before that it does not leave; pieces that still come will");
            }
            Some(KeptHere::Unknown) | None => {}
        }
        if parts.is_empty() {
            return Err(Problem::NotFound(format!(
                "trace {id} is not here (any more), so it cannot be kept; `why` tells what became of it"
            )));
        }
        if places != 0 {
            self.decisions.record([Decision {
                trace_id: id,
                at: self.clock.now(),
                outcome: Outcome::Undropped,
                to: places,
                rule: BY_HAND,
                rate: 0.0,
                spans: 0,
            }]);
            // Rare, and asked for by a person: not to be lost.
            self.decisions.flush();
        }
        let summary = format!("{id}: {}", parts.join("; "));
        Ok(json!({"traceId": id.to_string(), "outcome": name, "summary": summary}))
    }

    /// Everything that is known about what became of a trace.
    pub fn tell(&self, id: TraceId) -> Json {
        let found = self.decisions.find(id);
        let stats = self.decisions.stats();
        let stored = self.store.as_ref().map(|s| s.trace(id, TimeRange::ALL));
        let mut spans = None;
        let mut problem = None;
        match stored {
            Some(Ok(Some(trace))) => spans = Some(trace.spans.len()),
            Some(Err(e)) => problem = Some(format!("the store cannot be asked: {e}")),
            Some(Ok(None)) | None => {}
        }
        let mut rows: Vec<Json> = Vec::new();
        found.iter().for_each(|d| rows.extend(show(d)));
        let mut summary = summary(&found, spans, stats.oldest);
        let dropped = self.store.as_ref().is_some_and(|s| s.is_dropped(id).unwrap_or(false));
        if dropped && spans.is_none() {
            summary.push_str("; not removed yet: `spanloom keep` brings it back");
        }
        if let Some(problem) = problem {
            summary = format!("{summary}; {problem}");
        }
        let time = |t: Option<i64>| t.map(|t| t.to_string());
        json!({
            "traceId": id.to_string(),
            "summary": summary,
            "stored": spans.map(|n| json!({"spans": n})),
            "decisions": rows,
            "window": {"from": time(stats.oldest), "to": time(stats.newest)},
        })
    }
}

/// A decision as rows, one for each destination it was about.
fn show(d: &Answer) -> Vec<Json> {
    let row = |destination: &str, outcome: Outcome, rule: &str, rate: f64| {
        let mut row = json!({
            "at": d.at.to_string(), "outcome": outcome.name(), "rule": rule,
            "rate": null, "spans": d.spans, "chunks": d.chunks,
        });
        if rate > 0.0 {
            row["rate"] = rate.into();
        }
        if !destination.is_empty() {
            row["destination"] = destination.into();
        }
        row
    };
    match d.outcome {
        Outcome::Kept => {
            let mut rows = Vec::new();
            let asked = d.to & to::ASKED != 0;
            if d.to & to::STORE != 0 {
                // The samplers decide for Datadog; the store keeps what comes.
                rows.push(row("store", Outcome::Kept, if asked { KEEP_ALL } else { &d.rule }, 0.0));
            }
            if d.to & to::DATADOG != 0 {
                rows.push(row("datadog", Outcome::Kept, &d.rule, d.rate));
            } else if d.to & to::DATADOG_MARKED != 0 {
                rows.push(row("datadog, single spans", Outcome::Kept, &d.rule, d.rate));
            } else if asked {
                rows.push(row("datadog", Outcome::SampledOut, &d.rule, d.rate));
            }
            if d.to & to::BACKENDS != 0 {
                rows.push(row("backends", Outcome::Kept, &d.rule, d.rate));
            }
            if rows.is_empty() {
                rows.push(row("", Outcome::Kept, &d.rule, d.rate));
            }
            if d.to & to::WAITS != 0 {
                // Nobody has it yet.
                let leaving = |r: &&mut Json| r["destination"] != "store";
                rows.iter_mut().filter(leaving).for_each(|r| r["outcome"] = WAITS.into());
            }
            rows
        }
        Outcome::TailKept | Outcome::TailDropped | Outcome::Undropped => {
            let places = [(to::STORE, "store"), (to::DATADOG, "datadog"), (to::BACKENDS, "backends")];
            let places = places.iter().filter(|(bit, _)| d.to & bit != 0);
            places.map(|(_, name)| row(name, d.outcome, &d.rule, d.rate)).collect()
        }
        _ => vec![row("", d.outcome, &d.rule, d.rate)],
    }
}

/// Destinations besides the store.
const LEAVING: u8 = to::DATADOG | to::BACKENDS;

fn summary(found: &[Answer], spans: Option<usize>, oldest: Option<i64>) -> String {
    let stored = |n: usize| format!("kept: {n} span{} in the store", if n == 1 { "" } else { "s" });
    // Pieces that come late follow the verdict there is.
    let judged = found.iter().any(|d| d.outcome.is_of_trace() && d.to & LEAVING != 0);
    let still = |d: &&Answer| !(judged && d.outcome == Outcome::Kept && d.to & to::WAITS != 0);
    let Some(last) = found.iter().filter(still).max_by_key(|d| (d.at, d.outcome.is_of_trace())) else {
        return match (spans, oldest) {
            (Some(n), _) => format!("{}; what was decided about it is too long ago to be known", stored(n)),
            (None, Some(from)) => {
                format!("never arrived since {} (what is older is not known)", crate::ask::moment(from))
            }
            (None, None) => "never arrived: nothing has been decided about any trace yet".into(),
        };
    };
    let rate = if last.rate > 0.0 { format!(" at rate {}", last.rate) } else { String::new() };
    let by = format!("by {}{rate}, {}", last.rule, crate::ask::moment(last.at));
    let only_leaving = last.to & LEAVING != 0 && last.to & to::STORE == 0;
    match (spans, last.outcome) {
        (Some(n), Outcome::TailDropped) if only_leaving => format!("{}, not sent {by}", stored(n)),
        (Some(n), Outcome::TailKept) if only_leaving => format!("{}, sent {by}", stored(n)),
        (None, Outcome::TailKept) if only_leaving => format!("sent {by}"),
        (None, Outcome::Kept) if only_leaving && last.to & to::WAITS != 0 => {
            format!("waits for the tail rules since {}", crate::ask::moment(last.at))
        }
        (Some(n), Outcome::TailKept | Outcome::Undropped) => format!("{} {by}", stored(n)),
        (Some(n), Outcome::Kept) => {
            let unsent = last.to & to::ASKED != 0 && last.to & (to::DATADOG | to::DATADOG_MARKED) == 0;
            if unsent {
                format!("{}, not sent to Datadog {by}", stored(n))
            } else {
                format!("{} {by}", stored(n))
            }
        }
        (Some(n), outcome) => {
            format!(
                "{}; decided last, of a piece or before it came back: {} {by}",
                stored(n),
                outcome.name().replace('_', " ")
            )
        }
        (None, Outcome::TailDropped) => format!("dropped {by}"),
        (None, Outcome::Kept) if last.to & to::STORE != 0 => {
            format!("was kept {by}; it is not in the store any more (removed by age or size)")
        }
        (None, outcome) => format!("{} {by}", outcome.name().replace('_', " ")),
    }
}

/// Figures of the log for metrics and status.
pub fn figures(decisions: &Decisions, gauges: &mut Vec<Gauge>, notices: &mut Vec<String>) {
    let stats = decisions.stats();
    for (name, help, value, counter) in [
        ("decisions", "Decisions about traces that `why` can tell.", stats.rows, false),
        ("decisions_bytes", "Bytes of the same on disk.", stats.bytes, false),
        ("decisions_lost_total", "Decisions that could not be written.", stats.lost, true),
    ] {
        gauges.push(Gauge { name, label: None, help, value: value as f64, counter });
    }
    if let Some(text) = &stats.last_failure {
        notices.push(format!("the log of decisions: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_model::{Sampled, Span};

    struct Fixed(i64);
    impl Clock for Fixed {
        fn now(&self) -> i64 {
            self.0
        }
    }

    fn settling(store: bool, datadog: bool) -> (tempfile::TempDir, Why, Settling) {
        let dir = tempfile::tempdir().unwrap();
        let config =
            spanloom_decisions::Config { background: false, ..spanloom_decisions::Config::new(dir.path()) };
        let clock: Arc<dyn Clock> = Arc::new(Fixed(1_700_000_000_000_000_000));
        let why = Why::new(Decisions::open(config).unwrap().0, None, None, Arc::clone(&clock));
        let decisions = Arc::clone(&why.decisions);
        let settling = Settling { decisions, clock, store, datadog, waits: false };
        (dir, why, settling)
    }

    fn batch(edit: impl FnOnce(&mut spanloom_model::Chunk)) -> Batch {
        let span = Span { trace_id: TraceId(7), ..Span::default() };
        let mut batch = Batch { spans: vec![span; 3], ..Batch::default() };
        batch.chunk_by_trace(0, 0);
        edit(&mut batch.chunks[0]);
        batch
    }

    #[test]
    fn a_trace_that_the_sampler_dropped_is_kept_here_and_told_with_its_rate() {
        let (_dir, why, settling) = settling(true, true);
        let sampled = Sampled { keep: false, leaves: Leaves::Nothing, by: "auto_drop", rate: 0.25, at: 5 };
        settling.settled(&batch(|c| c.sampled = sampled), Verdict::Delivered { unsampled: true });
        let told = why.tell(TraceId(7));
        let rows = told["decisions"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((&rows[0]["destination"], &rows[0]["outcome"]), (&json!("store"), &json!("kept")));
        assert_eq!(rows[1]["outcome"], "sampled_out");
        assert_eq!((rows[1]["rule"].as_str(), rows[1]["rate"].as_f64()), (Some("auto_drop"), Some(0.25)));
        assert_eq!(rows[1]["at"], "1700000000000000000");
    }

    #[test]
    fn filtered_rejected_and_refused_traces_say_so() {
        let (_dir, why, settling) = settling(true, false);
        for (fate, verdict, outcome, rule) in [
            (
                Fate::Filtered("ignored_resource"),
                Verdict::Delivered { unsampled: true },
                "filtered",
                "ignored_resource",
            ),
            (
                Fate::Rejected("trace_id_zero"),
                Verdict::Delivered { unsampled: true },
                "rejected",
                "trace_id_zero",
            ),
            (Fate::Kept, Verdict::Refused("store_busy"), "refused", "store_busy"),
            (Fate::Kept, Verdict::Lost("shutdown"), "lost", "shutdown"),
        ] {
            settling.settled(&batch(|c| c.fate = fate), verdict);
            let told = why.tell(TraceId(7));
            let row =
                told["decisions"].as_array().unwrap().iter().find(|r| r["rule"] == rule).unwrap().clone();
            assert_eq!(row["outcome"], outcome);
        }
    }

    #[test]
    fn a_trace_that_never_arrived_is_told_with_the_window() {
        let (_dir, why, settling) = settling(true, false);
        assert!(why.tell(TraceId(9))["summary"].as_str().unwrap().starts_with("never arrived"));
        settling.settled(&batch(|_| {}), Verdict::Delivered { unsampled: true });
        let told = why.tell(TraceId(9));
        assert_eq!(told["decisions"], json!([]));
        assert_eq!(told["window"]["from"], "1700000000000000000");
        assert_eq!(
            told["summary"],
            "never arrived since 2023-11-14 22:13:20.000 (what is older is not known)"
        );
    }

    #[test]
    fn an_agent_without_store_says_sampled_out() {
        let (_dir, why, settling) = settling(false, true);
        let sampled = Sampled { leaves: Leaves::Nothing, by: "no_priority", rate: 0.5, ..Sampled::default() };
        settling.settled(&batch(|c| c.sampled = sampled), Verdict::Delivered { unsampled: false });
        assert_eq!(
            why.tell(TraceId(7))["summary"],
            "sampled out by no_priority at rate 0.5, 2023-11-14 22:13:20.000"
        );
    }
}
