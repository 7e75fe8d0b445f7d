"""Jaeger's own clients: spans over HTTP and in datagrams, and what they are
told to sample.
"""

import pytest

from conftest import client, compare, compare_with_zipkin

CLIENTS = [("node-jaeger", {"PROTOCOL": "http"}), ("node-jaeger", {"PROTOCOL": "udp"}), ("python-jaeger", {})]


def run(server, program, **env):
    ports = {f"{name.upper()}_PORT": server.port[name] for name in ("jaeger_http", "jaeger_binary", "jaeger_compact")}
    return client(program, TRACES=20, **ports, **env)


@pytest.mark.parametrize("program,env", CLIENTS)
def test_what_a_jaeger_client_sends_comes_back_whole_from_both_apis(spanloom, program, env):
    sent = run(spanloom, program, **env)
    compare(spanloom, sent)
    compare_with_zipkin(spanloom, sent)


@pytest.mark.parametrize("program", ["node-jaeger", "python-jaeger"])
def test_a_client_that_asks_what_to_sample_sends_everything(spanloom, program):
    sent = run(spanloom, program, SAMPLING_PORT=spanloom.port["jaeger_sampling"])
    assert sent["rate"] == 1 and sent["traces"] == 20
    compare(spanloom, sent)
