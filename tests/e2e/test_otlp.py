"""What OTLP promises besides taking spans: partial success, answers that say
when to try again, compression, browsers.
"""

import concurrent.futures
import contextlib
import gzip
import json
import socket

import grpc
import pytest
import zstandard
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from conftest import client, compare, running, until

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROTO = {"Content-Type": "application/x-protobuf"}
MEMORY = 1 << 20


def spans(*trace_ids):
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for n, trace_id in enumerate(trace_ids):
        scope.spans.add(trace_id=trace_id.to_bytes(16, "big"), span_id=(n + 1).to_bytes(8, "big"), name="work", start_time_unix_nano=1795190000000000000,
                        end_time_unix_nano=1795190000001000000)
    return request.SerializeToString()


@contextlib.contextmanager
def export(server, **options):
    with grpc.insecure_channel(f"127.0.0.1:{server.port['otlp_grpc']}", **options) as channel:
        yield channel.unary_unary(EXPORT)


def ledger(server):
    return json.loads(server.cli("status", "--json")[1])["ledger"]


@contextlib.contextmanager
def narrow(directory):
    """A Spanloom with little memory that refuses at once what finds no room."""
    env = {"SPANLOOM_INTAKE_MEMORY": str(MEMORY), "DD_APM_DECODER_TIMEOUT": "20"}
    with running(directory, env=env) as server:
        yield server


@contextlib.contextmanager
def full(server):
    """All of the memory is taken by requests that do not end."""
    size = MEMORY // 2
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.port["otlp_http"])))
            head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: {size}\r\n\r\n"
            slow.sendall(head.encode() + bytes(size - 1))
        until("no room", lambda: server.request("otlp_http", "/v1/traces", "POST", spans(), PROTO)[0] == 429)
        yield


@pytest.mark.parametrize("program,env", [
    ("python-otel", {"OTLP_PROTOCOL": "http/protobuf"}),
    ("python-otel", {"OTLP_PROTOCOL": "grpc"}),
    ("node-otel", {"PROTOCOL": "http/json"}),
    ("node-otel", {"PROTOCOL": "http/protobuf"}),
    # The gRPC exporter of OpenTelemetry JS does not try again.
])
def test_what_was_refused_is_sent_again_by_the_library_until_all_has_arrived(directory, program, env):
    with narrow(directory) as server, concurrent.futures.ThreadPoolExecutor() as pool:
        with full(server):
            before = ledger(server)["payloads"]["refused"]
            run = pool.submit(client, program, TRACES=20, OTLP_HTTP_PORT=server.port["otlp_http"], OTLP_GRPC_PORT=server.port["otlp_grpc"], **env)
            until("a refusal", lambda: ledger(server)["payloads"]["refused"] > before)
        sent = run.result()
        compare(server, sent)
        after = ledger(server)
        assert after["adds_up"] and after["spans"]["kept"] == sent["spans"], after
        assert {r["reason"] for r in after["payload_reasons"]} == {"memory", "unexpected_eof"}, after


def test_a_refusal_says_when_to_try_again(directory):
    with narrow(directory) as server, full(server):
        status, headers, body = server.request("otlp_http", "/v1/traces", "POST", spans(1), PROTO)
        assert (status, headers["Retry-After"]) == (429, "1")
        assert Status.FromString(body).code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        with export(server) as call, pytest.raises(grpc.RpcError) as refused:
            call(spans(1), timeout=10)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        details = Status.FromString(dict(refused.value.trailing_metadata())["grpc-status-details-bin"])
        assert details.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        retry = RetryInfo()
        assert details.details[0].Unpack(retry) and retry.retry_delay.seconds == 1


def test_of_a_request_with_bad_spans_the_good_ones_are_kept(spanloom):
    trace_id = 0xAF7651916CD43DD8448EB211C80319C
    bad = spans(trace_id, 0, 0)
    with export(spanloom) as call:
        answers = [call(bad, timeout=10)]
    status, _, body = spanloom.request("otlp_http", "/v1/traces", "POST", bad, PROTO)
    assert status == 200
    answers.append(body)
    for answer in answers:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
        assert partial.rejected_spans == 2 and "trace id" in partial.error_message
    until("the good span", lambda: spanloom.trace(f"{trace_id:032x}"))
    counts = ledger(spanloom)["spans"]
    assert counts["received"] == 6 and counts["rejected"] == 4, counts
    # Nothing is said when there is nothing to say.
    status, _, body = spanloom.request("otlp_http", "/v1/traces", "POST", spans(trace_id), PROTO)
    assert (status, body) == (200, b"")


@pytest.mark.parametrize("coding,compress", [
    ("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress),
])
def test_compressed_requests_are_taken(spanloom, coding, compress):
    status, _, _ = spanloom.request("otlp_http", "/v1/traces", "POST", compress(spans(1, 1)), {**PROTO, "Content-Encoding": coding})
    assert status == 200
    until("the trace", lambda: len(spanloom.trace(f"{1:032x}") or []) == 2)


def test_compressed_calls_are_taken(spanloom):
    # grpcio has gzip and deflate; zstd is among the tests of the receivers.
    for trace_id, compression in [(1, grpc.Compression.Gzip), (2, grpc.Compression.Deflate)]:
        with export(spanloom, compression=compression) as call:
            call(spans(*[trace_id] * 3), timeout=10)
        until(f"{compression}", lambda: len(spanloom.trace(f"{trace_id:032x}") or []) == 3)


def test_pages_of_the_origins_in_the_settings_may_send(directory):
    with running(directory, env={"SPANLOOM_OTLP_HTTP_CORS_ORIGINS": "https://shop.example,https://*.other.example"}) as server:
        for origin, allowed in [("https://shop.example", True), ("https://a.other.example", True), ("https://evil.example", False)]:
            ask = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
            status, headers, _ = server.request("otlp_http", "/v1/traces", "OPTIONS", headers=ask)
            assert status == 204 and headers["Access-Control-Allow-Origin"] == (origin if allowed else None)
            if allowed:
                assert headers["Access-Control-Allow-Headers"].lower() == "content-type"
            status, headers, _ = server.request("otlp_http", "/v1/traces", "POST", b"{}", {"Content-Type": "application/json", "Origin": origin})
            assert status == 200 and headers["Access-Control-Allow-Origin"] == (origin if allowed else None)
