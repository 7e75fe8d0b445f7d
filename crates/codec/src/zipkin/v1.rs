//! Zipkin v1 spans and their conversion to v2
//! (rules: zipkin:zipkin/src/main/java/zipkin2/v1/V1SpanConverter.java).
//!
//! A v1 span may hold both halves of a call, each annotation naming the host
//! that recorded it. It becomes one v2 span for each service among its hosts.

use super::draft::Draft;
use super::endpoint::Endpoint;
use crate::DecodeError;
use crate::build::Build;
use spanloom_model::{SpanId, SpanKind, Text, TraceId, Value, flags};

/// A moment of a v1 span.
#[derive(Clone, Copy)]
pub(super) struct Annotation {
    pub timestamp: i64,
    pub value: Text,
    pub host: Option<Endpoint>,
}

/// A tag or an address of a v1 span.
#[derive(Clone, Copy)]
pub(super) struct Binary {
    pub key: Text,
    /// `None` for an address.
    pub value: Option<Value>,
    pub host: Option<Endpoint>,
}

/// A v1 span; kept and cleared by the decoders, so that a request allocates
/// its lists once.
#[derive(Default)]
pub(super) struct V1 {
    pub trace_id: TraceId,
    pub id: SpanId,
    pub parent_id: SpanId,
    pub name: Text,
    pub timestamp: i64,
    pub duration: i64,
    pub debug: bool,
    pub annotations: Vec<Annotation>,
    pub binary: Vec<Binary>,
}

impl V1 {
    pub(super) fn clear(&mut self) {
        let (mut annotations, mut binary) =
            (std::mem::take(&mut self.annotations), std::mem::take(&mut self.binary));
        annotations.clear();
        binary.clear();
        *self = Self { annotations, binary, ..Self::default() };
    }
}

/// More hosts in one span than this are refused: each one is a v2 span.
const MAX_HALVES: usize = 64;

/// A v2 span being put together. Tags and annotations are listed by position
/// because the batch wants them contiguous.
#[derive(Default)]
struct Half {
    local: Option<Endpoint>,
    remote: Endpoint,
    kind: SpanKind,
    timestamp: i64,
    duration: i64,
    shared: bool,
    annotations: Vec<(i64, Text)>,
    tags: Vec<usize>,
}

#[derive(Default)]
struct Core {
    cs: Option<Annotation>,
    cr: Option<Annotation>,
    sr: Option<Annotation>,
    ss: Option<Annotation>,
    ms: Option<Annotation>,
    ws: Option<Annotation>,
    mr: Option<Annotation>,
    wr: Option<Annotation>,
}

struct Converter<'a> {
    source: &'a V1,
    halves: Vec<Half>,
    core: Core,
}

/// Adds a v1 span to the batch as one or more v2 spans.
pub(super) fn convert(source: &mut V1, build: &mut Build) -> Result<(), DecodeError> {
    // The earliest host is the first span's.
    let bytes = |t: Text| build.batch.arena.bytes(t);
    source.annotations.sort_by(|a, b| (a.timestamp, bytes(a.value)).cmp(&(b.timestamp, bytes(b.value))));
    source.binary.sort_by(|a, b| bytes(a.key).cmp(bytes(b.key)));
    let source = &*source;
    let mut c = Converter { source, halves: vec![Half::default()], core: Core::default() };
    c.annotations(build)?;
    c.binary(build)?;
    for half in c.halves {
        let mut draft = Draft::new(build);
        for &i in &half.tags {
            if let Some(value) = source.binary[i].value {
                build.attr(source.binary[i].key, value)?;
            }
        }
        for &(timestamp, value) in &half.annotations {
            Draft::annotation(build, timestamp, value)?;
        }
        let span = &mut draft.span;
        span.trace_id = source.trace_id;
        span.span_id = source.id;
        span.parent_id = source.parent_id;
        span.name = source.name;
        span.kind = half.kind;
        if half.shared {
            span.flags |= flags::SHARED;
        }
        if source.debug {
            span.flags |= flags::DEBUG;
        }
        draft.set_times(half.timestamp, half.duration);
        draft.ends.local = half.local.unwrap_or_default();
        draft.ends.remote = half.remote;
        draft.finish(build)?;
    }
    Ok(())
}

impl Converter<'_> {
    fn annotations(&mut self, build: &Build) -> Result<(), DecodeError> {
        let source = self.source;
        for a in &source.annotations {
            let at = self.half_of(build, a.host)?;
            let half = &mut self.halves[at];
            let core = &mut self.core;
            let value = build.batch.arena.bytes(a.value);
            // The core annotations mean something only with a host.
            let (slot, kind) = match value {
                _ if a.host.is_none() => (None, None),
                b"cs" => (Some(&mut core.cs), Some(SpanKind::Client)),
                b"cr" => (Some(&mut core.cr), Some(SpanKind::Client)),
                b"sr" => (Some(&mut core.sr), Some(SpanKind::Server)),
                b"ss" => (Some(&mut core.ss), Some(SpanKind::Server)),
                b"ms" => (Some(&mut core.ms), Some(SpanKind::Producer)),
                b"mr" => (Some(&mut core.mr), Some(SpanKind::Consumer)),
                b"ws" => (Some(&mut core.ws), None),
                b"wr" => (Some(&mut core.wr), None),
                _ => (None, None),
            };
            if let Some(kind) = kind {
                half.kind = kind;
            }
            match slot {
                Some(slot) => *slot = Some(*a),
                None => half.annotations.push((a.timestamp, a.value)),
            }
        }
        self.infer_start();
        self.calls(build)?;
        self.messages(build)
    }

    /// An end that lies exactly at the end of the span stands for a start that
    /// nobody recorded.
    fn infer_start(&mut self) {
        let source = self.source;
        let infer = |end: Option<Annotation>| {
            end.filter(|e| {
                source.timestamp != 0
                    && source.duration != 0
                    && source.timestamp.checked_add(source.duration) == Some(e.timestamp)
            })
            .map(|e| Annotation { timestamp: source.timestamp, ..e })
        };
        let core = &mut self.core;
        core.cs = core.cs.or_else(|| infer(core.cr));
        core.sr = core.sr.or_else(|| infer(core.ss));
    }

    fn calls(&mut self, build: &Build) -> Result<(), DecodeError> {
        let source = self.source;
        let Core { cs, cr, sr, ss, .. } = self.core;
        match (cs, cr, sr, ss) {
            (Some(cs), _, Some(sr), _) => {
                self.set_span_times(build, cs, cr)?;
                let client = self.half_of(build, cs.host)?;
                let server = if same_service(build, cs.host, sr.host) {
                    // Loopback: both halves name one service.
                    self.halves[client].kind = SpanKind::Client;
                    self.fork(sr.host, SpanKind::Server)?
                } else {
                    self.half_of(build, sr.host)?
                };
                let half = &mut self.halves[server];
                half.shared = true;
                half.timestamp = sr.timestamp;
                if let Some(ss) = ss {
                    half.duration = ss.timestamp.saturating_sub(sr.timestamp);
                }
                if cr.is_none() && source.duration == 0 {
                    self.halves[client].duration = 0;
                }
            }
            (Some(cs), Some(cr), ..) => self.set_span_times(build, cs, Some(cr))?,
            (_, _, Some(sr), Some(ss)) => self.set_span_times(build, sr, Some(ss))?,
            _ => self.incomplete_call(),
        }
        // v1 has no flag `shared`: a server half without authoritative times
        // continues a span that its caller started.
        if let (None, Some(sr)) = (cs, sr)
            && (source.timestamp == 0 || (ss.is_some() && source.duration == 0))
        {
            let server = self.half_of(build, sr.host)?;
            self.halves[server].shared = true;
        }
        Ok(())
    }

    fn incomplete_call(&mut self) {
        let Core { cs, cr, sr, ss, .. } = self.core;
        for half in &mut self.halves {
            let (begin, end) = match half.kind {
                SpanKind::Client => (cs, cr),
                SpanKind::Server => (sr, ss),
                _ => continue,
            };
            if let Some(begin) = begin {
                half.timestamp = begin.timestamp;
            }
            if let Some(end) = end {
                half.annotations.push((end.timestamp, end.value));
            }
        }
        if self.source.timestamp != 0 {
            self.halves[0].timestamp = self.source.timestamp;
            self.halves[0].duration = self.source.duration;
        }
    }

    fn messages(&mut self, build: &Build) -> Result<(), DecodeError> {
        let Core { ms, ws, mr, wr, .. } = self.core;
        match (ms, mr) {
            (Some(ms), Some(mr)) => {
                let producer = self.half_of(build, ms.host)?;
                let consumer = if same_service(build, ms.host, mr.host) {
                    self.halves[producer].kind = SpanKind::Producer;
                    self.fork(mr.host, SpanKind::Consumer)?
                } else {
                    self.half_of(build, mr.host)?
                };
                let half = &mut self.halves[consumer];
                half.shared = true;
                half.timestamp = wr.unwrap_or(mr).timestamp;
                if let Some(wr) = wr {
                    half.duration = mr.timestamp.saturating_sub(wr.timestamp);
                }
                let half = &mut self.halves[producer];
                half.timestamp = ms.timestamp;
                half.duration = ws.map_or(0, |ws| ws.timestamp.saturating_sub(ms.timestamp));
            }
            (Some(ms), None) => self.set_span_times(build, ms, ws)?,
            (None, Some(mr)) => match wr {
                Some(wr) => self.set_span_times(build, wr, Some(mr))?,
                None => self.set_span_times(build, mr, None)?,
            },
            (None, None) => {
                for lone in [ws, wr].into_iter().flatten() {
                    let at = self.half_of(build, lone.host)?;
                    self.halves[at].annotations.push((lone.timestamp, lone.value));
                }
            }
        }
        Ok(())
    }

    /// The times of the span itself if it has both, else those of its
    /// annotations.
    fn set_span_times(
        &mut self,
        build: &Build,
        begin: Annotation,
        end: Option<Annotation>,
    ) -> Result<(), DecodeError> {
        let at = self.half_of(build, begin.host)?;
        let half = &mut self.halves[at];
        if self.source.timestamp != 0 && self.source.duration != 0 {
            half.timestamp = self.source.timestamp;
            half.duration = self.source.duration;
        } else {
            half.timestamp = begin.timestamp;
            if let Some(end) = end {
                half.duration = end.timestamp.saturating_sub(begin.timestamp);
            }
        }
        Ok(())
    }

    fn binary(&mut self, build: &Build) -> Result<(), DecodeError> {
        let (mut ca, mut sa, mut ma) = (None, None, None);
        for (i, b) in self.source.binary.iter().enumerate() {
            let key = build.batch.arena.bytes(b.key);
            let Some(value) = b.value else {
                match key {
                    b"ca" => ca = b.host,
                    b"sa" => sa = b.host,
                    b"ma" => ma = b.host,
                    _ => {}
                }
                continue;
            };
            let at = self.half_of(build, b.host)?;
            // An empty `lc` only carries the host.
            if key == b"lc" && matches!(value, Value::Str(t) if t.is_empty()) {
                continue;
            }
            self.halves[at].tags.push(i);
        }
        let Core { cs, cr, sr, ss, ms, mr, .. } = self.core;
        if cs.is_none() && cr.is_none() && sr.is_none() && ss.is_none() && (ca.is_some() || sa.is_some()) {
            let at = if sa.is_some() { self.half_of(build, ca)? } else { 0 };
            let half = &mut self.halves[at];
            if sa.is_none() {
                half.kind = SpanKind::Server;
            }
            half.remote = sa.or(ca).unwrap_or_default();
            return Ok(());
        }
        if let (Some(mut ca), Some(server)) = (ca, sr.or(ss))
            && !server.host.is_some_and(|host| equal(build, &host, &ca))
        {
            // Finagle repeats the server's own name in the client's address.
            if same_service(build, Some(ca), server.host) {
                ca.service = Text::EMPTY;
            }
            let at = self.half_of(build, server.host)?;
            self.halves[at].remote = ca;
        }
        if let (Some(sa), Some(client)) = (sa, cs.or(cr)) {
            let at = self.half_of(build, client.host)?;
            self.halves[at].remote = sa;
        }
        if let Some(ma) = ma {
            for side in [ms, mr].into_iter().flatten() {
                let at = self.half_of(build, side.host)?;
                self.halves[at].remote = ma;
            }
        }
        Ok(())
    }

    /// The half that a host belongs to.
    fn half_of(&mut self, build: &Build, host: Option<Endpoint>) -> Result<usize, DecodeError> {
        let Some(host) = host else { return Ok(0) };
        for (i, half) in self.halves.iter_mut().enumerate() {
            match half.local {
                None => {
                    half.local = Some(host);
                    return Ok(i);
                }
                Some(local) if same_service(build, Some(local), Some(host)) => return Ok(i),
                Some(_) => {}
            }
        }
        self.fork(Some(host), SpanKind::Unspecified)
    }

    fn fork(&mut self, host: Option<Endpoint>, kind: SpanKind) -> Result<usize, DecodeError> {
        if self.halves.len() >= MAX_HALVES {
            return Err(DecodeError::Limit("a span of more than 64 services".into()));
        }
        self.halves.push(Half { local: host, kind, ..Half::default() });
        Ok(self.halves.len() - 1)
    }
}

fn same_service(build: &Build, a: Option<Endpoint>, b: Option<Endpoint>) -> bool {
    let name = |e: Option<Endpoint>| build.batch.arena.bytes(e.unwrap_or_default().service);
    name(a) == name(b)
}

fn equal(build: &Build, a: &Endpoint, b: &Endpoint) -> bool {
    let bytes = |t: Text| build.batch.arena.bytes(t);
    bytes(a.service) == bytes(b.service)
        && bytes(a.ipv4) == bytes(b.ipv4)
        && bytes(a.ipv6) == bytes(b.ipv6)
        && a.port == b.port
}
