"""A Flask service traced by an unmodified ddtrace, which calls UPSTREAM.

The tracer is set up by its own variables (DD_SERVICE, DD_TRACE_AGENT_URL,
DD_TRACE_PROPAGATION_STYLE_...). Prints its port, then, when its input ends,
how many spans it sent: {trace id: count}.
"""

import collections
import json
import os
import sys
import threading

from ddtrace import patch

patch(flask=True, requests=True)
import flask
import requests
from ddtrace import tracer
from ddtrace.trace import TraceFilter
from werkzeug.serving import make_server

sent = collections.Counter()


class Count(TraceFilter):
    """Sees every chunk right before it is encoded."""

    def process_trace(self, trace):
        sent.update("%032x" % span.trace_id for span in trace)
        return trace


tracer.configure(trace_processors=[Count()])
app = flask.Flask("shop")


@app.get("/<path:path>")
def forward(path):
    answer = requests.get(os.environ["UPSTREAM"] + path, timeout=20)
    return flask.Response(answer.content, status=answer.status_code, content_type="application/json")


server = make_server("127.0.0.1", 0, app, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"port": server.server_port}), flush=True)
sys.stdin.read()
server.shutdown()
tracer.shutdown(timeout=10)
print(json.dumps(sent), flush=True)
