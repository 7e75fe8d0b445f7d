//! One span: its fields, and its attributes as tags and numbers.

use super::keys::{Fact, Facts, Look, To, known};
use super::names::{self, Pen};
use super::tags::Tags;
use super::{OtlpOptions, Prepared};
use crate::json;
use crate::view::{self, DEBUG, NO_START, Origin, ZIPKIN_SHARED};
use spanloom_model::{
    Arena, Batch, Event, Link, NO_SCOPE, Range32, Span, SpanKind, Status, Text, Value, flags, keys,
};

/// Service of spans whose client names none.
const NO_SERVICE: &str = "otlpresourcenoservicename";
/// Metric: whether the span is an analysed event.
const ANALYSED: &str = "_dd1.sr.eausr";
const GRPC_STATUS: &str = "rpc.grpc.status_code";
const REQUEST_HEADER: &str = "http.request.header.";

/// Writes spans, one after the other, each complete before the next.
pub(super) struct Writer<'a> {
    batch: &'a Batch,
    options: &'a OtlpOptions,
    facts: Facts,
    /// What becomes of each attribute of the span.
    ways: Vec<To>,
    tags: Tags,
    scratch: String,
    json: Vec<u8>,
    /// Bytes of resource attributes that may still be repeated.
    budget: usize,
    cut: u64,
    priority: Option<i32>,
    maker: Option<Maker>,
}

/// Where the decision maker of a chunk goes.
struct Maker {
    /// The first span of the chunk.
    span: usize,
    attr: usize,
    /// The attribute, the last of its span, is there for this only.
    reserved: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(batch: &'a Batch, options: &'a OtlpOptions, budget: usize) -> Self {
        Self {
            batch,
            options,
            facts: Facts::default(),
            ways: Vec::new(),
            tags: Tags::default(),
            scratch: String::new(),
            json: Vec::new(),
            budget,
            cut: 0,
            priority: None,
            maker: None,
        }
    }

    /// Resource attributes that were left out.
    pub(super) fn cut(&self) -> u64 {
        self.cut
    }

    pub(super) fn begin_chunk(&mut self) {
        self.priority = None;
        self.maker = None;
    }

    /// The priority that the user gave; of several spans the last one counts.
    pub(super) fn user_priority(&self) -> Option<i32> {
        self.priority
    }

    /// Writes the decision maker to the first span of the chunk, or removes
    /// the place kept for it.
    pub(super) fn end_chunk(&mut self, maker: Option<&'static str>, out: &mut Batch) {
        let Some(place) = self.maker.take() else { return };
        if let Some(maker) = maker {
            let text = out.arena.push_static(maker);
            if let Some(attr) = out.attrs.get_mut(place.attr) {
                attr.value = Value::Str(text);
            }
        } else if place.reserved
            && let Some(span) = out.spans.get_mut(place.span)
        {
            span.attrs.end -= 1;
        }
    }

    /// Adds a span to `out`. `trace_id`: the id in hexadecimal digits.
    pub(super) fn span(&mut self, span: &Span, trace_id: Text, resource: &Prepared, out: &mut Batch) {
        self.note_facts(span);
        let batch = self.batch;
        let kind = batch.role(span);
        let scope = view::scope(batch, span);
        let look = Look { batch, first: &self.facts, second: &resource.facts };
        let mut pen = Pen { arena: &mut out.arena, scratch: &mut self.scratch, options: self.options };
        let scope_name = scope.map_or("", |s| batch.str(s.name));
        let name = names::operation(&look, kind, span.name, scope_name, &mut pen);
        let resource_name = names::resource(&look, kind, span.name, &mut pen);
        let span_type = names::span_type(&look, kind, &mut pen);
        let own = self.facts.text(Fact::ServiceName);
        let service = service(batch, own.unwrap_or(span.service), self.options, &mut out.arena);
        let status = view::status(span);

        self.tags.begin(out.attrs.len());
        self.add_fields(span, kind, resource, out);
        self.add_attributes(span, out);
        self.add_said(span, trace_id, resource, out);
        self.add_shared(span, resource, out);

        let start = self.tags.start();
        let [from, to] = view::times(span).map(|t| t as i64);
        let number = self.tags.number(out, keys::SAMPLING_PRIORITY.as_bytes());
        let debug = (span.flags & flags::DEBUG != 0).then_some(2);
        // The Agent's type of priorities is an int8.
        let priority = number.map(|p| i32::from(p as i8)).or(debug);
        self.priority = priority.or(self.priority);
        if self.maker.is_none() {
            let known = self.tags.find(out, keys::DECISION_MAKER.as_bytes(), false);
            if known.is_none() {
                self.tags.add_static(out, keys::DECISION_MAKER, "");
            }
            let attr = known.unwrap_or(out.attrs.len() - 1);
            self.maker = Some(Maker { span: out.spans.len(), attr, reserved: known.is_none() });
        }
        out.spans.push(Span {
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_id: span.parent_id,
            start: from,
            duration: to.wrapping_sub(from),
            service,
            name,
            resource: resource_name,
            span_type,
            attrs: Range32::new(start, out.attrs.len()),
            scope: NO_SCOPE,
            error: i32::from(status == Status::Error),
            kind,
            status: if status == Status::Error { status } else { Status::Unset },
            ..Span::default()
        });
    }

    /// Looks every attribute up, once.
    fn note_facts(&mut self, span: &Span) {
        let batch = self.batch;
        let foreign = Origin::of(span) != Origin::Otlp;
        self.facts.clear();
        self.ways.clear();
        for attr in batch.attrs(span.attrs) {
            if foreign && view::repeats_field(batch, span, attr) {
                self.ways.push(To::Consumed);
                continue;
            }
            let known = known(batch.arena.bytes(attr.key));
            if let Some(fact) = known.and_then(|k| k.fact) {
                self.facts.note(fact, attr.value);
            }
            self.ways.push(known.map_or(To::Same, |k| k.to));
        }
    }

    /// What stands before the attributes, so that these do not replace it.
    fn add_fields(&mut self, span: &Span, kind: SpanKind, resource: &Prepared, out: &mut Batch) {
        let look = Look { batch: self.batch, first: &self.facts, second: &resource.facts };
        let tags = &mut self.tags;
        tags.add_static(out, keys::SPAN_KIND, names::kind_name(kind));
        if let Some(code) = http_status(&look).filter(|n| *n >= 0) {
            tags.add_number(out, keys::HTTP_STATUS_CODE, code as f64);
        }
        match grpc_status(&look) {
            Some(Value::Str(text)) => tags.add_text(out, GRPC_STATUS, text),
            Some(value) => {
                let text = as_text(self.batch, value, &mut self.scratch, &mut out.arena);
                tags.add_text(out, GRPC_STATUS, text);
            }
            None => {}
        }
        let by_kind = self.options.top_level_by_kind;
        if by_kind && (span.parent_id.is_zero() || matches!(kind, SpanKind::Server | SpanKind::Consumer)) {
            tags.add_number(out, keys::TOP_LEVEL, 1.0);
        }
        let measured = by_kind && matches!(kind, SpanKind::Client | SpanKind::Producer);
        if measured || look.int(Fact::Measured) == Some(1) {
            tags.add_number(out, keys::MEASURED, 1.0);
        }
        if !span.trace_state.is_empty() {
            tags.add_text(out, view::TRACE_STATE, span.trace_state);
        }
    }

    /// The attributes of the span: numbers are metrics, all else is text.
    fn add_attributes(&mut self, span: &Span, out: &mut Batch) {
        let batch = self.batch;
        let Self { tags, ways, scratch, .. } = self;
        for (attr, way) in batch.attrs(span.attrs).iter().zip(ways.iter()) {
            if *way == To::Consumed {
                continue;
            }
            if let Some(number) = attr.value.as_f64() {
                let key = match way {
                    To::Priority => out.arena.push_static(keys::SAMPLING_PRIORITY),
                    way => tag_name(attr.key, *way, scratch, &mut out.arena),
                };
                tags.number_if_absent(out, key, number);
                continue;
            }
            let text = as_text(batch, attr.value, scratch, &mut out.arena);
            if *way == To::Analytics {
                if let Some(number) = truth(out.arena.str(text)) {
                    let key = out.arena.push_static(ANALYSED);
                    tags.number_if_absent(out, key, number);
                }
                continue;
            }
            let key = tag_name(attr.key, *way, scratch, &mut out.arena);
            tags.text_if_empty(out, key, text);
        }
        if Origin::of(span) != Origin::Otlp {
            for (bit, key) in
                [(flags::SHARED, ZIPKIN_SHARED), (flags::DEBUG, DEBUG), (flags::NO_START, NO_START)]
            {
                if span.flags & bit != 0 {
                    let [key, text] = [key, "true"].map(|t| out.arena.push_static(t));
                    tags.text_if_empty(out, key, text);
                }
            }
        }
    }

    /// What fields of the span say, in tags that replace attributes.
    fn add_said(&mut self, span: &Span, trace_id: Text, resource: &Prepared, out: &mut Batch) {
        let batch = self.batch;
        self.tags.set_text(out, "otel.trace_id", trace_id);
        if self.tags.find(out, keys::VERSION.as_bytes(), false).is_none() {
            let version = match self.facts.text(Fact::ServiceVersion) {
                Some(text) => self.normal(text, out),
                None => resource.version,
            };
            if !version.is_empty() {
                self.tags.add_text(out, keys::VERSION, version);
            }
        }
        let events = batch.span_events(span);
        if !events.is_empty() {
            self.json.clear();
            print_events(batch, events, &mut self.json);
            let text = out.arena.push_bytes(&self.json);
            self.tags.set_text(out, keys::DD_EVENTS, text);
            if events.iter().any(|e| batch.arena.bytes(e.name) == b"exception") {
                let text = out.arena.push_static("true");
                self.tags.set_text(out, "_dd.span_events.has_exception", text);
            }
        }
        let links = batch.span_links(span);
        if !links.is_empty() {
            self.json.clear();
            print_links(batch, links, &mut self.json);
            let text = out.arena.push_bytes(&self.json);
            self.tags.set_text(out, keys::DD_SPAN_LINKS, text);
        }
        if let Some(scope) = view::scope(batch, span) {
            for (key, text) in [(view::LIBRARY_NAME, scope.name), (view::LIBRARY_VERSION, scope.version)] {
                if !text.is_empty() {
                    self.tags.set_text(out, key, text);
                }
            }
        }
        let status = view::status(span);
        let code = out.arena.push_static(match status {
            Status::Unset => "Unset",
            Status::Ok => "Ok",
            Status::Error => "Error",
        });
        self.tags.set_text(out, keys::STATUS_CODE, code);
        if !span.status_message.is_empty() {
            self.tags.set_text(out, keys::STATUS_DESCRIPTION, span.status_message);
        }
        if status == Status::Error && self.tags.find(out, keys::ERROR_MSG.as_bytes(), false).is_none() {
            self.add_error_message(span, out);
        }
        if self.tags.find(out, keys::ENV.as_bytes(), false).is_none() {
            let known = [Fact::EnvName, Fact::Env].iter().any(|f| self.facts.get(*f).is_some());
            let env = if known {
                let look = Look { batch, first: &self.facts, second: &resource.facts };
                let text = look.any([Fact::EnvName, Fact::Env]);
                text.map_or(Text::EMPTY, |t| self.normal(t, out))
            } else {
                resource.env
            };
            if !env.is_empty() {
                self.tags.add_text(out, keys::ENV, env);
            }
        }
    }

    /// What went wrong: the message of the status, else the HTTP status.
    fn add_error_message(&mut self, span: &Span, out: &mut Batch) {
        if !span.status_message.is_empty() {
            self.tags.add_text(out, keys::ERROR_MSG, span.status_message);
            return;
        }
        let Some(code) = self.tags.text(out, keys::HTTP_STATUS_CODE.as_bytes()).filter(|t| !t.is_empty())
        else {
            return;
        };
        let phrase = out.arena.str(code).parse().ok().and_then(names::reason_phrase);
        let text = match phrase {
            Some(phrase) => {
                self.scratch.clear();
                for part in [out.arena.str(code), " ", phrase] {
                    self.scratch.push_str(part);
                }
                out.arena.push(&self.scratch)
            }
            None => code,
        };
        self.tags.add_text(out, keys::ERROR_MSG, text);
    }

    /// What the span shares with others: the resource's attributes where it
    /// has none of its own, and the scope's.
    fn add_shared(&mut self, span: &Span, resource: &Prepared, out: &mut Batch) {
        let batch = self.batch;
        if let Some(number) = resource.analytics {
            let key = out.arena.push_static(ANALYSED);
            self.tags.number_if_absent(out, key, number);
        }
        if self.may_repeat(resource.tags.len(), resource.bytes) {
            for (key, text) in &resource.tags {
                self.tags.text_if_empty(out, *key, *text);
            }
        }
        if let Some(scope) = view::scope(batch, span).filter(|s| !s.attrs.is_empty()) {
            let attrs = batch.attrs(scope.attrs);
            let bytes = attrs.iter().map(|a| size_of_val(a) + a.key.len() + text_bytes(a.value)).sum();
            if self.may_repeat(attrs.len(), bytes) {
                for attr in attrs {
                    let text = as_text(batch, attr.value, &mut self.scratch, &mut out.arena);
                    self.tags.set(out, attr.key, text);
                }
            }
        }
        if self.tags.find(out, b"db.name", false).is_none() {
            let look = Look { batch, first: &self.facts, second: &resource.facts };
            if let Some(namespace) = look.text(Fact::DbNamespace) {
                self.tags.add_text(out, "db.name", namespace);
            }
        }
    }

    /// Whether attributes may be repeated in this span; counts those that may
    /// not.
    fn may_repeat(&mut self, count: usize, bytes: usize) -> bool {
        match self.budget.checked_sub(bytes) {
            Some(left) => {
                self.budget = left;
                true
            }
            None => {
                self.cut += count as u64;
                false
            }
        }
    }

    fn normal(&mut self, text: Text, out: &mut Batch) -> Text {
        let mut pen = Pen { arena: &mut out.arena, scratch: &mut self.scratch, options: self.options };
        pen.normal(self.batch, text)
    }
}

fn text_bytes(value: Value) -> usize {
    match value {
        Value::Str(t) | Value::Bytes(t) => t.len(),
        // The size of what a list holds is not known without printing it.
        Value::List(range) | Value::Map(range) => 1024 * range.len(),
        _ => 24,
    }
}

fn service(batch: &Batch, own: Text, options: &OtlpOptions, arena: &mut Arena) -> Text {
    if own.is_empty() {
        return arena.push_static(NO_SERVICE);
    }
    let name = batch.str(own);
    let valid = (options.normalize_service)(name);
    if *valid == *name { own } else { arena.push(&valid) }
}

/// The status code of an HTTP request.
fn http_status(look: &Look<'_>) -> Option<i64> {
    [Fact::HttpStatusCode, Fact::HttpResponseStatusCode].into_iter().find_map(|fact| {
        look.int(fact).or_else(|| look.text(fact).and_then(|t| look.batch.str(t).parse().ok()))
    })
}

/// The status code of a gRPC call.
fn grpc_status(look: &Look<'_>) -> Option<Value> {
    let of = |fact| look.text(fact).map(Value::Str).or_else(|| look.int(fact).map(Value::Int));
    let plain = [Fact::RpcGrpcStatusCode, Fact::GrpcCode, Fact::RpcGrpcStatusDotCode, Fact::GrpcStatusCode];
    plain.into_iter().find_map(of).or_else(|| {
        let system = if look.has(Fact::RpcSystemName) { Fact::RpcSystemName } else { Fact::RpcSystem };
        of(Fact::RpcResponseStatusCode).filter(|_| look.str(system) == "grpc")
    })
}

/// The name of the tag that an attribute becomes.
pub(super) fn tag_name(key: Text, to: To, scratch: &mut String, arena: &mut Arena) -> Text {
    if let To::Renamed(name) = to {
        return arena.push_static(name);
    }
    let bytes = arena.bytes(key);
    if bytes.first() != Some(&b'h') || !bytes.starts_with(REQUEST_HEADER.as_bytes()) {
        return key;
    }
    scratch.clear();
    scratch.push_str("http.request.headers.");
    scratch.push_str(&arena.str(key)[REQUEST_HEADER.len()..]);
    arena.push(scratch)
}

/// A value as text; a text is itself.
pub(super) fn as_text(batch: &Batch, value: Value, scratch: &mut String, arena: &mut Arena) -> Text {
    match value {
        Value::Str(text) => text,
        Value::Bool(b) => arena.push_static(if b { "true" } else { "false" }),
        other => {
            scratch.clear();
            view::print_value(batch, other, scratch);
            arena.push(scratch)
        }
    }
}

/// A truth value in the spellings of Go's `strconv.ParseBool`.
pub(super) fn truth(text: &str) -> Option<f64> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(1.0),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(0.0),
        _ => None,
    }
}

fn print_events(batch: &Batch, events: &[Event], out: &mut Vec<u8>) {
    let mut w = json::Writer::new(out);
    w.open(b'[');
    for event in events {
        w.open(b'{');
        if event.time != 0 {
            w.key("time_unix_nano");
            w.int(event.time);
        }
        if !event.name.is_empty() {
            w.key("name");
            w.str(batch.str(event.name));
        }
        if !event.attrs.is_empty() {
            w.key("attributes");
            view::write_json_map(batch, batch.attrs(event.attrs), &mut w);
        }
        dropped(event.dropped, &mut w);
        w.close(b'}');
    }
    w.close(b']');
}

/// The Agent does not escape what it writes here; we do.
fn print_links(batch: &Batch, links: &[Link], out: &mut Vec<u8>) {
    let mut text = String::new();
    let mut w = json::Writer::new(out);
    w.open(b'[');
    for link in links {
        w.open(b'{');
        w.key("trace_id");
        w.quoted(link.trace_id);
        w.key("span_id");
        w.quoted(link.span_id);
        if !link.trace_state.is_empty() {
            w.key("tracestate");
            w.str(batch.str(link.trace_state));
        }
        if !link.attrs.is_empty() {
            w.key("attributes");
            w.open(b'{');
            for attr in batch.attrs(link.attrs) {
                text.clear();
                view::print_value(batch, attr.value, &mut text);
                w.key(batch.str(attr.key));
                w.str(&text);
            }
            w.close(b'}');
        }
        dropped(link.dropped, &mut w);
        w.close(b'}');
    }
    w.close(b']');
}

fn dropped(count: u32, w: &mut json::Writer<'_>) {
    if count != 0 {
        w.key("dropped_attributes_count");
        w.int(count);
    }
}
