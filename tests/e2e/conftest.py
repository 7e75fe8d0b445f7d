"""A running Spanloom for each test module, and the means to drive it.

The binary is the one that was just built; the clients are the real libraries
of `clients/`. Every listener gets a free port, so that runs do not disturb
each other or a Spanloom that is already there.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(
    os.environ.get("SPANLOOM_BINARY", pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "spanloom")
)
PORTS = [
    "zipkin", "otlp_grpc", "otlp_http", "jaeger_http", "jaeger_grpc", "jaeger_compact", "jaeger_binary",
    "jaeger_sampling", "jaeger_sampling_grpc", "query", "tempo", "mesh", "xds", "admin",
]


def without_settings():
    """The environment without what would configure a client or a server."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("DD_", "SPANLOOM_", "OTEL_"))}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, check, seconds=20):
    """Waits for a condition; the only place that sleeps. Fails with the last value seen."""
    deadline, last = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        last = check()
        if last:
            return last
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s, last seen {last!r}")


class Spanloom:
    def __init__(self, directory, env=None, command="run"):
        self.directory = pathlib.Path(directory)
        self.command = command
        self.port = {name: free_port() for name in PORTS}
        self.agent_port = free_port()
        # Unix socket paths are limited to 108 bytes: a short directory of its own.
        self.socket = str(self.directory / "apm.socket")
        self.extra = dict(env or {})
        self.process = None
        self.log = open(self.directory / "log", "ab")

    def env(self):
        env = without_settings()
        for name, port in self.port.items():
            env[f"SPANLOOM_{name.upper()}_ADDRESS"] = f"127.0.0.1:{port}"
        env["DD_APM_RECEIVER_PORT"] = str(self.agent_port)
        env["DD_APM_RECEIVER_SOCKET"] = self.socket
        env["DD_HOSTNAME"] = "e2e-host"
        env["SPANLOOM_DATA_DIR"] = str(self.directory / "data")
        env.update(self.extra)
        return env

    def start(self):
        for attempt in range(4):
            self.process = subprocess.Popen([BINARY, self.command], env=self.env(), stdout=self.log, stderr=subprocess.STDOUT)
            until("readyz or its end", lambda: self.process.poll() is not None or self.ready())
            if self.process.poll() is None or "is in use by" not in (self.directory / "log").read_text():
                break
            # Somebody took a port between the look and the start: others.
            self.port = {name: free_port() for name in PORTS}
            self.agent_port = free_port()
        assert self.ready()
        return self

    def ready(self):
        assert self.process.poll() is None, "spanloom ended: " + (self.directory / "log").read_text()[-2000:]
        try:
            return self.get("admin", "/readyz", raw=True)[0] == 200
        except OSError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            return self.process.wait(timeout=30)
        return self.process.returncode if self.process else None

    def url(self, which, path):
        port = self.agent_port if which == "agent" else self.port[which]
        return f"http://127.0.0.1:{port}{path}"

    def request(self, which, path, method="GET", body=None, headers=None):
        """(status, headers, body bytes)"""
        request = urllib.request.Request(self.url(which, path), data=body, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def get(self, which, path, raw=False):
        status, _, body = self.request(which, path)
        if raw:
            return status, body
        assert status == 200, (status, body[:500])
        return json.loads(body)

    def cli(self, *args):
        done = subprocess.run([BINARY, *args], env=self.env(), capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def trace(self, trace_id):
        """The spans of a trace in Jaeger's JSON, with their service; None if unknown."""
        status, body = self.get("query", f"/api/traces/{trace_id}", raw=True)
        if status == 404:
            return None
        assert status == 200, (status, body[:500])
        data = json.loads(body)["data"][0]
        spans = data["spans"]
        for span in spans:
            span["service"] = data["processes"][span["processID"]]["serviceName"]
        return spans


@contextlib.contextmanager
def scratch():
    """A directory that is removed at the end."""
    path = tempfile.mkdtemp(prefix="spl")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(directory, **settings):
    """A Spanloom that must end well."""
    server = Spanloom(directory, **settings)
    try:
        yield server.start()
    finally:
        code = server.stop()
    log = (pathlib.Path(directory) / "log").read_text()
    assert code == 0, f"exit code {code}: {log[-2000:]}"
    assert "panicked" not in log, log[-4000:]


@pytest.fixture
def directory():
    with scratch() as path:
        yield path


@pytest.fixture
def spanloom(directory):
    with running(directory) as server:
        yield server


def client(program, **env):
    """Runs one of the real client programs; returns what it says it sent."""
    folder = ROOT / "clients" / program
    python = folder / "client.py"
    command = [sys.executable, str(python)] if python.exists() else ["node", "client.js"]
    done = subprocess.run(
        command, cwd=folder, env={**without_settings(), **{k: str(v) for k, v in env.items()}}, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def is_error(span):
    return any(t["key"] == "error" and t["value"] in (True, "true") for t in span["tags"])


def compare(server, sent):
    """What a client says it sent against what the Jaeger API returns, span by span."""
    assert sent["traces"] == len(sent["by_trace"]) and sent["spans"] > 0
    by_service = {}
    for trace_id, expected in sent["by_trace"].items():
        def whole():
            spans = server.trace(trace_id)
            return spans if spans is not None and len(spans) >= expected["spans"] else None
        spans = until(f"trace {trace_id} with {expected['spans']} spans", whole)
        assert len(spans) == expected["spans"], f"{trace_id}: {len(spans)} spans, {expected['spans']} sent"
        assert sum(map(is_error, spans)) == expected["errors"], trace_id
        for span in spans:
            by_service[span["service"]] = by_service.get(span["service"], 0) + 1
    if "by_service" in sent:
        assert by_service == sent["by_service"]


def compare_with_zipkin(server, sent):
    """What a client says it sent against what Zipkin's API returns."""
    for trace_id, expected in sent["by_trace"].items():
        # Zipkin shows a 64-bit id as 16 digits, and takes both.
        spans = server.get("zipkin", f"/api/v2/trace/{trace_id}")
        assert len(spans) == expected["spans"], trace_id
        assert {s["traceId"].rjust(32, "0") for s in spans} == {trace_id}
        assert sum("error" in s.get("tags", {}) for s in spans) == expected["errors"], trace_id
    services = server.get("zipkin", "/api/v2/services")
    assert set(s.lower() for s in sent["by_service"]) <= set(services)
