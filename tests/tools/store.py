"""A small store over HTTP/1.1: keeps the very bytes of each body in a file named by the path. Prints its port."""

import pathlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder = pathlib.Path(sys.argv[1])


class Store(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def file(self):
        return folder / self.path.strip("/").replace("/", "_")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        self.file().write_bytes(self.body())
        self.answer(201, b"{}")

    def do_POST(self):
        body = self.body()
        self.file().write_bytes(body)
        self.answer(200, body)

    def do_GET(self):
        file = self.file()
        self.answer(200, file.read_bytes()) if file.exists() else self.answer(404, b"{}")

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "12345")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
print(server.server_port, flush=True)
server.serve_forever()
