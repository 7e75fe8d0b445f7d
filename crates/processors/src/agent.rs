//! The steps in the Agent's order (datadog-processing §1.3, steps 1 to 12).

use crate::{
    Counts, IgnoredResources, NormalizerConfig, Replacer, SpanIds, TagFilters, fill_chunk_attributes, names,
    normalize_chunk, top_level, truncate_span, truncator,
};
use spanloom_model::{Batch, Chunk, Fate, Protocol, Text, Value, keys};

/// What the steps need to know.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Normaliser.
    pub normalizer: NormalizerConfig,
    /// `ignore_resources`.
    pub ignored: IgnoredResources,
    /// `filter_tags`, `filter_tags_regex`.
    pub filters: TagFilters,
    /// `replace_tags` (and the rules of `remove_stack_traces`).
    pub replacer: Replacer,
    /// Longest resource in bytes.
    pub max_resource: usize,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            normalizer: NormalizerConfig::default(),
            ignored: IgnoredResources::default(),
            filters: TagFilters::default(),
            replacer: Replacer::default(),
            max_resource: truncator::MAX_RESOURCE,
        }
    }
}

/// Runs the steps on a batch from a Datadog tracer.
pub struct Agent<S> {
    config: AgentConfig,
    /// Scrubs one span (step 8c); the app passes the obfuscator.
    scrub: S,
    ids: SpanIds,
}

impl<S: FnMut(&mut Batch, usize)> Agent<S> {
    /// With these settings; `scrub` hides sensitive values of the span at a position.
    pub fn new(config: AgentConfig, scrub: S) -> Self {
        Self { config, scrub, ids: SpanIds::default() }
    }

    /// Sets the fate of every chunk and corrects the spans of those that stay.
    /// `next` does what comes after the steps for a chunk that stays
    /// (statistics, sampling) and says whether it stays still: the reference
    /// finishes one chunk before it begins the next, and what one leaves in the
    /// payload is seen by those after it.
    ///
    /// Chunks are visited in the reference's order: the last one takes the
    /// place of one that is removed.
    pub fn process(
        &mut self,
        batch: &mut Batch,
        now: i64,
        counts: &mut Counts,
        mut next: impl FnMut(&mut Batch, usize) -> bool,
    ) {
        self.prologue(batch);
        let mut order: Vec<usize> = (0..batch.chunks.len()).collect();
        let mut at = 0;
        while let Some(c) = order.get(at).copied() {
            let mut chunk = batch.chunks[c];
            if chunk.fate == Fate::Kept {
                chunk.fate = self.chunk(batch, &mut chunk, now, counts);
            }
            batch.chunks[c] = chunk;
            if chunk.fate == Fate::Kept && next(batch, c) {
                at += 1;
            } else {
                order.swap_remove(at);
            }
        }
    }

    /// P2: the payload's environment is normalised.
    fn prologue(&self, batch: &mut Batch) {
        for r in 0..batch.resources.len() {
            let env = batch.resources[r].env;
            let fixed = {
                let text = batch.str(env);
                let new = names::normalize_tag_value(text);
                (new != text).then(|| new.into_owned())
            };
            if let Some(new) = fixed {
                batch.resources[r].env = batch.arena.push(&new);
            }
        }
    }

    fn chunk(&mut self, batch: &mut Batch, chunk: &mut Chunk, now: i64, counts: &mut Counts) -> Fate {
        if let Err(reason) = normalize_chunk(batch, chunk, self.config.normalizer, now, &mut self.ids, counts)
        {
            return Fate::Rejected(reason);
        }
        let Some(root) = batch.chunk_root(chunk) else { return Fate::Rejected("empty_trace") };
        fill_chunk_attributes(batch, chunk, root);
        if self.config.ignored.contains(batch.str(batch.spans[root].resource)) {
            return Fate::Filtered("ignore_resources");
        }
        if self.config.filters.drops(batch, batch.spans[root].attrs) {
            return Fate::Filtered("filter_tags");
        }
        for i in chunk.spans.usize() {
            (self.scrub)(batch, i);
            truncate_span(batch, i, self.config.max_resource);
        }
        let client_top_level = batch.intake.client.computed_top_level;
        if client_top_level {
            top_level::copy_from_client(batch, chunk);
        }
        if !self.config.replacer.is_empty() {
            self.config.replacer.replace_chunk(batch, chunk);
        }
        root_rate(batch, root);
        if !client_top_level {
            top_level::compute(batch, chunk, &self.ids);
        }
        if batch.intake.protocol != Protocol::DatadogV1 {
            fill_payload_attributes(batch, chunk, root);
        }
        Fate::Kept
    }
}

/// Step 10: the client's own sampling rate is remembered under its new name.
fn root_rate(batch: &mut Batch, root: usize) {
    const CLIENT_RATE: &str = "_dd1.sr.rcusr";
    let rate = batch.span_f64(&batch.spans[root], keys::SAMPLE_RATE).unwrap_or(1.0);
    if rate < 1.0 {
        batch.set_f64(root, CLIENT_RATE, rate);
    } else if batch.may_have(&batch.spans[root], CLIENT_RATE) {
        batch.remove_attrs(root, |arena, a| {
            a.value.as_f64().is_some() && arena.bytes(a.key) == CLIENT_RATE.as_bytes()
        });
    }
}

/// Step 12: what the payload lacks is taken from the first chunk that has it.
/// An empty text under the key counts as having it: no other span of that
/// chunk is asked (observed).
fn fill_payload_attributes(batch: &mut Batch, chunk: &Chunk, root: usize) {
    let Some(resource) = batch.resources.get(chunk.resource as usize).copied() else { return };
    let at_root = |key: &str| batch.span_text(&batch.spans[root], key);
    let anywhere = |key: &str| {
        // Spans under the root's own id are not asked (observed).
        let mut others = batch.chunk_spans(chunk).iter().filter(|s| s.span_id != batch.spans[root].span_id);
        at_root(key).or_else(|| others.find_map(|s| batch.span_text(s, key)))
    };
    let or = |own: Text, find: &dyn Fn() -> Option<Text>| {
        if own.is_empty() { find().unwrap_or_default() } else { own }
    };
    let hostname = or(resource.hostname, &|| at_root(keys::HOSTNAME));
    let env = or(resource.env, &|| anywhere(keys::ENV));
    let app_version = or(resource.app_version, &|| anywhere(keys::VERSION));
    let r = &mut batch.resources[chunk.resource as usize];
    r.hostname = hostname;
    r.env = env;
    r.app_version = app_version;
    fill_mode(batch, chunk, root);
}

/// The mode of the environment that the root names, if the payload names none.
fn fill_mode(batch: &mut Batch, chunk: &Chunk, root: usize) {
    let Some(mode) = batch.span_text(&batch.spans[root], keys::APM_MODE) else { return };
    if !batch.str(mode).eq_ignore_ascii_case("edge") {
        return;
    }
    let attrs = batch.resources[chunk.resource as usize].attrs;
    let value = Value::Str(mode);
    match batch.attrs(attrs).iter().position(|a| batch.str(a.key) == keys::APM_MODE) {
        Some(at) => {
            let own = &mut batch.attrs[attrs.start as usize + at].value;
            if own.as_text().is_some_and(Text::is_empty) {
                *own = value;
            }
        }
        None => {
            let key = batch.arena.push_static(keys::APM_MODE);
            batch.resources[chunk.resource as usize].attrs =
                batch.extend_range(attrs, spanloom_model::Attr { key, value });
        }
    }
}
