"""A service traced by the OpenTelemetry SDK, which calls UPSTREAM.

The SDK is set up by its own variables (OTEL_SERVICE_NAME, OTEL_PROPAGATORS,
OTEL_EXPORTER_OTLP_ENDPOINT). Prints its port, then, when its input ends, how
many spans it sent: {trace id: count}.
"""

import collections
import http.server
import json
import os
import sys
import threading
import urllib.error
import urllib.request

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

sent = collections.Counter()


class Count(SpanProcessor):
    def on_end(self, span):
        sent["%032x" % span.context.trace_id] += 1


provider = TracerProvider()
provider.add_span_processor(Count())
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=200))
tracer = provider.get_tracer("app")


class Forward(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        # Header names in the case that a propagator asks for them in.
        headers = {name.lower(): value for name, value in self.headers.items()}
        with tracer.start_as_current_span("GET", propagate.extract(headers), SpanKind.SERVER):
            with tracer.start_as_current_span("call", kind=SpanKind.CLIENT):
                onwards = {}
                propagate.inject(onwards)
                request = urllib.request.Request(os.environ["UPSTREAM"] + self.path[1:], headers=onwards)
                with urllib.request.urlopen(request, timeout=20) as answer:
                    body = answer.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forward)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"port": server.server_port}), flush=True)
sys.stdin.read()
server.shutdown()
provider.shutdown()
print(json.dumps(sent), flush=True)
