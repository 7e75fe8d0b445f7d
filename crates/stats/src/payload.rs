//! Payloads on their way out: cut to the intake's limit, written as msgpack
//! (`datadog-agent:pkg/trace/writer/stats.go`).

use spanloom_model::stats::{ClientGroupedStats, ClientStatsBucket, ClientStatsPayload, StatsPayload};

/// Most groups in one payload.
pub const MAX_GROUPS: usize = 4000;

/// Cuts a payload so that none has more than `max` groups ([`MAX_GROUPS`]).
/// Nothing comes back if there is no group at all; sources without groups go
/// along with others. Sources are cut by dealing
/// their groups round-robin, and keep all their fields (the reference loses
/// the commit, the image tag and the process tags there). All results of a cut
/// say so.
pub fn split(payload: StatsPayload, max: usize) -> Vec<StatsPayload> {
    let max = max.max(1);
    let StatsPayload { agent_hostname, agent_env, agent_version, stats, client_computed, .. } = payload;
    let mut packs: Vec<Vec<ClientStatsPayload>> = Vec::new();
    let (mut held, mut pack) = (0, Vec::new());
    for part in stats.into_iter().flat_map(|p| split_source(p, max)) {
        let n = part.group_count();
        if held + n > max {
            packs.push(std::mem::take(&mut pack));
            held = 0;
        }
        held += n;
        pack.push(part);
    }
    if held > 0 {
        packs.push(pack);
    }
    let split_payload = packs.len() > 1;
    packs
        .into_iter()
        .map(|stats| StatsPayload {
            agent_hostname: agent_hostname.clone(),
            agent_env: agent_env.clone(),
            agent_version: agent_version.clone(),
            stats,
            client_computed,
            split_payload,
        })
        .collect()
}

fn split_source(mut source: ClientStatsPayload, max: usize) -> Vec<ClientStatsPayload> {
    let parts = source.group_count().div_ceil(max);
    if parts <= 1 {
        return vec![source];
    }
    let buckets = std::mem::take(&mut source.stats);
    let mut out = vec![source; parts];
    let mut next = 0;
    for bucket in buckets {
        for group in bucket.stats {
            let of = &mut out[next % parts].stats;
            next += 1;
            let same = |b: &ClientStatsBucket| b.start == bucket.start && b.duration == bucket.duration;
            let at = of.iter().rposition(same).unwrap_or_else(|| {
                of.push(ClientStatsBucket {
                    start: bucket.start,
                    duration: bucket.duration,
                    agent_time_shift: bucket.agent_time_shift,
                    stats: Vec::new(),
                });
                of.len() - 1
            });
            of[at].stats.push(group);
        }
    }
    out
}

/// Appends the payload as msgpack, with the intake's key names. The exporter
/// compresses it with gzip.
pub fn encode(payload: &StatsPayload, out: &mut Vec<u8>) {
    let mut w = Writer(out);
    w.map(6);
    w.text("AgentHostname", &payload.agent_hostname);
    w.text("AgentEnv", &payload.agent_env);
    w.key("Stats");
    w.array(payload.stats.len());
    for source in &payload.stats {
        w.source(source);
    }
    w.text("AgentVersion", &payload.agent_version);
    w.flag("ClientComputed", payload.client_computed);
    w.flag("SplitPayload", payload.split_payload);
}

/// Appends one source as msgpack, in the form in which tracers send it.
pub fn encode_source(source: &ClientStatsPayload, out: &mut Vec<u8>) {
    Writer(out).source(source);
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn source(&mut self, p: &ClientStatsPayload) {
        self.map(16);
        self.text("Hostname", &p.hostname);
        self.text("Env", &p.env);
        self.text("Version", &p.version);
        self.key("Stats");
        self.array(p.stats.len());
        for bucket in &p.stats {
            self.map(4);
            self.number("Start", bucket.start);
            self.number("Duration", bucket.duration);
            self.key("Stats");
            self.array(bucket.stats.len());
            for group in &bucket.stats {
                self.group(group);
            }
            self.key("AgentTimeShift");
            self.signed(bucket.agent_time_shift);
        }
        self.text("Lang", &p.lang);
        self.text("TracerVersion", &p.tracer_version);
        self.text("RuntimeID", &p.runtime_id);
        self.number("Sequence", p.sequence);
        self.text("AgentAggregation", &p.agent_aggregation);
        self.text("Service", &p.service);
        self.text("ContainerID", &p.container_id);
        self.texts("Tags", &p.tags);
        self.text("GitCommitSha", &p.git_commit_sha);
        self.text("ImageTag", &p.image_tag);
        self.number("ProcessTagsHash", p.process_tags_hash);
        self.text("ProcessTags", &p.process_tags);
    }

    fn group(&mut self, g: &ClientGroupedStats) {
        self.map(22);
        self.text("Service", &g.service);
        self.text("Name", &g.name);
        self.text("Resource", &g.resource);
        self.number("HTTPStatusCode", u64::from(g.http_status_code));
        self.text("Type", &g.span_type);
        self.text("DBType", &g.db_type);
        self.number("Hits", g.hits);
        self.number("Errors", g.errors);
        self.number("Duration", g.duration);
        self.bytes("OkSummary", &g.ok_summary);
        self.bytes("ErrorSummary", &g.error_summary);
        self.flag("Synthetics", g.synthetics);
        self.number("TopLevelHits", g.top_level_hits);
        self.text("SpanKind", &g.span_kind);
        self.texts("PeerTags", &g.peer_tags);
        self.key("IsTraceRoot");
        self.signed(i64::from(g.is_trace_root.number()));
        self.text("GRPCStatusCode", &g.grpc_status_code);
        self.text("HTTPMethod", &g.http_method);
        self.text("HTTPEndpoint", &g.http_endpoint);
        self.text("srv_src", &g.service_source);
        self.texts("SpanDerivedPrimaryTags", &g.span_derived_primary_tags);
        self.texts("AdditionalMetricTags", &g.additional_metric_tags);
    }

    fn head(&mut self, code: u8, bytes: &[u8]) {
        self.0.push(code);
        self.0.extend_from_slice(bytes);
    }

    fn map(&mut self, n: u16) {
        if n < 16 { self.0.push(0x80 | n as u8) } else { self.head(0xde, &n.to_be_bytes()) }
    }

    fn array(&mut self, n: usize) {
        match n {
            0..=15 => self.0.push(0x90 | n as u8),
            16..=0xffff => self.head(0xdc, &(n as u16).to_be_bytes()),
            _ => self.head(0xdd, &(n as u32).to_be_bytes()),
        }
    }

    fn str(&mut self, s: &str) {
        match s.len() {
            n @ 0..=31 => self.0.push(0xa0 | n as u8),
            n @ 32..=0xff => self.head(0xd9, &[n as u8]),
            n @ 0x100..=0xffff => self.head(0xda, &(n as u16).to_be_bytes()),
            n => self.head(0xdb, &(n as u32).to_be_bytes()),
        }
        self.0.extend_from_slice(s.as_bytes());
    }

    fn unsigned(&mut self, v: u64) {
        match v {
            0..=0x7f => self.0.push(v as u8),
            0x80..=0xff => self.head(0xcc, &[v as u8]),
            0x100..=0xffff => self.head(0xcd, &(v as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.head(0xce, &(v as u32).to_be_bytes()),
            _ => self.head(0xcf, &v.to_be_bytes()),
        }
    }

    fn signed(&mut self, v: i64) {
        match u64::try_from(v) {
            Ok(v) => self.unsigned(v),
            Err(_) => self.head(0xd3, &v.to_be_bytes()),
        }
    }

    fn key(&mut self, key: &str) {
        self.str(key);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.str(value);
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.unsigned(value);
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        self.0.push(if value { 0xc3 } else { 0xc2 });
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        self.key(key);
        self.array(values.len());
        for value in values {
            self.str(value);
        }
    }

    fn bytes(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        match value.len() {
            n @ 0..=0xff => self.head(0xc4, &[n as u8]),
            n @ 0x100..=0xffff => self.head(0xc5, &(n as u16).to_be_bytes()),
            n => self.head(0xc6, &(n as u32).to_be_bytes()),
        }
        self.0.extend_from_slice(value);
    }
}
