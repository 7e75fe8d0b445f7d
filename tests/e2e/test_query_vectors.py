"""The shared query vectors against the running program: in over the real
ports, out over the real ports. `fixtures/vectors/query/README.md` defines the
format.
"""

import json
import pathlib
import re

import pytest

import jaeger_thrift
from conftest import ROOT, Spanloom, until

VECTORS = sorted((ROOT / "fixtures/vectors/query").glob("q*.json"))
PORT = {"zipkin": "zipkin", "jaeger-v1": "query", "jaeger-v3": "query", "tempo": "tempo"}
#: As much of Tempo's messages as the vectors look at: field number → name and fields inside; lists end in `[]`.
SPANS = {2: ("spans[]", {5: ("name", None)})}
TRACE = {1: ("resourceSpans[]", {2: ("scopeSpans[]", SPANS)})}
MESSAGES = {"tempopb.Trace": TRACE, "tempopb.TraceByIDResponse": {1: ("trace", TRACE)}}


def steps(path):
    for part in re.findall(r"\[[^\]]*\]|[^.\[\]]+", path.removeprefix("$").lstrip(".")):
        yield part


def extract(value, path):
    """Values at a path; a missing one yields an empty list."""
    values = [value]
    parts = list(steps(path))
    for at, part in enumerate(parts):
        out = []
        for v in values:
            if part == "[*]":
                out += v if isinstance(v, list) else list(v.values()) if isinstance(v, dict) else []
            elif part.startswith("[?"):
                key, _, wanted = part[2:-1].partition("=")
                found = [e for e in v if isinstance(e, dict) and str(e.get(key)) == wanted] if isinstance(v, list) else []
                out += found
            elif part.startswith("["):
                index = int(part[1:-1])
                out += [v[index]] if isinstance(v, list) and index < len(v) else []
            elif isinstance(v, dict) and part in v:
                out.append(v[part])
        values = out
    return values


def same(a, b):
    """Equality by the README's comparison notes."""
    return canonical(a) == canonical(b)


def canonical(v, unordered=(), path="$"):
    if isinstance(v, dict):
        out = {}
        for key, item in v.items():
            if key == "flags" or (key in ("tags", "annotations", "errorCount") and not item):
                continue
            out[key] = canonical(item, unordered, f"{path}.{key}")
            if key == "tags" and isinstance(item, list):
                out[key] = sorted(out[key], key=lambda x: json.dumps(x, sort_keys=True))
        return out
    if isinstance(v, list):
        items = [canonical(i, unordered, f"{path}[*]") for i in v]
        if any(re.fullmatch(re.escape(u).replace(r"\[\*\]", r"\[\*\]"), path) for u in unordered):
            items.sort(key=lambda x: json.dumps(x, sort_keys=True))
        return items
    if isinstance(v, float) and v.is_integer():
        return int(v)
    return v


def check_one(expect, answer, body):
    unordered = [re.sub(r"\[\d+\]", "[*]", u if u.startswith("$") else f"$.{u}") for u in expect.get("unordered", [])]
    if "text" in expect:
        assert body.decode().removesuffix("\n") == expect["text"].removesuffix("\n")
    if "text_contains" in expect:
        assert expect["text_contains"] in body.decode()
    if "json" in expect:
        got, wanted = canonical(answer, unordered), canonical(expect["json"], unordered)
        if got != wanted and isinstance(wanted, dict):
            # api_v3: `{}` and an object of empty lists are equal.
            got = {k: v for k, v in got.items() if v != []}
            wanted = {k: v for k, v in wanted.items() if v != []}
        assert got == wanted
    if "extract" in expect:
        values = extract(answer, expect["extract"])
        if "list" in expect:
            assert values == expect["list"]
        if "set" in expect:
            assert sorted(map(json.dumps, values)) == sorted(map(json.dumps, expect["set"]))
        if "value" in expect:
            assert values[:1] == [expect["value"]]
    for c in expect.get("checks", []):
        check(c, answer, body)


def at(answer, path):
    values = extract(answer, path)
    several = "[*]" in path or path.endswith("]") and "[?" in path.rsplit(".", 1)[-1] or len(values) > 1
    return values if several else values[0] if values else None


def where(answer, condition):
    for s in extract(answer, "data[*].spans[*]"):
        if s["operationName"] != condition["operationName"]:
            continue
        tags = {t["key"]: t["value"] for t in s["tags"]}
        if all(tags.get(key) == value for key, value in condition.get("tag", {}).items()):
            return s
    raise AssertionError(f"no span for {condition}")


def varint(data, at):
    value, shift = 0, 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def protobuf(data, fields):
    """A message as JSON, as far as its fields are known."""
    out, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 2:
            length, at = varint(data, at)
            value, at = data[at:at + length], at + length
            name, inside = fields.get(key >> 3, (None, None))
            value = value.decode(errors="replace") if inside is None else protobuf(value, inside)
            if name and name.endswith("[]"):
                out.setdefault(name.removesuffix("[]"), []).append(value)
            elif name:
                out[name] = value
        else:
            at = varint(data, at)[1] if key & 7 == 0 else at + (8 if key & 7 == 1 else 4)
    return out


def check(c, answer, body):
    if "protobuf" in c:
        answer = protobuf(body, MESSAGES[c["protobuf"]])
    if "where" in c:
        got = at(where(answer, c["where"]), c["field"])
        if "equals_field_of" in c:
            other = c["equals_field_of"]
            assert got == at(where(answer, other["where"]), other["field"]), c
        elif "contains" in c:
            assert all(any(same(w, g) for g in got) for w in c["contains"]), (c, got)
        else:
            assert same(got, c["equals"]), (c, got)
    elif "count" in c:
        assert len(extract(answer, c["count"])) == c["equals"], c
    elif "count_distinct" in c:
        assert len(set(map(json.dumps, extract(answer, c["count_distinct"])))) == c["equals"], c
    elif "no_key" in c:
        assert all(t["key"] != c["no_key"] for v in extract(answer, c["in"]) for t in (v if isinstance(v, list) else [v])), c
    elif "json_at" in c:
        got = at(answer, c["json_at"])
        if "equals" in c:
            assert same(got, c["equals"]), (c, got)
        as_list = got if isinstance(got, list) else [got]
        if "contains" in c:
            assert all(any(same(w, g) for g in as_list) for w in c["contains"]), (c, got)
        if "contains_keys" in c:
            assert all(same(got.get(k), v) for k, v in c["contains_keys"].items()), (c, got)
        if "set" in c:
            assert sorted(json.dumps(canonical(g), sort_keys=True) for g in as_list) == sorted(
                json.dumps(canonical(w), sort_keys=True) for w in c["set"]), (c, got)
        if "set_contains" in c:
            assert all(any(same(w, g) for g in as_list) for w in c["set_contains"]), (c, got)
    else:
        check_one(c, answer, body)


def send(server, step):
    if step["protocol"] == "jaeger-json":
        for batch in jaeger_thrift.batches(step["body"]):
            status, _, body = server.request(
                "jaeger_http", "/api/traces", "POST", batch, {"Content-Type": "application/x-thrift"})
            assert status == 202, (status, body)
        return
    port = "otlp_http" if step["protocol"].startswith("otlp") else "zipkin"
    body = step["raw"].encode() if "raw" in step else json.dumps(step["body"]).encode()
    status, _, answer = server.request(port, step["path"], step.get("method", "POST"), body, step.get("headers", {}))
    expect = step.get("expect", {})
    if expect.get("accepted") or "status" not in expect:
        assert status in (200, 202), (status, answer)
    else:
        assert status == expect["status"], (status, answer)
    if "text" in expect:
        assert answer.decode().removesuffix("\n") == expect["text"].removesuffix("\n")
    if "text_contains" in expect:
        assert expect["text_contains"] in answer.decode()
    if "json" in expect:
        assert json.loads(answer or b"null") == expect["json"]
    if "json_any_of" in expect:
        assert json.loads(answer or b"null") in expect["json_any_of"]


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_what_comes_in_by_one_protocol_is_found_by_every_api(directory, path):
    case = json.loads(path.read_text())
    asked = [q for q in case["queries"] if q["api"] in PORT]
    assert len(asked) == len(case["queries"])
    # The vectors' spans are of one day in January: nothing is too old here.
    server = Spanloom(directory, env={"SPANLOOM_STORE_RETENTION_AGE": "0s"}).start()
    try:
        for step in case["ingest"]:
            send(server, step)
        wrong = []
        for q in asked:
            status, _, body = server.request(
                PORT[q["api"]], q["path"], q.get("method", "GET"),
                json.dumps(q["body"]).encode() if "body" in q else None, q.get("headers", {}))
            try:
                assert status == q["expect"].get("status", 200), (status, body[:300])
                try:
                    answer = json.loads(body)
                except ValueError:
                    answer = None
                check_one(q["expect"], answer, body)
            except AssertionError as e:
                wrong.append(f"{q.get('method', 'GET')} {q['api']} {q['path']}: {str(e)[:600]}")
        assert not wrong, f"{len(wrong)} of {len(asked)} queries:\n" + "\n".join(wrong)
    finally:
        server.stop()
