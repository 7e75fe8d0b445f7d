"""Spans go where policies say, and nowhere else: shown by real backends.

The backends are Spanlooms of their own: one takes Zipkin, one stands where a
Datadog Agent would. A small HTTP server stands for the Datadog intake.
"""

import contextlib
import json
import pathlib
import time

import pytest

from conftest import Spanloom, until
from intake import Intake

EU = "type: TrafficTrace\nname: eu\nmesh: default\nselectors:\n- match: {kuma.io/zone: eu}\nconf: {backend: eu}\n"
REST = "type: TrafficTrace\nname: rest\nmesh: default\nselectors:\n- match: {kuma.io/service: '*'}\nconf: {backend: dd}\n"
FAST = {"DD_APM_CONFIG_TRACE_WRITER_FLUSH_PERIOD_SECONDS": "0.1"}


def mesh(zipkin, datadog, eu="", version="httpJson"):
    return f"""type: Mesh
name: default
tracing:
  defaultBackend: dd
  backends:
  - name: eu
    type: zipkin
    {eu}
    conf: {{url: "http://127.0.0.1:{zipkin}/api/v2/spans", apiVersion: {version}}}
  - name: dd
    type: datadog
    conf: {{address: 127.0.0.1, port: {datadog}}}
"""


@pytest.fixture
def fleet(directory):
    """Spanlooms that are stopped at the end; `make(name, resources={...})`."""
    with contextlib.ExitStack() as stack:
        def make(name, resources=None, env=None, command="run"):
            home = pathlib.Path(directory) / name
            home.mkdir()
            env = {**FAST, **(env or {})}
            if resources is not None:
                (home / "resources").mkdir()
                for file, text in resources.items():
                    (home / "resources" / file).write_text(text)
                env["SPANLOOM_RESOURCES"] = str(home / "resources")
            server = Spanloom(home, env=env, command=command).start()
            stack.callback(server.stop)
            return server
        yield make
    for log in pathlib.Path(directory).glob("*/log"):
        assert "panicked" not in log.read_text(), log.read_text()[-4000:]


def span(trace, span_id, service, zone=None, parent=None, **tags):
    if zone:
        tags["kuma.io/zone"] = zone
    now = time.time_ns() // 1000
    return {"traceId": f"{trace:032x}", "id": f"{span_id:016x}", **({"parentId": f"{parent:016x}"} if parent else {}),
            "name": "get", "kind": "SERVER", "timestamp": now, "duration": 1500,
            "localEndpoint": {"serviceName": service}, "tags": tags}


def send_zipkin(server, spans):
    status, _, body = server.request("zipkin", "/api/v2/spans", "POST", json.dumps(spans).encode(), {"Content-Type": "application/json"})
    assert status == 202, (status, body)


def send_datadog(server, spans):
    """The same spans as a Datadog tracer writes them, one chunk for each trace."""
    traces = {}
    for s in spans:
        trace = int(s["traceId"], 16) & (2**64 - 1)
        traces.setdefault(trace, []).append({
            "trace_id": trace, "span_id": int(s["id"], 16), "parent_id": int(s.get("parentId", "0"), 16),
            "service": s["localEndpoint"]["serviceName"], "name": "web.request", "resource": "GET /", "type": "web",
            "start": s["timestamp"] * 1000, "duration": s["duration"] * 1000, "error": 0, "meta": s["tags"], "metrics": {"_sampling_priority_v1": 1},
        })
    status, _, body = server.request("agent", "/v0.4/traces", "PUT", json.dumps(list(traces.values())).encode(),
                                     {"Content-Type": "application/json", "X-Datadog-Trace-Count": str(len(traces))})
    assert status == 200, (status, body)


def held(server, traces):
    """(trace, span id, service) of what a server holds of these traces."""
    out = set()
    for trace in traces:
        for s in server.trace(f"{trace:032x}") or []:
            out.add((trace, int(s["spanID"], 16), s["service"]))
    return out


def ids(spans):
    return {(int(s["traceId"], 16), int(s["id"], 16), s["localEndpoint"]["serviceName"]) for s in spans}


def status(server):
    code, out, err = server.cli("status", "--json")
    assert code == 0, err
    return json.loads(out)


def quiet(server):
    def check():
        figures = status(server)["figures"]
        return all(v == 0 for k in ("queue_requests", "queue_pending_spans") for v in figures.get(k, {}).values())
    until("empty queues", check)


@pytest.mark.parametrize("send", [send_zipkin, send_datadog])
@pytest.mark.parametrize("version", ["httpJson", "httpProto"])
def test_spans_of_the_eu_go_to_the_zipkin_in_the_eu_and_everything_else_to_datadog(fleet, send, version):
    eu, dd = fleet("eu"), fleet("dd")
    server = fleet("front", {"mesh.yaml": mesh(eu.port["zipkin"], dd.agent_port, version=version), "policies.yaml": EU + "---\n" + REST})
    # Traces inside and outside of the EU, and traces that pass the border:
    # each of their spans goes by its own tags.
    inside = [span(t, t * 10, "shop", "eu") for t in range(1, 6)]
    outside = [span(t, t * 10, "shop", "us") for t in range(6, 9)] + [span(t, t * 10, "bank") for t in range(9, 11)]
    border = [(span(t, t * 10, "edge", "us"), span(t, t * 10 + 1, "shop", "eu", parent=t * 10)) for t in range(11, 14)]
    everything = inside + outside + [s for pair in border for s in pair]
    send(server, everything)
    for_eu = inside + [pair[1] for pair in border]
    for_dd = outside + [pair[0] for pair in border]
    traces = range(1, 14)
    until("the EU's spans", lambda: held(eu, traces) >= ids(for_eu))
    until("the others", lambda: held(dd, traces) >= ids(for_dd))
    quiet(server)
    assert held(eu, traces) == ids(for_eu)
    assert held(dd, traces) == ids(for_dd)
    assert held(server, traces) == ids(everything), "the store of this machine has them all"

    told = status(server)
    destinations = {d["destination"]: (d["delivered"], d["failed"]) for d in told["destinations"]}
    assert destinations == {
        "store": (len(everything), 0), "policies": (len(everything), 0),
        "backend eu": (len(for_eu), 0), "backend dd": (len(for_dd), 0),
    }
    sent = told["figures"]["sent_items_total"]
    assert sorted(sent.values()) == sorted([len(for_eu), len(for_dd)])
    assert told["ledger"]["adds_up"]


@pytest.mark.parametrize("send", [send_zipkin, send_datadog])
def test_with_a_key_neither_spans_nor_statistics_of_the_eu_reach_the_datadog_intake(fleet, send):
    intake, eu = Intake(), fleet("eu")
    env = {"DD_API_KEY": "0" * 32, "DD_APM_DD_URL": intake.url}
    server = fleet("front", {"mesh.yaml": mesh(eu.port["zipkin"], 1), "eu.yaml": EU}, env)
    inside = [span(t, t * 10, "secret-shop", "eu") for t in range(1, 6)]
    mixed = [span(7, 70, "open-edge"), span(7, 71, "secret-shop", "eu", parent=70)]
    outside = [span(t, t * 10, "open-bank", "us") for t in range(8, 11)]
    send(server, inside + mixed + outside)
    traces = range(1, 11)
    until("the EU's spans", lambda: held(eu, traces) == ids(inside + mixed[1:]))
    until("the others", lambda: any(b"open-bank" in body for path, body in intake.texts() if path == "/api/v0.2/traces"))
    assert server.stop() == 0, "which flushes the statistics"
    texts = intake.texts()
    assert any(b"open-bank" in body for path, body in texts if path == "/api/v0.2/stats")
    assert any(b"open-edge" in body for path, body in texts if path == "/api/v0.2/traces")
    for path, body in texts:
        assert b"secret-shop" not in body, path


def test_changed_policies_hold_at_once_and_broken_ones_never(fleet):
    eu, dd = fleet("eu"), fleet("dd")
    files = {"mesh.yaml": mesh(eu.port["zipkin"], dd.agent_port), "eu.yaml": EU}
    server = fleet("front", files)
    folder = pathlib.Path(server.extra["SPANLOOM_RESOURCES"])
    log = pathlib.Path(server.directory) / "log"
    first = span(1, 1, "shop", "eu")
    send_zipkin(server, [first, span(2, 2, "bank")])
    until("the first span", lambda: held(eu, [1]) == ids([first]))
    assert held(dd, [1, 2]) == set(), "no policy and no key: it stays"

    # Broken: said with file and line, and the old policies go on.
    (folder / "eu.yaml").write_text(EU.replace("kuma.io/zone: eu", "kuma.io/zone: ''"))
    until("the message", lambda: "eu.yaml:5:11: TrafficTrace eu: selectors[0].match" in log.read_text())
    until("the notice", lambda: any("eu.yaml:5:11" in n for n in status(server)["notices"]))
    code, _, err = server.cli("check", "--resources", str(folder))
    assert code == 1 and "tag value must be non-empty; write the value" in err, err
    second = span(3, 3, "shop", "eu")
    send_zipkin(server, [second])
    until("still to the EU", lambda: held(eu, [3]) == ids([second]))

    # Corrected, with another backend.
    (folder / "eu.yaml").write_text(EU.replace("backend: eu", "backend: dd"))
    until("the new policy", lambda: not any("eu.yaml" in n for n in status(server)["notices"]))
    third = span(4, 4, "shop", "eu")
    send_zipkin(server, [third])
    until("now to the other", lambda: held(dd, [4]) == ids([third]))
    quiet(server)
    assert held(eu, [4]) == set() and held(dd, [1, 2, 3]) == set()

    # Gone.
    (folder / "eu.yaml").unlink()
    until("one message for each change", lambda: log.read_text().count("hold") >= 4)
    fourth = span(5, 5, "shop", "eu")
    send_zipkin(server, [fourth])
    until("in the store", lambda: held(server, [5]) == ids([fourth]))
    quiet(server)
    assert held(eu, [5]) | held(dd, [5]) == set()


def test_a_trace_is_sent_whole_or_not_at_all_at_the_percentage(fleet):
    eu = fleet("eu")
    server = fleet("front", {"mesh.yaml": mesh(eu.port["zipkin"], 1, eu="sampling: 30"), "eu.yaml": EU})
    traces = range(1, 301)
    # Two spans of each trace, in requests of their own.
    for part in (0, 1):
        send_zipkin(server, [span(t, t * 10 + part, "shop", "eu") for t in traces])
    quiet(server)
    counts = {}
    for trace, _, _ in held(eu, traces):
        counts[trace] = counts.get(trace, 0) + 1
    assert set(counts.values()) == {2}
    assert 50 < len(counts) < 130, len(counts)
    events = {e["reason"]: e["count"] for e in status(server)["ledger"]["events"] if e["event"] == "spans_not_sent_by_policy"}
    assert events == {"percentage": 2 * (300 - len(counts))}


def test_what_a_backend_cannot_take_waits_on_disk_over_a_kill(fleet):
    eu = fleet("eu")
    server = fleet("front", {"mesh.yaml": mesh(eu.port["zipkin"], 1), "eu.yaml": EU}, {"SPANLOOM_ACK": "always"})
    eu.kill()
    spans = [span(t, t * 10, "shop", "eu") for t in range(1, 21)]
    send_zipkin(server, spans)
    until("tries", lambda: sum(status(server)["figures"].get("send_retries_total", {}).values()) > 0)
    server.kill()
    server.start()
    eu.start()
    until("what waited", lambda: held(eu, range(1, 21)) == ids(spans), seconds=40)


def test_an_agent_without_key_and_store_sends_by_policy_over_otlp(fleet):
    otel = fleet("otel")
    policy = lambda endpoint: (
        "type: Mesh\nname: default\ntracing:\n  defaultBackend: o\n  backends:\n"
        f"  - {{name: o, type: openTelemetry, conf: {{endpoint: '{endpoint}'}}}}\n---\n"
        "type: TrafficTrace\nname: all\nselectors:\n- match: {kuma.io/service: '*'}\n"
    )
    for number, endpoint in enumerate([f"http://127.0.0.1:{otel.port['otlp_http']}/v1/traces", f"127.0.0.1:{otel.port['otlp_grpc']}"]):
        agent = fleet(f"agent{number}", {"all.yaml": policy(endpoint)}, command="agent")
        spans = [span(t, t * 10, "shop") for t in range(100 * number + 1, 100 * number + 11)]
        send_datadog(agent, spans)
        traces = [int(s["traceId"], 16) for s in spans]
        until(endpoint, lambda: held(otel, traces) == ids(spans))


def test_wrong_resources_are_an_error_at_the_start_with_its_place(directory):
    folder = pathlib.Path(directory) / "resources"
    folder.mkdir()
    (folder / "mesh.json").write_text('{"type": "Mesh", "name": "default", "tracing": {"backends": [\n  {"name": "z", "type": "zipkin", "conf": {"url": "http://z/"}}]}}')
    server = Spanloom(directory, env={"SPANLOOM_RESOURCES": str(folder)})
    code, _, err = server.cli("run")
    assert code == 1
    assert "mesh.json:2:44: Mesh default: tracing.backends[0].conf.url: port has to be explicitly specified; write the port" in err, err
