//! The rooms that decide about spans, as a processor of the pipeline. Order is
//! meaning: statistics count what the Agent's steps left over, and sampling
//! comes last, so that statistics see everything; a chunk goes through all of
//! it before the next one begins. What a policy sends elsewhere is neither
//! counted nor sampled for Datadog.

use super::foreign::{Foreign, hand_over};
use spanloom_exporters::{CountedRequest, Router, RoutingTable, StatsLog};
use spanloom_model::{Batch, Chunk, Leaves, ROUTE_DEFAULT};
use spanloom_obfuscator::Obfuscator;
use spanloom_pipeline::{ChainFactory, Effects, Processor, Rates};
use spanloom_processors::{Agent, AgentConfig, Counts, SpanObfuscator};
use spanloom_sampler::Samplers;
use spanloom_stats::{Concentrator, Delta, Tally};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the workers share.
#[derive(Clone)]
pub struct Shared {
    /// The Agent's steps.
    pub agent: AgentConfig,
    /// The obfuscator.
    pub obfuscator: Arc<Obfuscator>,
    /// Also scrub `db.statement` and `db.query.text`.
    pub statement_tags: bool,
    /// Statistics of spans.
    pub concentrator: Arc<Mutex<Concentrator>>,
    /// Makes them safe before clients are answered; none: they do not leave.
    pub log: Option<Arc<StatsLog>>,
    /// Statistics of spans that policies send elsewhere.
    pub routed: Arc<Mutex<Concentrator>>,
    /// Policies; none: nothing is routed.
    pub router: Option<Arc<Router>>,
    /// The samplers; none: nothing leaves for Datadog.
    pub samplers: Option<Arc<Mutex<Samplers>>>,
    /// Tells tracers the samplers' rates.
    pub feedback: Arc<Feedback>,
    /// Marks the first trace of each service; none: nothing to mark with.
    pub install: Option<Arc<Install>>,
    /// How spans of other protocols become Datadog's.
    pub foreign: Foreign,
}

/// Says how the Agent came to the machine, on the root of the first kept trace
/// of each service (`datadog-agent:pkg/trace/agent/agent.go`, `setFirstTraceTags`).
pub struct Install {
    tags: [(&'static str, String); 3],
    seen: Mutex<HashSet<String>>,
}

impl Install {
    /// Services remembered; beyond it no further ones are marked.
    const MAX_SERVICES: usize = 5000;

    /// With the installation's id, type and time in seconds; a time that is no
    /// number counts as 0, as in the Agent.
    pub fn new(id: &str, kind: &str, time: &str) -> Self {
        let time: i64 = time.trim().parse().unwrap_or(0);
        let tags = [
            ("_dd.install.id", id.into()),
            ("_dd.install.type", kind.into()),
            ("_dd.install.time", time.to_string()),
        ];
        Self { tags, seen: Mutex::default() }
    }

    fn mark(&self, batch: &mut Batch, c: usize) {
        let Some(root) = batch.chunk_root(&batch.chunks[c]) else { return };
        let service = batch.str(batch.spans[root].service);
        let mut seen = lock(&self.seen);
        if seen.len() >= Self::MAX_SERVICES || seen.contains(service) {
            return;
        }
        seen.insert(service.to_owned());
        for (key, value) in &self.tags {
            // A tracer may know better.
            if batch.get_text(batch.spans[root].attrs, key).is_none() {
                batch.set_str(root, key, value);
            }
        }
    }
}

/// The samplers' rates on their way to the receiver: published when they
/// change, not before there are any.
pub struct Feedback {
    rates: Rates,
    told: Mutex<Arc<BTreeMap<String, f64>>>,
}

impl Feedback {
    /// Tells `rates`.
    pub fn new(rates: Rates) -> Self {
        Self { rates, told: Mutex::default() }
    }

    /// Publishes what the samplers say now, if it is news.
    pub fn tell(&self, samplers: &Samplers, now: i64) {
        let news = samplers.rates();
        let mut told = lock(&self.told);
        if !news.is_empty() && !Arc::ptr_eq(&told, news) {
            *told = Arc::clone(news);
            self.rates.publish(BTreeMap::clone(news), now);
        }
    }
}

/// A lock that outlives a panic elsewhere: the pipeline rebuilds a worker's
/// chain after one, and what is shared stays consistent chunk by chunk.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The chain of each worker.
pub fn factory(shared: Shared) -> ChainFactory {
    Arc::new(move |_worker| {
        let mut scrubber = SpanObfuscator::new(Arc::clone(&shared.obfuscator), shared.statement_tags);
        let scrub: Scrub = Box::new(move |batch, span| scrubber.scrub(batch, span));
        vec![Box::new(AgentStep {
            agent: Agent::new(shared.agent.clone(), scrub),
            tally: lock(&shared.concentrator).tally(),
            concentrator: Arc::clone(&shared.concentrator),
            log: shared.log.clone(),
            routed: Arc::clone(&shared.routed),
            router: shared.router.clone(),
            samplers: shared.samplers.clone(),
            feedback: Arc::clone(&shared.feedback),
            install: shared.install.clone(),
            foreign: shared.foreign.clone(),
        })]
    })
}

/// Event of the ledger: spans that a policy selects and that are not sent.
const UNSENT: &str = "spans_not_sent_by_policy";

type Scrub = Box<dyn FnMut(&mut Batch, usize) + Send>;

/// What the Agent does to spans. Those of other protocols are stored as they
/// came: it works on their translation, which is counted, sampled and sent.
struct AgentStep {
    agent: Agent<Scrub>,
    /// What the concentrator is to count; looked at without its lock.
    tally: Tally,
    concentrator: Arc<Mutex<Concentrator>>,
    log: Option<Arc<StatsLog>>,
    routed: Arc<Mutex<Concentrator>>,
    router: Option<Arc<Router>>,
    samplers: Option<Arc<Mutex<Samplers>>>,
    feedback: Arc<Feedback>,
    install: Option<Arc<Install>>,
    foreign: Foreign,
}

impl Processor for AgentStep {
    fn process(&mut self, batch: &mut Batch, now: i64, fx: &mut Effects) {
        // One table for the whole batch: policies may change meanwhile.
        let table = self.router.as_ref().map(|r| r.table()).filter(|t| !t.is_empty());
        if batch.intake.protocol.is_datadog() {
            self.steps(batch, &[], Some(table.as_deref()), now, fx);
            return;
        }
        let Some(table) = table else { return self.foreign(batch, now, fx) };
        for c in 0..batch.chunks.len() {
            table.route(batch, c, |why, n| fx.note(UNSENT, why, n));
        }
        let unrouted = |c: &Chunk| c.route == ROUTE_DEFAULT;
        if batch.chunks.iter().all(unrouted) {
            return self.foreign(batch, now, fx);
        }
        // Only the others become Datadog's.
        let mut part = batch.part(unrouted);
        self.foreign(&mut part, now, fx);
        let mut done = part.chunks.iter();
        for c in 0..batch.chunks.len() {
            if batch.chunks[c].route != ROUTE_DEFAULT {
                continue;
            }
            let Some(chunk) = done.next() else { continue };
            batch.chunks[c].sampled = chunk.sampled;
            let range = batch.chunks[c].spans.usize();
            let own = batch.spans.get_mut(range).unwrap_or_default();
            own.iter_mut().zip(part.chunk_spans(chunk)).for_each(|(own, made)| own.flags = made.flags);
        }
        batch.for_datadog = part.for_datadog;
        let mut elsewhere = self.foreign.translate(&batch.part(|c| !unrouted(c)));
        self.steps(&mut elsewhere.batch, &elsewhere.computed_stats, None, now, fx);
    }
    fn settle(&mut self) {
        if let Some(log) = &self.log {
            log.write();
        }
    }
}

impl AgentStep {
    /// Spans of other protocols: counted, sampled and sent as translated.
    fn foreign(&mut self, batch: &mut Batch, now: i64, fx: &mut Effects) {
        let mut translation = self.foreign.translate(batch);
        self.steps(&mut translation.batch, &translation.computed_stats, Some(None), now, fx);
        hand_over(translation, batch, self.samplers.is_some(), fx);
    }

    /// `computed_stats`: for each resource, whether its client computed
    /// statistics itself; empty where the request says it for all. `table`:
    /// what routes the spans, if anything does; none if all of them go
    /// elsewhere and are counted for local answers only.
    fn steps(
        &mut self,
        batch: &mut Batch,
        computed_stats: &[bool],
        table: Option<Option<&RoutingTable>>,
        now: i64,
        fx: &mut Effects,
    ) {
        let mut counts = Counts::default();
        let resent = batch.intake.resent;
        let request =
            CountedRequest { fingerprint: batch.intake.fingerprint, received_at: batch.intake.received_at };
        let log = self.log.as_ref();
        // An earlier process has counted it; whether it had queued it for the
        // intake too is not known, and twice is better than never.
        let before = log.is_some_and(|l| l.counted_before(request.fingerprint, now));
        let counted = batch.intake.client.computed_stats || resent || before;
        let samplers = &self.samplers;
        let tally = &mut self.tally;
        tally.clear();
        let install = self.install.as_deref();
        let routed = &self.routed;
        self.agent.process(batch, now, &mut counts, |batch, c| {
            let resource = batch.chunks[c].resource as usize;
            let counted = counted || computed_stats.get(resource).copied().unwrap_or_default();
            let before = batch.chunks.len();
            let unrouted = match table {
                None => false,
                Some(None) => true,
                Some(Some(table)) => table.route(batch, c, |why, n| fx.note(UNSENT, why, n)),
            };
            // Spans with a route of their own have become chunks at the end.
            for c in (before..batch.chunks.len()).chain((!unrouted).then_some(c)) {
                if !counted {
                    lock(routed).add_chunk(batch, &batch.chunks[c], now);
                }
            }
            if !unrouted {
                return true;
            }
            if !counted {
                tally.add(batch, &batch.chunks[c]);
            }
            match samplers {
                // The first copy is on its way already.
                Some(_) if resent => {
                    batch.chunks[c].sampled.leaves = Leaves::Nothing;
                    true
                }
                Some(samplers) => {
                    let stays = lock(samplers).decide(batch, c, now).leaves != Leaves::Nothing;
                    if let Some(install) = install.filter(|_| stays && !batch.chunks[c].dropped) {
                        install.mark(batch, c);
                    }
                    stays
                }
                None => true,
            }
        });
        self.count(batch, request, now, fx);
        if let Some(samplers) = samplers {
            self.feedback.tell(&lock(samplers), now);
        }
        for (reason, n) in counts.malformed {
            fx.note("spans_malformed", reason, n);
        }
    }

    /// Counts what was tallied, the whole batch under one lock.
    fn count(&self, batch: &Batch, request: CountedRequest, now: i64, fx: &mut Effects) {
        if self.tally.is_empty() {
            return;
        }
        let Some(log) = &self.log else {
            lock(&self.concentrator).count(batch, &self.tally, now);
            return;
        };
        let mut delta = Delta::default();
        lock(&self.concentrator).count_logged(batch, &self.tally, now, &mut delta);
        let log = Arc::clone(log);
        fx.save(move |saved| log.commit(&delta, request, Box::new(move || drop(saved))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_model::{Chunk, Range32, Span};

    #[test]
    fn the_first_trace_of_a_service_says_how_the_agent_was_installed() {
        let mut batch = Batch::default();
        let service = batch.arena.push("web");
        for i in 0..2 {
            batch.spans.push(Span { service, ..Span::default() });
            batch.chunks.push(Chunk { spans: Range32::new(i, i + 1), ..Chunk::default() });
        }
        batch.set_str(0, "_dd.install.type", "the tracer's");
        let install = Install::new("id", "k8s", "1700000000");
        install.mark(&mut batch, 0);
        install.mark(&mut batch, 1);
        let of = |span: usize, key| batch.get_str(batch.spans[span].attrs, key);
        assert_eq!(of(0, "_dd.install.id"), Some("id"));
        assert_eq!(of(0, "_dd.install.type"), Some("the tracer's"));
        assert_eq!(of(0, "_dd.install.time"), Some("1700000000"));
        assert_eq!(of(1, "_dd.install.id"), None);
    }
}
