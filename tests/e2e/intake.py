"""Stands for the Datadog intake, and reads what the Agent sends there."""

import collections
import gzip
import http.server
import struct
import threading

import msgpack
import zstandard

Span = collections.namedtuple("Span", "payload chunk service name resource trace_id span_id parent_id error meta metrics type")


class Intake:
    """Stands for the Datadog intake: keeps every body, unpacked."""

    def __init__(self):
        self.bodies = []
        intake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                intake.bodies.append((self.path, dict(self.headers), body))
                self.send_response(202)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def texts(self):
        out = []
        for path, headers, body in list(self.bodies):
            if headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            elif headers.get("Content-Encoding") == "zstd":
                body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
            out.append((path, body))
        return out

    def spans(self):
        """All spans of all payloads (datadog-agent:pkg/proto/datadog/trace)."""
        return [span for path, body in self.texts() if path == "/api/v0.2/traces" for span in agent_payload(body)]

    def groups(self):
        """All groups of all buckets of statistics."""
        out = []
        for path, body in self.texts():
            if path == "/api/v0.2/stats":
                for client in msgpack.unpackb(body)["Stats"]:
                    out += [group for bucket in client["Stats"] for group in bucket["Stats"]]
        return out


def fields(message):
    """(number, value) of each field: numbers, or bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        else:
            length = {1: 8, 5: 4}.get(kind) or varint()
            value, at = message[at:at + length], at + length
        yield key >> 3, value


def whole(message):
    out = collections.defaultdict(list)
    for number, value in fields(message):
        out[number].append(value)
    return out


def text(message, number):
    return message[number][0].decode() if message[number] else ""


def number(message, field):
    return message[field][0] if message[field] else 0


def texts(entries):
    return {text(e, 1): text(e, 2) for e in map(whole, entries)}


def agent_payload(body):
    agent = whole(body)
    for tracer in map(whole, agent[5]):
        payload = {"host": text(agent, 1), "language": text(tracer, 2), "tracer": text(tracer, 4), "env": text(tracer, 8), "hostname": text(tracer, 9),
                   "version": text(tracer, 10)}
        for chunk in map(whole, tracer[6]):
            about = {"priority": number(chunk, 1), "tags": texts(chunk[4]), "dropped": bool(number(chunk, 5))}
            for s in map(whole, chunk[3]):
                metrics = {text(e, 1): struct.unpack("<d", e[2][0])[0] if e[2] else 0 for e in map(whole, s[11])}
                yield Span(payload, about, text(s, 1), text(s, 2), text(s, 3), number(s, 4), number(s, 5), number(s, 6), number(s, 9), texts(s[10]),
                           metrics, text(s, 12))
