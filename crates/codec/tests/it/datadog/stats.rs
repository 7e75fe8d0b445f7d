//! Client stats payloads.

use super::helpers::*;
use base64::Engine as _;
use serde_json::{Value as Json, json};
use spanloom_codec::DecodeError;
use spanloom_codec::datadog::{decode_stats, stats_error_text};
use spanloom_model::stats::ClientStatsPayload;

fn b64(bytes: &[u8]) -> Json {
    json!({"$bytes_b64": base64::engine::general_purpose::STANDARD.encode(bytes)})
}

/// Everything of a payload, under the names of the wire.
fn render(p: &ClientStatsPayload) -> Json {
    let buckets: Vec<Json> = p
        .stats
        .iter()
        .map(|b| {
            let groups: Vec<Json> = b
                .stats
                .iter()
                .map(|g| {
                    json!({
                        "Service": g.service, "Name": g.name, "Resource": g.resource,
                        "HTTPStatusCode": g.http_status_code, "Type": g.span_type, "DBType": g.db_type,
                        "Hits": g.hits, "Errors": g.errors, "Duration": g.duration,
                        "OkSummary": b64(&g.ok_summary), "ErrorSummary": b64(&g.error_summary),
                        "Synthetics": g.synthetics, "TopLevelHits": g.top_level_hits, "SpanKind": g.span_kind,
                        "PeerTags": g.peer_tags, "IsTraceRoot": g.is_trace_root.number(),
                        "GRPCStatusCode": g.grpc_status_code, "HTTPMethod": g.http_method,
                        "HTTPEndpoint": g.http_endpoint, "srv_src": g.service_source,
                        "SpanDerivedPrimaryTags": g.span_derived_primary_tags,
                        "AdditionalMetricTags": g.additional_metric_tags,
                    })
                })
                .collect();
            json!({"Start": b.start, "Duration": b.duration, "Stats": groups, "AgentTimeShift": b.agent_time_shift})
        })
        .collect();
    json!({
        "Hostname": p.hostname, "Env": p.env, "Version": p.version, "Stats": buckets, "Lang": p.lang,
        "TracerVersion": p.tracer_version, "RuntimeID": p.runtime_id, "Sequence": p.sequence,
        "AgentAggregation": p.agent_aggregation, "Service": p.service, "ContainerID": p.container_id,
        "Tags": p.tags, "GitCommitSha": p.git_commit_sha, "ImageTag": p.image_tag,
        "ProcessTagsHash": p.process_tags_hash, "ProcessTags": p.process_tags,
    })
}

/// Checks that `got` says all that `sent` says, and nothing but zero values
/// beyond it.
fn check(name: &str, got: &Json, sent: &Json) {
    match (got, sent) {
        (Json::Object(got), Json::Object(sent)) => {
            for (key, want) in sent {
                let key = if key == "GrpcStatusCode" { "GRPCStatusCode" } else { key };
                check(&format!("{name}/{key}"), got.get(key).unwrap_or(&Json::Null), want);
            }
            for (key, value) in got {
                let spelled =
                    sent.contains_key(key) || key == "GRPCStatusCode" && sent.contains_key("GrpcStatusCode");
                let zero = [json!(""), json!(0), json!(false), json!([]), b64(b"")].contains(value);
                assert!(spelled || zero, "{name}/{key}: {value} was never sent");
            }
        }
        (Json::Array(got), Json::Array(sent)) => {
            assert_eq!(got.len(), sent.len(), "{name}");
            got.iter().zip(sent).enumerate().for_each(|(i, (g, s))| check(&format!("{name}/{i}"), g, s));
        }
        _ => assert_eq!(got, sent, "{name}"),
    }
}

#[test]
fn captured_stats_decode_to_what_an_independent_decoder_found() {
    let mut seen = 0;
    for client in ["node-dd-trace", "python-ddtrace-2", "python-ddtrace-3", "python-ddtrace-4"] {
        for scenario in std::fs::read_dir(fixtures().join(client)).unwrap() {
            for file in std::fs::read_dir(scenario.unwrap().path()).unwrap() {
                let file = file.unwrap().path();
                let name = file.display().to_string();
                if !name.ends_with("-v06-stats.bin") {
                    continue;
                }
                let payload = decode_stats(&read(&file)).unwrap_or_else(|e| panic!("{name}: {e}"));
                check(&name, &render(&payload), &read_json(name.replace(".bin", ".decoded.json").as_ref()));
                let expected = &read_json(name.replace(".bin", ".meta.json").as_ref())["expected"];
                let groups = || payload.stats.iter().flat_map(|b| &b.stats);
                assert_eq!(payload.stats.len() as u64, expected["buckets"], "{name}");
                assert_eq!(payload.group_count() as u64, expected["groups"], "{name}");
                assert_eq!(groups().map(|g| g.hits).sum::<u64>(), expected["hits"], "{name}");
                assert_eq!(groups().map(|g| g.errors).sum::<u64>(), expected["errors"], "{name}");
                assert_eq!(
                    groups().map(|g| g.top_level_hits).sum::<u64>(),
                    expected["top_level_hits"],
                    "{name}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen >= 8, "only {seen} captures found");
}

#[test]
fn faults_carry_the_text_and_the_path_of_the_field() {
    for (body, text) in [
        ("", "EOF"),
        ("90", "msgp: attempted to decode type \"array\" with method for \"map\""),
        (
            "81 a8 486f73746e616d65 c0",
            "msgp: attempted to decode type \"nil\" with method for \"str\" at Hostname",
        ),
        (
            "81 a5 5374617473 91 82 a5 5374617274 01 a5 5374617473 91 81 a4 48697473 ff",
            "msgp: attempted to cast int -1 to unsigned at Stats/0/Stats/0/Hits",
        ),
        ("81 a5 5374617473 dd ffffffff", "msgp: configured reader limit exceeded"),
        ("82 a3 456e76 a1", "unexpected EOF"),
    ] {
        assert_eq!(stats_error_text(&decode_stats(&hex(body)).unwrap_err()), text, "{body}");
    }
    assert_eq!(decode_stats(b"").unwrap_err(), DecodeError::UnexpectedEof);
    assert!(decode_stats(br#"{"Stats":[]}"#).is_err());
}

#[test]
fn nil_elements_and_unknown_keys_are_passed_over() {
    assert_eq!(decode_stats(b"\x80\x80garbage").unwrap(), ClientStatsPayload::default());
    let p = decode_stats(&hex(
        "82 a7 556e6b6e6f776e 92 c0 81 01 02 a5 5374617473 92 c0 82 a5 5374617473 92 c0 81 a4 48697473 05 \
         a5 5374617274 01",
    ))
    .unwrap();
    assert_eq!(
        (p.stats.len(), p.stats[0].start, p.stats[0].stats.len(), p.stats[0].stats[0].hits),
        (1, 1, 1, 5)
    );
}

#[test]
fn a_body_of_empty_groups_is_refused_before_it_takes_much_memory() {
    let mut body = hex("81 a5 5374617473 91 81 a5 5374617473 dd 00 07 00 00");
    body.extend(vec![0x80; 0x70000]);
    assert!(matches!(decode_stats(&body), Err(DecodeError::Limit(_))));
}
