"""Writes documents through a proxy and reads them back, with requests (HTTP/1.1) and httpx (HTTP/2 by prior knowledge)."""

import json
import sys

import httpx
import requests

base = sys.argv[1]
documents = [
    '{"ssn":"123-45-6789","name":"Ada","list":[1,2.50,null,true,{"email":"a@example.com"}]}',
    '{ "email" : "caf\\u00e9@example.com", "other":"\\ud83d\\ude00", "n": 1e400 }',
    '{"ssn":{"all":["of","it"]},"deep":[[[{"email":""}]]]}',
    "{}",
    json.dumps({"ssn": "long", "fill": "x" * 200_000, "end": {"email": "z" * 5_000}}),
]
session = requests.Session()
client = httpx.Client(http1=False, http2=True)
clients = [
    ("requests", lambda method, url, **rest: session.request(method, url, **rest), lambda body: {"data": body}),
    ("httpx", lambda method, url, **rest: client.request(method, url, **rest), lambda body: {"content": body}),
]
for name, ask, content in clients:
    for number, text in enumerate(documents):
        body = text.encode()
        url = f"{base}/{name}/{number}"
        headers = {"content-type": "application/json"}
        written = ask("PUT", url, headers=headers, **content(body))
        assert written.status_code in (201, 204), (name, number, written.status_code, written.text)
        read = ask("GET", url)
        assert read.content == body, (name, number, read.content[:200])
        assert read.headers["content-type"] == "application/json"
    # A body that is made while it is sent has no length.
    pieces = (piece.encode() for piece in ['{"ssn":', '"in pieces"', ',"a":[', "1" * 100_000, "]}"])
    ask("PUT", f"{base}/{name}/pieces", headers={"content-type": "application/json"}, **content(pieces))
    assert ask("GET", f"{base}/{name}/pieces").text == '{"ssn":"in pieces","a":[' + "1" * 100_000 + "]}"
    refused = ask("PUT", f"{base}/{name}/refused", headers={"content-type": "text/plain"}, **content(b"ssn"))
    assert refused.status_code == 415 and refused.json()["code"] == "unsupported_type", refused.text
    head = ask("HEAD", f"{base}/{name}/0")
    assert head.status_code == 200 and head.content == b"", head
assert client.get(f"{base}/httpx/0").http_version == "HTTP/2"
print("fine")
