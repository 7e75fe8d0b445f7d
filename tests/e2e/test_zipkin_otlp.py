"""Unmodified OpenTelemetry and Zipkin libraries, over every protocol they have."""

import pytest

from conftest import client, compare, compare_with_zipkin, until


@pytest.mark.parametrize("program,env", [
    ("python-otel", {"OTLP_PROTOCOL": "http/protobuf"}),
    ("python-otel", {"OTLP_PROTOCOL": "http/protobuf", "OTLP_COMPRESSION": "gzip"}),
    ("python-otel", {"OTLP_PROTOCOL": "grpc"}),
    ("python-otel", {"OTLP_PROTOCOL": "grpc", "OTLP_COMPRESSION": "gzip"}),
    ("node-otel", {"PROTOCOL": "http/json"}),
    ("node-otel", {"PROTOCOL": "http/protobuf"}),
    ("node-otel", {"PROTOCOL": "grpc"}),
    ("node-otel", {"PROTOCOL": "zipkin"}),
    ("python-zipkin", {"ENCODING": "v2json"}),
    ("python-zipkin", {"ENCODING": "v2proto"}),
    ("python-zipkin", {"ENCODING": "v1json"}),
    ("node-zipkin", {"ENCODING": "v2json"}),
    ("node-zipkin", {"ENCODING": "v1json"}),
])
def test_what_a_library_sends_comes_back_whole_from_both_apis(spanloom, program, env):
    sent = client(
        program, TRACES=20, OTLP_HTTP_PORT=spanloom.port["otlp_http"], OTLP_GRPC_PORT=spanloom.port["otlp_grpc"],
        ZIPKIN_PORT=spanloom.port["zipkin"], **env,
    )
    compare(spanloom, sent)
    compare_with_zipkin(spanloom, sent)
    # Refusals would have been sent again or lost; there must have been none.
    metrics = until("metrics", lambda: spanloom.get("admin", "/metrics", raw=True)[1].decode())
    assert "panic" not in metrics


def test_one_trace_of_two_worlds_is_one_trace(spanloom):
    trace_id, parent, child = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
    otlp = (
        '{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"front"}}]},'
        '"scopeSpans":[{"spans":[{"traceId":"%s","spanId":"%s","name":"GET /","kind":2,'
        '"startTimeUnixNano":"1795190000000000000","endTimeUnixNano":"1795190000500000000"}]}]}]}' % (trace_id, parent)
    )
    zipkin = (
        '[{"traceId":"%s","id":"%s","parentId":"%s","name":"query","kind":"CLIENT","timestamp":1795190000100000,'
        '"duration":1000,"localEndpoint":{"serviceName":"back"}}]' % (trace_id, child, parent)
    )
    json = {"Content-Type": "application/json"}
    assert spanloom.request("otlp_http", "/v1/traces", "POST", otlp.encode(), json)[0] == 200
    assert spanloom.request("zipkin", "/api/v2/spans", "POST", zipkin.encode(), json)[0] == 202
    spans = until("both spans", lambda: (lambda s: s if s and len(s) == 2 else None)(spanloom.trace(trace_id)))
    by_id = {s["spanID"]: s for s in spans}
    assert by_id[child]["references"][0]["spanID"] == parent
    assert {s["service"] for s in spans} == {"front", "back"}
    assert len(spanloom.get("zipkin", f"/api/v2/trace/{trace_id}")) == 2
