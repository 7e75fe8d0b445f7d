"""Tail rules govern what leaves: an agent without a store decides in its buffer on disk.

A small HTTP server stands for the Datadog intake.
"""

import json
import time

import pytest

from conftest import until
from intake import Intake
from test_routing import fleet, held, ids, mesh, send_zipkin, span, status  # noqa: F401 (fleet is a fixture)

RULES = {"wait": "1s", "rest": 0, "rules": [{"name": "errors", "error": True}]}


def agent(fleet, intake, rules=RULES, **env):
    env = {"DD_API_KEY": "0" * 32, "DD_APM_DD_URL": intake.url, "SPANLOOM_TAIL_SAMPLING": json.dumps(rules), **env}
    return fleet("agent", env=env, command="agent")


def send(server, trace, service, error=0, priority=1, span_id=None):
    """One span of a trace, as a Datadog tracer sends it; returns the rates that tracers are told."""
    body = [[{
        "trace_id": trace, "span_id": span_id or trace * 10, "parent_id": 0, "service": service, "name": "web.request",
        "resource": "GET /", "type": "web", "start": time.time_ns(), "duration": 1000, "error": error, "meta": {},
        "metrics": {"_sampling_priority_v1": priority},
    }]]
    status, _, answer = server.request("agent", "/v0.4/traces", "PUT", json.dumps(body).encode(),
                                       {"Content-Type": "application/json", "X-Datadog-Trace-Count": "1"})
    assert status == 200, (status, answer)
    return json.loads(answer)["rate_by_service"]


def sent(intake, service, path="/api/v0.2/traces"):
    return sum(body.count(service.encode()) for p, body in intake.texts() if p == path)


def figures(server, name):
    found = status(server)["figures"].get(name, {})
    return found if isinstance(found, (int, float)) else sum(found.values())


def test_an_agent_keeps_errors_and_drops_the_rest_and_says_why(fleet):
    intake = Intake()
    server = agent(fleet, intake, DD_APM_TARGET_TPS="1")
    for trace in range(1, 41):
        rates = send(server, trace, "failing" if trace % 4 == 0 else "fine", error=int(trace % 4 == 0))
        assert rates == {"service:,env:": 1}, "tracers are told to send everything"
    # The user's own word is obeyed as ever.
    send(server, 101, "by-hand-kept", priority=2)
    send(server, 102, "by-hand-dropped", error=1, priority=-1)
    until("the verdicts", lambda: figures(server, "tail_unsent_spans_total") == 30)
    until("what is kept", lambda: (sent(intake, "failing"), sent(intake, "by-hand-kept")) == (10, 1))

    for trace, told in [(4, "sent by errors at rate 1"), (5, "dropped by rest"), (101, "sent by manual_keep"),
                        (102, "sampled out by manual_drop"), (999, "never arrived")]:
        code, out, err = server.cli("why", f"{trace:x}")
        assert code == 0 and out.startswith(told), (trace, out, err)
    # Pieces that come later follow.
    send(server, 5, "fine", error=1, span_id=51)
    send(server, 4, "failing", span_id=41)
    until("a late piece", lambda: sent(intake, "failing") == 11)
    ledger = status(server)["ledger"]
    assert ledger["adds_up"] and ledger["spans"]["kept"] == 12 and ledger["spans"]["sampled_out"] == 32
    by_reason = {r["reason"]: r["spans"] for r in ledger["by_reason"] if r["outcome"] == "sampled_out"}
    assert by_reason == {"tail_rules": 31, "manual_drop": 1}

    assert server.stop() == 0, "which flushes the statistics"
    assert sent(intake, "fine") == sent(intake, "by-hand-dropped") == 0
    # Statistics count every span, whatever leaves.
    assert sent(intake, "fine", "/api/v0.2/stats") > 0
    assert sent(intake, "by-hand-dropped", "/api/v0.2/stats") > 0


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_what_waits_is_on_disk_over_a_restart_and_leaves_once(fleet, end):
    intake = Intake()
    # Longer than the test takes before the restart.
    server = agent(fleet, intake, {**RULES, "wait": "1h"})
    for trace in range(1, 31):
        send(server, trace, "failing" if trace % 3 == 0 else "fine", error=int(trace % 3 == 0))
    code, out, _ = server.cli("keep", "1")
    assert code == 0 and "what waits of it to leave will leave" in out, out
    getattr(server, end)()
    assert sent(intake, "failing") == 0
    server.extra["SPANLOOM_TAIL_SAMPLING"] = json.dumps(RULES)
    server.start()
    until("the verdicts", lambda: figures(server, "tail_sent_spans_total") + figures(server, "tail_unsent_spans_total") == 30)
    until("what is kept", lambda: (sent(intake, "failing"), sent(intake, "fine")) == (10, 1))
    server.stop()
    # Without rules nothing is held, and nothing is left.
    server.extra["SPANLOOM_TAIL_SAMPLING"] = "{}"
    server.start()
    send(server, 1000, "free")
    until("at once", lambda: sent(intake, "free") == 1)
    assert (sent(intake, "failing"), sent(intake, "fine")) == (10, 1)
    assert not (server.directory / "data" / "held").exists()


def test_what_waits_leaves_when_the_rules_are_gone(fleet):
    intake = Intake()
    server = agent(fleet, intake, {**RULES, "wait": "1h"})
    for trace in range(1, 6):
        send(server, trace, "fine")
    server.stop()
    server.extra["SPANLOOM_TAIL_SAMPLING"] = "{}"
    server.start()
    until("everything", lambda: sent(intake, "fine") == 5)


def test_the_head_samplers_can_be_asked_first(fleet):
    intake = Intake()
    server = agent(fleet, intake, {**RULES, "head": "first"}, DD_APM_ERROR_TPS="0")
    send(server, 1, "failing", error=1, priority=0)
    send(server, 2, "failing", error=1, priority=1)
    until("the second", lambda: figures(server, "tail_sent_spans_total") == 1)
    code, out, _ = server.cli("why", "1")
    assert code == 0 and out.startswith("sampled out by"), out
    until("the second", lambda: sent(intake, "failing") == 1)


def test_spans_of_other_protocols_are_judged_by_their_own_names(fleet):
    intake = Intake()
    rules = {"wait": "1s", "rest": 0, "rules": [
        {"name": "by operation", "service": "^shop$", "operation": "^get$"}, {"name": "by tag", "tags": {"tier": "^gold$"}},
    ]}
    server = agent(fleet, intake, rules)
    send_zipkin(server, [span(1, 10, "shop"), span(1, 11, "shop-db", parent=10), span(2, 20, "other"), span(3, 30, "other-gold", tier="gold")])
    until("the verdicts", lambda: figures(server, "tail_sent_spans_total") + figures(server, "tail_unsent_spans_total") == 4)
    until("what is kept", lambda: sent(intake, "shop-db") > 0 and sent(intake, "other-gold") > 0)
    for trace, told in [(1, "sent by by operation"), (2, "dropped by rest"), (3, "sent by by tag")]:
        _, out, _ = server.cli("why", f"{trace:032x}")
        assert out.startswith(told), out
    ledger = status(server)["ledger"]
    assert ledger["adds_up"] and (ledger["spans"]["kept"], ledger["spans"]["sampled_out"]) == (3, 1)


@pytest.mark.parametrize("command", ["agent", "run"])
def test_backends_of_policies_get_what_rules_keep_over_a_kill_and_other_policies(fleet, command):
    eu = fleet("eu")
    policy = "type: TrafficTrace\nname: eu\nmesh: default\nselectors:\n- match: {kuma.io/service: '*'}\nconf: {backend: eu}\n"
    # Behind a backend of its own, so that numbers of backends change.
    other = policy.replace("name: eu", "name: aa").replace("'*'", "aa").replace("backend: eu", "backend: dd")
    files = {"mesh.yaml": mesh(eu.port["zipkin"], 1), "policy.yaml": policy}
    server = fleet("front", files, {"SPANLOOM_TAIL_SAMPLING": json.dumps({**RULES, "wait": "1h"})}, command=command)
    failed = [span(t, t * 10, "shop", error="true") for t in range(1, 6)]
    fine = [span(t, t * 10, "shop") for t in range(6, 11)]
    send_zipkin(server, failed + fine)
    server.kill()
    (server.directory / "resources" / "aa.yaml").write_text(other)
    server.extra["SPANLOOM_TAIL_SAMPLING"] = json.dumps(RULES)
    server.start()
    until("what is kept", lambda: held(eu, range(1, 11)) == ids(failed))
    until("the verdicts", lambda: figures(server, "tail_unsent_spans_total") == 5)
    _, out, _ = server.cli("why", f"{7:032x}")
    assert out.startswith("dropped by rest") or (command == "run" and "not sent by rest" in out), out
    assert held(eu, range(1, 11)) == ids(failed)
