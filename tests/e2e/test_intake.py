"""OpenTelemetry services behind `spanloom agent` with a key: what reaches the
Datadog intake is what the Agent would send of their spans.
"""

import collections
import json

import pytest

from conftest import client, running, until
from intake import Intake

#: Name of the span in the SDK: (operation, resource, type, kind) in Datadog.
SPANS = {
    "python-otel": {
        "GET /cart/{id}": ("http.server.request", "GET /cart/{id}", "web", "server"),
        "SELECT cart": ("postgresql.query", "SELECT * FROM cart WHERE user_id = ?", "sql", "client"),
        "carts publish": ("Producer", "carts publish", "custom", "producer"),
        "charge": ("client.request", "charge", "http", "client"),
    },
    "node-otel": {
        "GET /cart/:id": ("http.server.request", "GET /cart/:id", "web", "server"),
        # The Agent knows `db.system` only, not `db.system.name` of newer conventions.
        "SELECT cart": ("client.request", "SELECT cart", "http", "client"),
        "charge": ("client.request", "charge", "http", "client"),
    },
}
#: The Node client's own resource leaves out what the SDK says of itself.
LANGUAGE = {"python-otel": "python", "node-otel": ""}


@pytest.mark.parametrize("program,env", [
    ("python-otel", {"OTLP_PROTOCOL": "http/protobuf"}),
    ("python-otel", {"OTLP_PROTOCOL": "grpc"}),
    ("node-otel", {"PROTOCOL": "http/json"}),
    ("node-otel", {"PROTOCOL": "grpc"}),
])
def test_spans_of_opentelemetry_reach_the_datadog_intake_as_the_agent_would_send_them(directory, program, env):
    intake = Intake()
    settings = {"DD_API_KEY": "0" * 32, "DD_APM_DD_URL": intake.url, "DD_APM_CONFIG_TRACE_WRITER_FLUSH_PERIOD_SECONDS": "0.1"}
    with running(directory, command="agent", env=settings) as agent:
        sent = client(program, TRACES=10, OTLP_HTTP_PORT=agent.port["otlp_http"], OTLP_GRPC_PORT=agent.port["otlp_grpc"], **env)
        until("every span", lambda: len(intake.spans()) >= sent["spans"])
        status = json.loads(agent.cli("status", "--json")[1])
    # It has ended, which flushes the statistics.
    spans, groups = intake.spans(), intake.groups()

    wanted = {}
    for name, count in sent["by_name"].items():
        wanted[SPANS[program][name]] = count
    assert collections.Counter((s.name, s.resource, s.type, s.meta["span.kind"]) for s in spans) == wanted
    assert {s.service for s in spans} == {sent["service"]}
    assert sum(s.error for s in spans) == sent["errors"]
    # 128 bits: the low half is the trace id, all of it is a tag.
    assert {s.meta["otel.trace_id"] for s in spans} == set(sent["by_trace"])
    assert all(s.trace_id == int(s.meta["otel.trace_id"][16:], 16) for s in spans)
    ids = {s.span_id for s in spans}
    assert len(ids) == len(spans) and all(s.parent_id == 0 or s.parent_id in ids for s in spans)
    for s in spans:
        payload = {"host": "e2e-host", "language": LANGUAGE[program], "env": "e2e", "hostname": "e2e-host", "version": "1.0.0"}
        assert {**payload, "tracer": s.payload["tracer"]} == s.payload
        assert s.payload["tracer"].startswith("otlp-")
        assert s.chunk == {"priority": 1, "tags": {"_dd.p.dm": "-9", "_dd.otlp_sr": "1.00"}, "dropped": False}
        assert s.meta["run.id"] == sent["run_id"], "attributes of the resource"
        if s.parent_id == 0:
            assert s.metrics["_top_level"] == 1 and s.meta["note.utf8"] == "grün-日本-🚀" and s.metrics["ratio"] == 0.25

    # Every span has a kind that is counted.
    counted = collections.Counter()
    for g in groups:
        counted[g["Name"], g["Resource"], g["Type"], g["SpanKind"]] += g["Hits"]
    assert counted == wanted
    assert sum(g["Errors"] for g in groups) == sent["errors"]
    assert sum(g["TopLevelHits"] for g in groups) == sent["traces"]

    ledger = status["ledger"]
    assert ledger["adds_up"] and ledger["spans"]["received"] == ledger["spans"]["kept"] == sent["spans"], ledger
    assert status["destinations"] == [{"destination": "datadog", "delivered": sent["spans"], "failed": 0}]
