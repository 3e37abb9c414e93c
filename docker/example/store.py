"""A JSON document store of the standard library: the compose file's upstream. It knows nothing of Oilskin."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DOCUMENTS = {}


class Store(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/customers":
            self.answer(200, list(DOCUMENTS.values()))
        elif self.path in DOCUMENTS:
            self.answer(200, DOCUMENTS[self.path])
        else:
            self.answer(404, {"error": "no such customer"})

    def do_PUT(self):
        DOCUMENTS[self.path] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.answer(200, DOCUMENTS[self.path])

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


host, port = os.environ["STORE_LISTEN"].rsplit(":", 1)
ThreadingHTTPServer((host, int(port)), Store).serve_forever()
