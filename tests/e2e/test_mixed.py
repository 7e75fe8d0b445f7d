"""One request through services and Envoys that speak different protocols is
one trace with the right parents, by whichever API it is read.

Two fleets. In the first, each hop hands on what the next understands: Datadog
headers, W3C and B3 side by side. In the second, B3 alone: one header and
several, ids of 64 and 128 bits. `docs/mapping.md` says what joins and what
cannot.
"""

import collections
import contextlib
import json
import time
import urllib.request

import jaeger_client
import opentracing
import pytest
from py_zipkin import Encoding, Kind
from py_zipkin.transport import SimpleHTTPTransport
from py_zipkin.zipkin import zipkin_span

import envoys
from conftest import running, scratch, until
from envoys import Envoy
from services import READERS, App, Backend


def get(url, headers=None):
    """What the last service in the chain was sent."""
    request = urllib.request.Request(url, headers=headers or {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


class Fleet:
    """Built from the back: everyone must know whom it calls."""

    def __init__(self, stack):
        self.stack = stack
        self.directory = stack.enter_context(scratch())
        self.server = stack.enter_context(running(self.directory))
        self.backend = Backend()
        stack.callback(self.backend.stop)
        self.next = self.backend.port
        self.apps = []

    def envoy(self, name, tracer, env=None, **listener):
        ports = self.server.port
        collectors = {"datadog": self.server.agent_port, "zipkin": ports["zipkin"], "otlp_grpc": ports["otlp_grpc"], "otlp_http": ports["otlp_http"]}
        envoy = Envoy(self.directory, name, [envoys.listener(name, tracer, **listener)], self.next, collectors, env)
        self.stack.callback(envoy.stop)
        self.next = envoy.wait().port[name]
        return self

    def app(self, program, name, **env):
        app = App(program, name, self.directory, f"http://127.0.0.1:{self.next}/", **env)
        self.stack.callback(app.stop)
        self.next = app.wait().port
        self.apps.append(app)
        return self

    def ddtrace(self, service, extract, inject, **env):
        return self.app(
            "ddtrace_app", service, DD_SERVICE=service, DD_TRACE_AGENT_URL=self.server.url("agent", ""),
            DD_TRACE_PROPAGATION_STYLE_EXTRACT=extract, DD_TRACE_PROPAGATION_STYLE_INJECT=inject,
            DD_TRACE_REMOVE_INTEGRATION_SERVICE_NAMES_ENABLED="true", DD_INSTRUMENTATION_TELEMETRY_ENABLED="false", DD_REMOTE_CONFIGURATION_ENABLED="false", **env)

    def otel(self, service, propagators):
        return self.app(
            "otel_app", service, OTEL_SERVICE_NAME=service, OTEL_PROPAGATORS=propagators,
            OTEL_EXPORTER_OTLP_ENDPOINT=self.server.url("otlp_http", ""))

    def sent(self, trace_id):
        """{service: spans} that the libraries say they sent of a trace. Ends
        the services, which makes them send what they hold."""
        return {app.name: app.stop().get(trace_id, 0) for app in self.apps}


#: What is expected of a service in the chain: how many spans; the kinds of the
#: span that was called and of the one that calls the next service.
Hop = collections.namedtuple("Hop", "service spans called calls")


def check(server, trace_id, chain):
    paths = [" > ".join(h.service for h in chain[:n + 1]) for n in range(len(chain))]
    expected = {path: hop.spans for path, hop in zip(paths, chain)}
    borders = sorted((path, hop.called, before.calls) for path, hop, before in zip(paths[1:], chain[1:], chain))
    for name, read in READERS.items():
        def whole():
            spans = read(server, trace_id)
            return spans if len(spans) >= sum(expected.values()) else None
        spans = until(f"{name}: {sum(expected.values())} spans of {trace_id}", whole)
        assert collections.Counter(s.path for s in spans) == expected, name
        if name != "terminal":
            assert sorted((s.path, s.kind, s.caller) for s in spans if s.caller) == borders, name
            root = [s for s in spans if s.path == chain[0].service]
            assert chain[0].called in [s.kind for s in root], name


@pytest.fixture(scope="module")
def every_tongue():
    """edge (Envoy, Datadog) > shop (ddtrace) > mid (Envoy, Zipkin) > cart (OpenTelemetry) > last (Envoy, OTLP) > backend,
    called directly, by a ddtrace that still makes ids of 64 bits, and by an OpenTelemetry service that knows W3C only."""
    with contextlib.ExitStack() as stack:
        fleet = Fleet(stack)
        fleet.envoy("last", envoys.otlp_grpc("last")).otel("cart", "tracecontext,b3multi")
        fleet.envoy("mid", envoys.zipkin()).ddtrace("shop", "datadog,tracecontext", "datadog,tracecontext,b3multi")
        fleet.envoy("edge", envoys.datadog("edge"))
        edge = fleet.next
        callers = {"edge": f"http://127.0.0.1:{edge}/"}
        for caller in ("old", "web"):
            fleet.next = edge
            if caller == "old":
                fleet.ddtrace("old", "datadog", "datadog", DD_TRACE_128_BIT_TRACEID_GENERATION_ENABLED="false")
            else:
                fleet.otel("web", "tracecontext")
            callers[caller] = f"http://127.0.0.1:{fleet.next}/"
        yield fleet, {caller: get(url + "item/1") for caller, url in callers.items()}


@pytest.mark.parametrize("caller", ["edge", "old", "web"])
def test_a_request_through_every_tracer_is_one_trace(every_tongue, caller):
    fleet, answers = every_tongue
    trace_id = answers[caller]["traceparent"].split("-")[1]
    assert (int(trace_id, 16) >> 64 == 0) == (caller == "old"), "the old tracer makes ids of 64 bits, the others of 128"
    sent = fleet.sent(trace_id)
    app = lambda name: Hop(name, sent[name], "server", "client")
    proxy = lambda name: Hop(name, 1, "server", "server")
    chain = [proxy("edge"), app("shop"), proxy("mid"), app("cart"), proxy("last")]
    if caller != "edge":
        chain.insert(0, app(caller))
    assert sent["shop"] > 2 and sent["cart"] == 2
    check(fleet.server, trace_id, chain)


@pytest.fixture(scope="module")
def b3_alone():
    """phone (py_zipkin) > gate (Envoy, Zipkin, ids not shared) > cart (OpenTelemetry) > out > in (Envoys,
    Zipkin, ids shared) > shop (ddtrace) > edge (Envoy, Datadog, told to read B3) > backend. gate and in send protobuf,
    whose span ids Envoy writes the wrong way round.

    The gate is called four times: with one header and with several, with ids of 64 and of 128 bits."""
    with contextlib.ExitStack() as stack:
        fleet = Fleet(stack)
        fleet.envoy("edge", envoys.datadog("edge"), {"DD_TRACE_PROPAGATION_STYLE": "B3"}).ddtrace("shop", "b3", "b3multi")
        fleet.envoy("in", envoys.zipkin("HTTP_PROTO")).envoy("out", envoys.zipkin(), direction="OUTBOUND").otel("cart", "b3")
        fleet.envoy("gate", envoys.zipkin("HTTP_PROTO", shared=False), upstream_span=True)
        transport = SimpleHTTPTransport("127.0.0.1", fleet.server.port["zipkin"])
        answers = {}
        for style in ("single", "multi"):
            for wide in (False, True):
                with zipkin_span(
                    service_name="phone", span_name="tap", transport_handler=transport, sample_rate=100.0, encoding=Encoding.V2_JSON,
                    kind=Kind.CLIENT, use_128bit_trace_id=wide,
                ) as span:
                    headers = b3(span, style)
                    answers[style, wide] = get(f"http://127.0.0.1:{fleet.next}/item/1", headers)
        yield fleet, answers


def b3(span, style):
    ids = span.zipkin_attrs
    if style == "single":
        return {"b3": f"{ids.trace_id}-{ids.span_id}-1"}
    return {"X-B3-TraceId": ids.trace_id, "X-B3-SpanId": ids.span_id, "X-B3-Sampled": "1"}


@pytest.mark.parametrize("wide", [False, True], ids=["64 bits", "128 bits"])
@pytest.mark.parametrize("style", ["single", "multi"])
def test_b3_alone_keeps_a_trace_together(b3_alone, style, wide):
    fleet, answers = b3_alone
    answer = answers[style, wide]
    trace_id = answer["x-b3-traceid"].rjust(32, "0")
    assert (int(trace_id, 16) >> 64 != 0) == wide
    sent = fleet.sent(trace_id)
    assert sent["shop"] > 2 and sent["cart"] == 2
    check(fleet.server, trace_id, [
        Hop("phone", 1, "client", "client"), Hop("gate", 2, "server", "client"), Hop("cart", 2, "server", "client"),
        Hop("out", 1, "client", "client"), Hop("in", 1, "server", "server"), Hop("shop", sent["shop"], "server", "client"),
        Hop("edge", 1, "server", "server")])


@pytest.mark.parametrize("wide", [False, True], ids=["64 bits", "128 bits"])
def test_an_old_jaeger_client_takes_part(wide):
    """radio (jaeger-client) > cart (OpenTelemetry, reads `uber-trace-id`) > mid (Envoy, Zipkin) > backend"""
    with contextlib.ExitStack() as stack:
        fleet = Fleet(stack)
        fleet.envoy("mid", envoys.zipkin()).otel("cart", "jaeger,b3multi")
        agent = {"reporting_host": "127.0.0.1", "reporting_port": fleet.server.port["jaeger_compact"]}
        settings = {"sampler": {"type": "const", "param": 1}, "local_agent": agent, "generate_128bit_trace_id": wide}
        tracer = jaeger_client.Config(config=settings, service_name="radio").new_tracer()
        with tracer.start_span("tune", tags={"span.kind": "client"}) as span:
            headers = {}
            tracer.inject(span.context, opentracing.Format.HTTP_HEADERS, headers)
            get(f"http://127.0.0.1:{fleet.next}/item/1", headers)
        until("the client's end", tracer.close().done)
        trace_id = f"{span.context.trace_id:032x}"
        assert (int(trace_id, 16) >> 64 != 0) == wide and fleet.sent(trace_id)["cart"] == 2
        check(fleet.server, trace_id, [
            Hop("radio", 1, "client", "client"), Hop("cart", 2, "server", "client"), Hop("mid", 1, "server", "server")])


def test_half_of_an_id_is_enough_for_datadog_but_another_trace_for_b3(spanloom):
    """A service that hands on `x-datadog-trace-id` without `x-datadog-tags`, or the last 16 digits of B3's id."""
    with contextlib.ExitStack() as stack:
        backend = Backend()
        stack.callback(backend.stop)
        collectors = {"datadog": spanloom.agent_port, "zipkin": spanloom.port["zipkin"]}
        listeners = [envoys.listener("datadog", envoys.datadog("envoy")), envoys.listener("b3", envoys.zipkin(shared=False))]
        envoy = Envoy(spanloom.directory, "envoy", listeners, backend.port, collectors)
        stack.callback(envoy.stop)
        envoy.wait()

        first = get(envoy.url("datadog"))
        half = {name: first[name] for name in ("x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority")}
        second = get(envoy.url("datadog"), half)
        assert second["traceparent"].startswith("00-" + "0" * 16), "Envoy itself knows the half only"
        whole = first["traceparent"].split("-")[1]
        for name, read in READERS.items():
            spans = until(f"{name}: both", lambda: (lambda s: s if len(s) == 2 else None)(read(spanloom, whole)))
            assert {s.path for s in spans} == {"envoy"}, name

        first = get(envoy.url("b3"))
        whole, parent = first["x-b3-traceid"], first["x-b3-spanid"]
        second = get(envoy.url("b3"), {"x-b3-traceid": whole[16:], "x-b3-spanid": parent, "x-b3-sampled": "1"})
        assert second["x-b3-traceid"] == whole[16:]
        for trace_id in (whole, whole[16:]):
            until("each alone", lambda: len(spanloom.trace(trace_id) or []) == 1)


def test_the_calls_between_the_services_are_known(every_tongue):
    fleet, answers = every_tongue
    for app in fleet.apps:
        app.stop()
    calls = {("old", "edge"): 1, ("web", "edge"): 1, ("edge", "shop"): 3, ("shop", "mid"): 3, ("cart", "last"): 3,
             # Zipkin's rule: what names a shared id and is of neither half's service was called by the client.
             ("shop", "cart"): 3}
    window = f"endTs={time.time_ns() // 1_000_000 + 60_000}&lookback=3600000"
    for port, path in (("zipkin", "/api/v2/dependencies"), ("query", "/api/dependencies")):
        def known():
            answer = fleet.server.get(port, f"{path}?{window}")
            return {(d["parent"], d["child"]): d["callCount"] for d in (answer["data"] if port == "query" else answer)}
        until(f"{port}: the calls, not {known()}", lambda: known() == calls)
