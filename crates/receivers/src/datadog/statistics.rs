//! `/v0.6/stats`: statistics that tracers computed themselves.

use super::Receiver;
use crate::answer::{self, Answer};
use crate::body::{self, BodyError};
use crate::server::Request;
use http::StatusCode;
use spanloom_codec::DecodeError;
use spanloom_pipeline::{ClientStats, Saved};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long an answer waits for the log; tracers give up after 2 s.
const SAVE_WAIT: Duration = Duration::from_millis(1400);

impl Receiver {
    pub(super) async fn statistics(&self, request: &mut Request) -> Answer {
        let ledger = self.inlet.ledger();
        let refuse = |status, reason, text: &str| {
            ledger.note("stats_payload_rejected", reason, 1);
            answer::error(status, text)
        };
        let received = match body::receive(request, &self.inlet, self.body_limits()).await {
            Ok(received) => received,
            Err(BodyError::Busy | BodyError::Timeout) => {
                return refuse(StatusCode::REQUEST_TIMEOUT, "timeout", "timeout");
            }
            Err(BodyError::Ended) => return refuse(StatusCode::BAD_REQUEST, "decode", "unexpected EOF"),
        };
        let size = received.bytes.len() as u64;
        let payload = match spanloom_codec::datadog::decode_stats(&received.bytes) {
            Ok(payload) => payload,
            Err(DecodeError::TooFewBytes | DecodeError::UnexpectedEof) if received.more => {
                return refuse(StatusCode::BAD_REQUEST, "decode", "read limit reached");
            }
            Err(_) if size == 0 => return refuse(StatusCode::BAD_REQUEST, "decode", "EOF"),
            Err(error) => return refuse(StatusCode::BAD_REQUEST, "decode", &error.to_string()),
        };
        let working = self.resends.begin(&received.bytes, Instant::now());
        if working.again {
            working.answered(Instant::now(), true);
            ledger.note("stats_payload", "sent_again", 1);
            return answer::empty(StatusCode::OK);
        }
        let (buckets, groups) = (payload.stats.len() as u64, payload.group_count() as u64);
        let stats = ClientStats {
            payload,
            lang: request.header("datadog-meta-lang").into(),
            tracer_version: request.header("datadog-meta-tracer-version").into(),
            container_id: if self.config.feature("disable_cid_stats") {
                String::new()
            } else {
                self.container_of(request)
            },
            obfuscation_version: request.header("datadog-obfuscation-version").into(),
            received_at: self.inlet.now(),
            fingerprint: working.fingerprint(),
        };
        let (tell, told) = oneshot::channel::<()>();
        if self.inlet.stats().accept(stats, Saved::new(move || drop(tell))).is_err() {
            working.answered(Instant::now(), true);
            return refuse(StatusCode::REQUEST_TIMEOUT, "timeout", "timeout");
        }
        // Merged already: a client that sends it again is recognised.
        if tokio::time::timeout(SAVE_WAIT, told).await.is_err() {
            working.answered(Instant::now(), false);
            return refuse(StatusCode::REQUEST_TIMEOUT, "timeout", "timeout");
        }
        working.answered(Instant::now(), true);
        ledger.note("stats_payload", "accepted", 1);
        ledger.note("stats_bytes", "accepted", size);
        ledger.note("stats_buckets", "accepted", buckets);
        ledger.note("stats_groups", "accepted", groups);
        answer::empty(StatusCode::OK)
    }
}
