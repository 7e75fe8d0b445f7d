#!/usr/bin/env python3
"""Drives a live Jaeger agent port with jaeger-client (Python) and reports what it sent: Thrift compact in datagrams.

  JAEGER_HOST (127.0.0.1)  JAEGER_COMPACT_PORT (6831)  TRACES (50)  RUN_ID  PACE_MS (2)
  SAMPLING_PORT            asks that port what to sample, and begins when it has been told; without it everything is sampled
The counts are made where the library hands finished spans to its reporter. One JSON line at exit.
"""
import collections, json, os, time
from importlib.metadata import version
import opentracing
from jaeger_client import Config

E = os.environ.get
N, RUN, PACE, SVC = int(E("TRACES", "50")), E("RUN_ID", "run-jaeger-py-%d" % os.getpid()), float(E("PACE_MS", "2")) / 1000, "e2e-jaeger-py"
C = {"spans": 0, "errors": 0, "by_service": collections.Counter(), "by_name": collections.Counter(), "by_trace": {}}
agent = {"reporting_host": E("JAEGER_HOST", "127.0.0.1"), "reporting_port": int(E("JAEGER_COMPACT_PORT", "6831"))}
sampler = {"type": "const", "param": 1}
if E("SAMPLING_PORT"):
    # Without a type the sampler is the remote one.
    agent["sampling_port"], sampler = int(E("SAMPLING_PORT")), {}
config = Config(config={"sampler": sampler, "local_agent": agent, "generate_128bit_trace_id": True, "reporter_flush_interval": 0.2,
                        "sampling_refresh_interval": 0.1, "tags": {"run.id": RUN, "deployment.environment": "e2e"}}, service_name=SVC, validate=True)
tracer = config.initialize_tracer()
report = tracer.reporter.report_span


def counted(span):
    bad = any(t.key == "error" and t.vBool for t in span.tags)
    C["spans"] += 1; C["errors"] += bad; C["by_service"][SVC] += 1; C["by_name"][span.operation_name] += 1
    t = C["by_trace"].setdefault("%032x" % span.context.trace_id, {"spans": 0, "errors": 0}); t["spans"] += 1; t["errors"] += bad
    report(span)


tracer.reporter.report_span = counted
t0, prev = time.time(), None
told = lambda: getattr(getattr(tracer.sampler, "sampler", None), "rate", None)
while E("SAMPLING_PORT") and told() != 1 and time.time() < t0 + 10:
    time.sleep(0.02)
for i in range(N):
    root = tracer.start_span("GET /cart", tags={"span.kind": "server", "http.status_code": 500 if i % 5 == 0 else 200, "note.utf8": "grün-日本-🚀", "ratio": 0.25, "flag": True})
    child = tracer.start_span("SELECT cart", child_of=root, tags={"span.kind": "client", "db.system": "postgresql", "peer.service": "db"})
    child.log_kv({"event": "rows", "n": i % 11}); child.finish()
    if prev:
        tracer.start_span("follow up", references=[opentracing.follows_from(root.context), opentracing.follows_from(prev)]).finish()
    if i % 5 == 0:
        s = tracer.start_span("charge", child_of=root); s.set_tag("error", True); s.log_kv({"event": "error", "message": "card declined #%d" % i}); s.finish()
        root.set_tag("error", True)
    prev = root.context; root.finish()
    time.sleep(PACE)
done = tracer.close()
while not done.done():
    time.sleep(0.02)
print(json.dumps({"client": "python-jaeger", "version": version("jaeger-client"), "protocol": "udp", "rate": told(), "run_id": RUN, "started": t0, "ended": time.time(),
                  "traces": len(C["by_trace"]), **C}), flush=True)
