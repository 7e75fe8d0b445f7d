"""Just enough Thrift binary to send Jaeger's JSON to a Jaeger collector."""

import base64
import struct

STOP, BOOL, DOUBLE, I32, I64, STRING, STRUCT, LIST = 0, 2, 4, 8, 10, 11, 12, 15
TYPES = {"string": 0, "float64": 1, "bool": 2, "int64": 3, "binary": 4}


def field(kind, number, payload):
    return struct.pack(">bh", kind, number) + payload


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">i", len(data)) + data


def i64(value):
    value = int(value)
    return struct.pack(">Q" if value >= 0 else ">q", value)


def items(structs):
    return struct.pack(">bi", STRUCT, len(structs)) + b"".join(structs)


def tag(kv):
    kind = TYPES[kv["type"]]
    out = field(STRING, 1, text(kv["key"])) + field(I32, 2, struct.pack(">i", kind))
    value = kv["value"]
    out += {
        "string": lambda: field(STRING, 3, text(value)),
        "float64": lambda: field(DOUBLE, 4, struct.pack(">d", value)),
        "bool": lambda: field(BOOL, 5, struct.pack(">b", value)),
        "int64": lambda: field(I64, 6, i64(value)),
        "binary": lambda: field(STRING, 7, text(base64.b64decode(value))),
    }[kv["type"]]()
    return out + b"\0"


def halves(trace_id):
    number = int(trace_id, 16)
    return number >> 64, number & (1 << 64) - 1


def reference(r):
    high, low = halves(r["traceID"])
    kind = 0 if r["refType"] == "CHILD_OF" else 1
    return (
        field(I32, 1, struct.pack(">i", kind)) + field(I64, 2, i64(low)) + field(I64, 3, i64(high))
        + field(I64, 4, i64(int(r["spanID"], 16))) + b"\0"
    )


def span(s):
    high, low = halves(s["traceID"])
    out = field(I64, 1, i64(low)) + field(I64, 2, i64(high)) + field(I64, 3, i64(int(s["spanID"], 16)))
    out += field(I64, 4, i64(0)) + field(STRING, 5, text(s["operationName"]))
    out += field(LIST, 6, items([reference(r) for r in s["references"]]))
    out += field(I32, 7, struct.pack(">i", s.get("flags", 1)))
    out += field(I64, 8, i64(s["startTime"])) + field(I64, 9, i64(s["duration"]))
    out += field(LIST, 10, items([tag(t) for t in s["tags"]]))
    logs = [
        field(I64, 1, i64(entry["timestamp"])) + field(LIST, 2, items([tag(f) for f in entry["fields"]])) + b"\0"
        for entry in s["logs"]
    ]
    return out + field(LIST, 11, items(logs)) + b"\0"


def batches(traces):
    """One `Batch` body for each process of each trace."""
    for trace in traces:
        for key, process in trace["processes"].items():
            spans = [span(s) for s in trace["spans"] if s["processID"] == key]
            head = field(STRING, 1, text(process["serviceName"]))
            head += field(LIST, 2, items([tag(t) for t in process.get("tags", [])])) + b"\0"
            yield field(STRUCT, 1, head) + field(LIST, 2, items(spans)) + b"\0"
