"""Unmodified Datadog tracers, over both transports, against the running program."""

import concurrent.futures
import json
import pathlib
import socket

import pytest

from conftest import Spanloom, client, compare, until


@pytest.mark.parametrize("program", ["python-ddtrace", "node-dd-trace"])
@pytest.mark.parametrize("version", ["v0.4", "v0.5"])
def test_what_a_tracer_sends_over_both_transports_at_once_comes_back_whole(spanloom, program, version):
    api = version if program == "python-ddtrace" else version.removeprefix("v")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        tcp = pool.submit(client, program, AGENT_PORT=spanloom.agent_port, API_VERSION=api, TRACES=20, RUN_ID="tcp")
        uds = pool.submit(client, program, AGENT_UDS=spanloom.socket, API_VERSION=api, TRACES=20, RUN_ID="uds")
        for sent in (tcp.result(), uds.result()):
            compare(spanloom, sent)


@pytest.mark.parametrize("program,mode", [
    ("python-ddtrace", "flask"), ("python-ddtrace", "rich"), ("python-ddtrace", "long"),
    ("node-dd-trace", "express"), ("node-dd-trace", "long"),
])
def test_frameworks_links_events_and_traces_in_many_pieces_come_back_whole(spanloom, program, mode):
    sent = client(program, AGENT_PORT=spanloom.agent_port, MODE=mode, TRACES=6)
    compare(spanloom, sent)


def test_traces_are_there_after_the_process_was_killed_and_started_again(directory):
    server = Spanloom(directory, env={"SPANLOOM_ACK": "always"}).start()
    sent = client("python-ddtrace", AGENT_PORT=server.agent_port, TRACES=20)
    compare(server, sent)
    server.kill()
    server.start()
    compare(server, sent)
    again = client("node-dd-trace", AGENT_UDS=server.socket, TRACES=10)
    compare(server, again)
    assert server.stop() == 0
    server.start()
    compare(server, sent)
    compare(server, again)
    assert server.stop() == 0


@pytest.mark.parametrize("uds", [False, True])
def test_in_front_of_an_agent_both_have_every_trace_and_the_agent_answers(directory, uds):
    homes = [pathlib.Path(directory) / name for name in ("behind", "front")]
    for home in homes:
        home.mkdir()
    behind = Spanloom(homes[0], env={"DD_ENV": "behind"}).start()
    address = f"unix://{behind.socket}" if uds else f"http://127.0.0.1:{behind.agent_port}"
    front = Spanloom(homes[1], env={"SPANLOOM_FORWARD_AGENT": address}).start()
    assert front.request("agent", "/info")[2] == behind.request("agent", "/info")[2]
    sent = client("python-ddtrace", AGENT_PORT=front.agent_port, TRACES=20, STATS=1)
    compare(front, sent)
    compare(behind, sent)

    # The Agent goes away: tracers notice nothing, and we have what they send.
    assert behind.stop() == 0
    again = client("python-ddtrace", AGENT_UDS=front.socket, TRACES=10)
    compare(front, again)
    events = {(e["event"], e["reason"]): e["count"] for e in front.get("admin", "/status")["ledger"]["events"]}
    assert events["forwarded", "answered"] > 0 and events["not_forwarded", "unreachable"] > 0, events
    assert front.stop() == 0
    for home in homes:
        assert "panicked" not in (home / "log").read_text()


@pytest.mark.parametrize("uds", [False, True])
def test_the_agents_own_metrics_reach_dogstatsd_with_its_names_and_tags(directory, uds):
    path = str(pathlib.Path(directory) / "dsd.socket")
    with socket.socket(socket.AF_UNIX if uds else socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(path if uds else ("127.0.0.1", 0))
        statsd.settimeout(30)
        env = {"DD_DOGSTATSD_PORT": "0", "DD_DOGSTATSD_SOCKET": path} if uds else {"DD_DOGSTATSD_PORT": str(statsd.getsockname()[1])}
        server = Spanloom(directory, env=env).start()
        sent = client("python-ddtrace", AGENT_PORT=server.agent_port, TRACES=7)
        compare(server, sent)
        totals, tags = {}, set()
        while totals.get("receiver.spans_received", 0) < sent["spans"]:
            for line in statsd.recv(65536).decode().split("\n"):
                name, rest = line.removeprefix("datadog.trace_agent.").split(":", 1)
                value, kind, labels = rest.split("|")
                totals[name] = totals.get(name, 0) + float(value)
                tags |= set(labels.removeprefix("#").split(",")) if name == "receiver.trace" else set()
        assert totals["started"] == 1 and totals["heartbeat"] >= 1, totals
        assert totals["receiver.spans_received"] == sent["spans"] and totals["receiver.payload_accepted"] >= 1, totals
        assert totals["receiver.trace"] == totals["receiver.traces_received"] == totals["receiver.traces_priority"] >= sent["traces"]
        expected = {"lang:python", "endpoint_version:v0.5", "connection_type:tcp", "version:7.80.2"}
        assert expected <= {t.replace("v0.4", "v0.5") for t in tags}, tags
        assert any(t.startswith("tracer_version:") for t in tags) and any(t.startswith("service:e2e-") for t in tags), tags
        assert server.stop() == 0


def test_a_strangers_trace_is_found_in_the_terminal_within_a_second(spanloom):
    sent = client("python-ddtrace", AGENT_PORT=spanloom.agent_port, TRACES=3)
    trace_id = next(iter(sent["by_trace"]))
    until("search", lambda: trace_id in spanloom.cli("search", "service:e2e-web", "--json")[1], seconds=2)
    code, out, err = spanloom.cli("trace", trace_id)
    assert code == 0, err
    assert "web.request" in out and "e2e-db" in out
    code, out, _ = spanloom.cli("trace", trace_id, "--json")
    assert code == 0 and json.loads(out)


def test_the_ledger_adds_up_after_real_traffic(spanloom):
    sent = client("python-ddtrace", AGENT_PORT=spanloom.agent_port, TRACES=10)
    compare(spanloom, sent)
    code, out, err = spanloom.cli("status", "--json")
    assert code == 0, err
    ledger = json.loads(out)["ledger"]["spans"]
    assert ledger["received"] == sent["spans"], ledger
    assert ledger["received"] == sum(v for k, v in ledger.items() if k != "received"), ledger
