"""Small services between Envoys, and a view of a trace that is the same for every API."""

import collections
import http.server
import json
import pathlib
import subprocess
import sys
import threading

from conftest import without_settings

APPS = pathlib.Path(__file__).parent / "apps"

#: One span: the services on the way to it from the root; its kind; the kind of
#: its parent if that is of another service. Kinds are "" where an API has none.
Seen = collections.namedtuple("Seen", "path kind caller")
#: The position of a parent that did not arrive.
MISSING = -1


class App:
    """One of `apps/`. `stop` gives the spans it sent, {trace id: count}."""

    def __init__(self, program, name, directory, upstream, **env):
        self.name = name
        self.log = pathlib.Path(directory) / f"{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(APPS / f"{program}.py")], env={**without_settings(), "UPSTREAM": upstream, **env},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.sent = None

    def say(self):
        line = self.process.stdout.readline()
        assert line, "the service ended: " + self.log.read_text()[-3000:]
        return json.loads(line)

    def wait(self):
        self.port = self.say()["port"]
        self.url = f"http://127.0.0.1:{self.port}/"
        return self

    def stop(self):
        if self.sent is None:
            self.process.stdin.close()
            self.sent = self.say()
            self.process.wait(timeout=20)
        return self.sent


class Backend:
    """Not traced: answers with the headers that it was sent."""

    def __init__(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
                status = int(self.path.rsplit("/", 1)[1]) if self.path.startswith("/status/") else 200
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def seen(spans):
    """`spans`: [(service, kind, position of the parent, or None or MISSING)]."""
    spans = spans + [("(missing)", "", None)]

    def path(at):
        services, steps = [], 0
        while at is not None:
            service, _, at = spans[at]
            steps += 1
            assert steps <= len(spans), "the parents run in a circle"
            if not services or services[-1] != service:
                services.append(service)
        return " > ".join(reversed(services))

    def caller(at):
        service, _, parent = spans[at]
        return "" if parent is None or spans[parent][0] == service else spans[parent][1]

    return [Seen(path(at), kind, caller(at)) for at, (_, kind, _) in enumerate(spans[:-1])]


def by_jaeger(server, trace_id):
    spans = server.trace(trace_id) or []
    position = {s["spanID"]: at for at, s in enumerate(spans)}
    assert len(position) == len(spans), "span ids are told apart"
    out = []
    for s in spans:
        assert s["traceID"].rjust(32, "0") == trace_id.rjust(32, "0"), s
        kind = next((t["value"] for t in s["tags"] if t["key"] == "span.kind"), "internal")
        parents = [r["spanID"] for r in s["references"] if r["refType"] == "CHILD_OF"]
        assert len(parents) <= 1, s
        out.append((s["service"], kind, position.get(parents[0], MISSING) if parents else None))
    return seen(out)


def by_zipkin(server, trace_id):
    """Parents by the ids: a shared span lies below the span that has its id,
    children of an id below the half of their own service, else below the
    shared half. (Zipkin's own page puts the last below the client's half.)"""
    status, body = server.get("zipkin", f"/api/v2/trace/{trace_id}", raw=True)
    if status == 404:
        return []
    spans = json.loads(body)
    service = lambda s: s["localEndpoint"]["serviceName"]
    halves = collections.defaultdict(list)
    for at, s in enumerate(spans):
        assert s["traceId"].rjust(32, "0") == trace_id.rjust(32, "0"), s
        halves[s["id"]].append(at)
    out = []
    for at, s in enumerate(spans):
        others = [h for h in halves[s["id"]] if h != at]
        if s.get("shared") and others:
            parent = others[0]
        elif "parentId" in s:
            found = halves.get(s["parentId"], [])
            own = [h for h in found if service(spans[h]) == service(s)]
            shared = [h for h in found if spans[h].get("shared")]
            parent = (own + shared + found + [MISSING])[0]
        else:
            parent = None
        out.append((service(s), s.get("kind", "internal").lower(), parent))
    return seen(out)


def by_terminal(server, trace_id):
    """`spanloom trace`: the indentation is the tree."""
    code, text, _ = server.cli("trace", trace_id)
    if code != 0:
        return []
    spans, open_at = [], []
    for line in text.splitlines()[1:]:
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip(" "))) // 2
        del open_at[depth:]
        spans.append((line.split()[0], "", open_at[-1] if open_at else None))
        open_at.append(len(spans) - 1)
    return seen(spans)


READERS = {"jaeger": by_jaeger, "zipkin": by_zipkin, "terminal": by_terminal}
