"""Jaeger's own clients: spans over HTTP and in datagrams, and what they are
told to sample.
"""

import struct

import grpc
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


@pytest.mark.parametrize("port", ["jaeger_sampling_grpc", "jaeger_grpc"])
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_what_to_sample_is_told_over_grpc_too(spanloom, port, compression):
    with grpc.insecure_channel(f"127.0.0.1:{spanloom.port[port]}", compression=compression) as channel:
        ask = channel.unary_unary("/jaeger.api_v2.SamplingManager/GetSamplingStrategy")
        answer = ask(b"\x0a\x03web", timeout=10)
        # probabilistic_sampling { sampling_rate: 1 }; the type is PROBABILISTIC, which is 0.
        assert answer == b"\x12\x09\x09" + struct.pack("<d", 1)
        with pytest.raises(grpc.RpcError) as refused:
            ask(b"\x0a\x09web", timeout=10)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("path", ["/sampling?service=web", "/?service=web"])
def test_what_to_sample_is_told_on_every_path(spanloom, path):
    answer = spanloom.get("jaeger_sampling", path)
    assert answer == {"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 1}}
