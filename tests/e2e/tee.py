"""Stands between a client and a receiver: hands everything on, and keeps the
bodies, so that what was sent can be compared with what an API returns.
"""

import http.client
import http.server
import threading
from concurrent import futures

import grpc

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class HttpTee:
    def __init__(self, port):
        self.bodies = []
        tee = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.chunks() if self.headers.get("Transfer-Encoding") else self.rfile.read(int(self.headers["Content-Length"]))
                tee.bodies.append((self.path, body))
                onwards = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
                onwards.request("POST", self.path, body, headers)
                answer = onwards.getresponse()
                reply = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)
                onwards.close()

            def chunks(self):
                out = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    out += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return out

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class GrpcTee(grpc.GenericRpcHandler):
    """Unary calls of any method."""

    def __init__(self, port):
        self.bodies = []
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        def hand_on(body, context):
            self.bodies.append((details.method, body))
            try:
                return self.channel.unary_unary(details.method)(body, timeout=20)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
        return grpc.unary_unary_rpc_method_handler(hand_on)

    def stop(self):
        self.server.stop(None)
        self.channel.close()
