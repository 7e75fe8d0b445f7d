"""Requests, errors and latencies, answered from statistics: also of traces that were sampled away."""

import json
import time

from conftest import Spanloom, client, running, until
from intake import Intake
from test_tail import send


def services(server, *args):
    code, out, err = server.cli("services", *args, "--json")
    assert code == 0, err
    return {
        (s["service"], s.get("operation", ""), s.get("resource", "")): s["points"][0] for s in json.loads(out)["series"]
    }


def requests_of(server, service):
    return services(server).get((service, "", ""), {}).get("requests", 0)


def test_a_tracers_requests_are_told_by_service_and_are_there_after_a_restart(directory):
    server = Spanloom(directory).start()
    sent = client("python-ddtrace", AGENT_PORT=server.agent_port, TRACES=20)
    until("all requests", lambda: requests_of(server, "e2e-web") == 20)
    before = services(server)
    assert set(sent["by_service"]) >= {service for service, _, _ in before}, before
    web = before["e2e-web", "", ""]
    assert 0 < web["p50"] <= web["p95"] <= web["p99"] and web["duration"] > 0, web
    # Everything that statistics know of is at least what enters services.
    assert sum(p["requests"] for p in services(server, "--all").values()) >= sum(p["requests"] for p in before.values())

    code, table, err = server.cli("services")
    assert code == 0 and "e2e-web" in table and "P95" in table, (table, err)
    code, table, _ = server.cli("services", "e2e-web")
    assert code == 0 and "web.request" in table, table
    code, table, _ = server.cli("services", "nobody")
    assert code == 0 and "No requests of `nobody`" in table, table

    # Jaeger's Monitor page: a window of ten minutes that ends after this one.
    end = int(time.time() * 1000) + 60_000
    query = f"service=e2e-web&endTs={end}&lookback=0&ratePer=600000&step=60000"
    last = lambda which: server.get("query", f"/api/metrics/{which}?{query}")["metrics"][0]["metricPoints"][-1]["gaugeValue"]["doubleValue"]
    assert abs(last("calls") - 20 / 600) < 1e-9
    assert last("errors") == web["errors"] / 20
    latency = server.get("query", f"/api/metrics/latencies?quantile=0.95&{query}")["metrics"][0]["metricPoints"][-1]
    assert abs(latency["gaugeValue"]["doubleValue"] * 1e6 / web["p95"] - 1) < 0.05, (latency, web)

    # An ordered stop, then a kill: what was flushed is there.
    assert server.stop() == 0
    server.start()
    assert services(server) == before
    server.kill()
    server.start()
    assert services(server) == before
    again = client("python-ddtrace", AGENT_PORT=server.agent_port, TRACES=5)
    assert again["traces"] == 5
    until("old and new requests", lambda: requests_of(server, "e2e-web") == 25)
    assert server.stop() == 0


def test_an_agent_tells_the_figures_of_traces_that_were_not_sent(directory):
    intake = Intake()
    env = {"DD_API_KEY": "0" * 32, "DD_APM_DD_URL": intake.url, "DD_APM_ERROR_TPS": "0"}
    with running(directory, env=env, command="agent") as server:
        for trace in range(1, 31):
            send(server, trace, "shop", error=int(trace % 3 == 0), priority=-1)
        until("all requests", lambda: requests_of(server, "shop") == 30)
        shop = services(server, "shop")["shop", "web.request", "GET /"]
        assert (shop["requests"], shop["errors"]) == (30, 10)
    assert not [p for p, body in intake.texts() if p == "/api/v0.2/traces" and b"shop" in body]
