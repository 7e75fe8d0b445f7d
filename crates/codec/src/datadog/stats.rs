//! Client stats: the msgpack body of `/v0.6/stats`. All types are strict
//! (datadog-agent:pkg/proto/pbgo/trace/stats_gen.go); a nil bucket or group,
//! which crashes the Agent, is passed over.

use crate::msgpack::{Error, Reader, Result};
use crate::{DecodeError, Limits};
use spanloom_model::stats::{ClientGroupedStats, ClientStatsBucket, ClientStatsPayload, Trilean};

/// Largest announced length in the Agent's generated decoder.
const MAX: usize = 500_000;

/// Largest encoded sketch.
const MAX_SKETCH: usize = 500_000;

/// Decodes the body of a request to `/v0.6/stats`. Unknown keys are passed
/// over, bytes after the payload are ignored, text that is not UTF-8 is
/// repaired.
///
/// # Errors
/// [`DecodeError::UnexpectedEof`] for an empty body (the Agent's text for it is
/// `EOF`, which [`stats_error_text`] gives), [`DecodeError::TooFewBytes`] for
/// one that ends early, otherwise the text with the path of the field.
pub fn decode_stats(body: &[u8]) -> std::result::Result<ClientStatsPayload, DecodeError> {
    decode_stats_within(body, &Limits::DEFAULT)
}

/// [`decode_stats`] with other limits than the default ones.
///
/// # Errors
/// As [`decode_stats`].
pub fn decode_stats_within(
    body: &[u8],
    limits: &Limits,
) -> std::result::Result<ClientStatsPayload, DecodeError> {
    if body.is_empty() {
        return Err(DecodeError::UnexpectedEof);
    }
    let mut d = Decoder { r: Reader::new(body), budget: limits.budget(body.len()), path: String::new() };
    d.payload().map_err(|e| match e {
        Error::TooFewBytes => DecodeError::TooFewBytes,
        Error::TooManyElements | Error::TooLarge => DecodeError::Limit(e.to_string().into()),
        _ if d.path.is_empty() => DecodeError::text(e.to_string()),
        _ => DecodeError::text(format!("{e} at {}", d.path)),
    })
}

/// The text the Agent answers with: its stream reader says `EOF` to an empty
/// body and `unexpected EOF` to one that ends early.
pub fn stats_error_text(error: &DecodeError) -> String {
    match error {
        DecodeError::UnexpectedEof => "EOF".to_owned(),
        DecodeError::TooFewBytes => "unexpected EOF".to_owned(),
        other => other.to_string(),
    }
}

struct Decoder<'a> {
    r: Reader<'a>,
    /// Bytes that the tables may still take.
    budget: usize,
    /// Where an error happened; filled on the way out only.
    path: String,
}

impl<'a> Decoder<'a> {
    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.budget = self.budget.checked_sub(bytes).ok_or(Error::TooLarge)?;
        Ok(())
    }

    /// Puts a step in front of the path of an error.
    #[cold]
    fn at(&mut self, step: &str, error: Error) -> Error {
        if self.path.is_empty() {
            self.path = step.to_owned();
        } else {
            self.path = format!("{step}/{}", self.path);
        }
        error
    }

    fn text(&mut self) -> Result<String> {
        let pos = self.r.str()?;
        Ok(String::from_utf8_lossy(self.r.bytes(pos)).into_owned())
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let pos = self.r.bin()?;
        if pos.len > MAX_SKETCH {
            return Err(Error::TooManyElements);
        }
        Ok(self.r.bytes(pos).to_vec())
    }

    fn texts(&mut self) -> Result<Vec<String>> {
        let n = self.r.array(MAX)?;
        self.charge(n * size_of::<String>())?;
        (0..n).map(|_| self.text()).collect()
    }

    /// An array of objects; nil ones are passed over.
    fn objects<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let n = self.r.array(MAX)?;
        let mut out = Vec::new();
        for i in 0..n {
            if self.r.nil() {
                continue;
            }
            self.charge(size_of::<T>())?;
            out.push(read(self).map_err(|e| self.at(&i.to_string(), e))?);
        }
        Ok(out)
    }

    /// A key; one that is not UTF-8 is as good as unknown.
    fn key(&mut self) -> Result<&'a str> {
        Ok(std::str::from_utf8(self.r.key()?).unwrap_or_default())
    }

    fn payload(&mut self) -> Result<ClientStatsPayload> {
        let mut p = ClientStatsPayload::default();
        for _ in 0..self.r.map(MAX)? {
            let key = self.key()?;
            self.payload_field(&mut p, key).map_err(|e| self.at(key, e))?;
        }
        Ok(p)
    }

    fn payload_field(&mut self, p: &mut ClientStatsPayload, key: &str) -> Result<()> {
        match key {
            "Hostname" => p.hostname = self.text()?,
            "Env" => p.env = self.text()?,
            "Version" => p.version = self.text()?,
            "Stats" => p.stats = self.objects(Self::bucket)?,
            "Lang" => p.lang = self.text()?,
            "TracerVersion" => p.tracer_version = self.text()?,
            "RuntimeID" => p.runtime_id = self.text()?,
            "Sequence" => p.sequence = self.r.uint()?,
            "AgentAggregation" => p.agent_aggregation = self.text()?,
            "Service" => p.service = self.text()?,
            "ContainerID" => p.container_id = self.text()?,
            "Tags" => p.tags = self.texts()?,
            "GitCommitSha" => p.git_commit_sha = self.text()?,
            "ImageTag" => p.image_tag = self.text()?,
            "ProcessTagsHash" => p.process_tags_hash = self.r.uint()?,
            "ProcessTags" => p.process_tags = self.text()?,
            _ => self.r.skip()?,
        }
        Ok(())
    }

    fn bucket(&mut self) -> Result<ClientStatsBucket> {
        let mut b = ClientStatsBucket::default();
        for _ in 0..self.r.map(MAX)? {
            let key = self.key()?;
            self.bucket_field(&mut b, key).map_err(|e| self.at(key, e))?;
        }
        Ok(b)
    }

    fn bucket_field(&mut self, b: &mut ClientStatsBucket, key: &str) -> Result<()> {
        match key {
            "Start" => b.start = self.r.uint()?,
            "Duration" => b.duration = self.r.uint()?,
            "Stats" => b.stats = self.objects(Self::group)?,
            "AgentTimeShift" => b.agent_time_shift = self.r.int()?,
            _ => self.r.skip()?,
        }
        Ok(())
    }

    fn group(&mut self) -> Result<ClientGroupedStats> {
        let mut g = ClientGroupedStats::default();
        for _ in 0..self.r.map(MAX)? {
            let key = self.key()?;
            self.group_field(&mut g, key).map_err(|e| self.at(key, e))?;
        }
        Ok(g)
    }

    fn group_field(&mut self, g: &mut ClientGroupedStats, key: &str) -> Result<()> {
        match key {
            "Service" => g.service = self.text()?,
            "Name" => g.name = self.text()?,
            "Resource" => g.resource = self.text()?,
            "HTTPStatusCode" => g.http_status_code = self.r.uint32()?,
            "Type" => g.span_type = self.text()?,
            "DBType" => g.db_type = self.text()?,
            "Hits" => g.hits = self.r.uint()?,
            "Errors" => g.errors = self.r.uint()?,
            "Duration" => g.duration = self.r.uint()?,
            "OkSummary" => g.ok_summary = self.bytes()?,
            "ErrorSummary" => g.error_summary = self.bytes()?,
            "Synthetics" => g.synthetics = self.r.bool()?,
            "TopLevelHits" => g.top_level_hits = self.r.uint()?,
            "SpanKind" => g.span_kind = self.text()?,
            "PeerTags" => g.peer_tags = self.texts()?,
            "IsTraceRoot" => g.is_trace_root = Trilean::from_number(self.r.int32()?),
            // The second is what the tracers of 2025 wrote.
            "GRPCStatusCode" | "GrpcStatusCode" => g.grpc_status_code = self.text()?,
            "HTTPMethod" => g.http_method = self.text()?,
            "HTTPEndpoint" => g.http_endpoint = self.text()?,
            "srv_src" => g.service_source = self.text()?,
            "SpanDerivedPrimaryTags" => g.span_derived_primary_tags = self.texts()?,
            "AdditionalMetricTags" => g.additional_metric_tags = self.texts()?,
            _ => self.r.skip()?,
        }
        Ok(())
    }
}
