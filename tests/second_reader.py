"""A second implementation of wire format 1, written from docs/wire-format.md alone, on PyNaCl.

    second_reader.py open  ROOT DOCUMENT NAME < lines of JSON {"token", "context", "tenant", "bind"} > values as JSON
    second_reader.py write ROOT DOCUMENT NAME < lines of JSON {"type", "text", …, "pad", "deterministic"} > tokens
"""

import base64
import hmac
import json
import os
import struct
import sys
from pathlib import Path

from nacl import bindings
from nacl.hash import blake2b
from nacl.encoding import RawEncoder


class Refused(Exception):
    pass


def lp(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def h(key: bytes, message: bytes) -> bytes:
    return blake2b(message, digest_size=32, key=key, encoder=RawEncoder)


def unbase64(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise Refused("not strict base64url")
    return data


def open_xchacha(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    try:
        return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[24:], aad, sealed[:24], key)
    except Exception as error:
        raise Refused("does not open") from error


def open_document(root: bytes, text: bytes, name: str) -> list:
    return open_whole(root, text, name)[1]


def open_whole(root: bytes, text: bytes, name: str) -> tuple:
    line, mac = text.decode().split("\n")[:2]
    document = json.loads(line)
    if document["v"] != 1 or document["name"] != name or document["k"] != 1:
        raise Refused("document")
    root_id = h(root, b"oil1 rootid")[:8]
    for entry in document["roots"]:
        if unbase64(entry["id"]) == root_id:
            aad = b"oil1 shares" + lp(name.encode()) + bytes([document["k"], entry["x"]])
            w = open_xchacha(h(root, b"oil1 shares"), unbase64(entry["wrapped"]), aad)
            break
    else:
        raise Refused("no root")
    if not hmac.compare_digest(h(h(w, b"oil1 docmac" + lp(name.encode())), line.encode()), unbase64(mac)):
        raise Refused("MAC")
    versions = []
    for version in document["versions"]:
        identity = unbase64(version["key_id"])
        line_byte = {"field": 1, "lookup": 2}[version["line"]]
        aad = lp(name.encode()) + identity + bytes([version["alg"], line_byte])
        key = open_xchacha(h(w, b"oil1 keyset" + lp(name.encode())), unbase64(version["sealed"]), aad)
        if h(key, b"oil1 key id" + bytes([version["alg"]])) != identity:
            raise Refused("key id")
        versions.append({"id": identity, "key": key, **{k: version[k] for k in ("alg", "line", "state")}})
    return w, versions


def subkey(version: dict, purpose: int, tenant: bytes, context: bytes) -> bytes:
    return h(version["key"], b"oil1 subkey" + bytes([purpose, version["alg"]]) + lp(tenant) + lp(context))


def authenticated(alg: int, kind: int, key_id: bytes, tenant: bytes, context: bytes, bind: dict) -> bytes:
    data = b"oil1" + bytes([alg, kind]) + key_id + lp(tenant) + lp(context) + bytes([len(bind)])
    for name, value in sorted((n.encode(), v.encode()) for n, v in bind.items()):
        data += lp(name) + lp(value)
    return data


def open_token(versions: list, token: str, context: bytes, tenant: bytes, bind: dict) -> str:
    if not token.startswith("oil1."):
        raise Refused("prefix")
    data = unbase64(token[5:])
    alg, kind, key_id, nonce, sealed = data[0], data[1], data[2:10], data[10:34], data[34:]
    found = [v for v in versions if v["id"][:8] == key_id and v["alg"] == alg & 0x8F]
    deterministic = bool(alg & 0x10)
    if not found or (found[0]["line"] == "lookup") != deterministic:
        raise Refused("key")
    key = subkey(found[0], 2 if deterministic else 1, tenant, context)
    aad = authenticated(alg, kind, key_id, tenant, context, {} if deterministic else bind)
    try:
        if alg & 0x0F == 1:
            plain = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, aad, nonce, key)
        else:
            plain = bindings.crypto_aead_aegis256_decrypt(sealed, aad, nonce + bytes(8), key)
    except Exception as error:
        raise Refused("tag") from error
    if deterministic and h(subkey(found[0], 3, tenant, context), lp(aad) + plain)[:24] != nonce:
        raise Refused("nonce")
    if kind == 0:
        plain = plain.rstrip(b"\0")
        if not plain.endswith(b"\x80"):
            raise Refused("padding")
        kind, plain = plain[0], plain[1:-1]
    return spelled(kind, plain)


def spelled(kind: int, plain: bytes) -> str:
    """The JSON text of a value."""
    if kind == 1:
        escapes = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
        return '"' + "".join(escapes.get(c) or (c if c >= " " else f"\\u{ord(c):04x}") for c in plain.decode()) + '"'
    if kind == 2:
        return '"' + plain.decode() + '"'
    if kind == 4:
        return {b"\x01": "true", b"\x00": "false"}[plain]
    if kind == 5:
        return "null"
    return plain.decode()


def write_token(versions: list, request: dict, context: bytes, tenant: bytes, bind: dict) -> str:
    deterministic = bool(request.get("deterministic"))
    line = "lookup" if deterministic else "field"
    version = [v for v in versions if v["line"] == line and v["state"] == "active"][0]
    alg, key_id = version["alg"] | (0x10 if deterministic else 0), version["id"][:8]
    kind, plain = request["type"], request["text"].encode()
    if pad := request.get("pad"):
        plain = bytes([kind]) + plain + b"\x80"
        plain, kind = plain + bytes(-len(plain) % pad), 0
    aad = authenticated(alg, kind, key_id, tenant, context, {} if deterministic else bind)
    nonce = h(subkey(version, 3, tenant, context), lp(aad) + plain)[:24] if deterministic else os.urandom(24)
    key = subkey(version, 2 if deterministic else 1, tenant, context)
    if alg & 0x0F == 1:
        sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, aad, nonce, key)
    else:
        sealed = bindings.crypto_aead_aegis256_encrypt(plain, aad, nonce + bytes(8), key)
    data = bytes([alg, kind]) + key_id + nonce + sealed
    return "oil1." + base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main() -> None:
    mode, root, document, name = sys.argv[1:5]
    if mode == "secrets":
        # What must be nowhere but in locked memory.
        w, versions = open_whole(Path(root).read_bytes(), Path(document).read_bytes(), name)
        for secret in [w, *(version["key"] for version in versions)]:
            print(secret.hex())
        return
    versions = open_document(Path(root).read_bytes(), Path(document).read_bytes(), name)
    for line in sys.stdin:
        request = json.loads(line)
        place = (request["context"].encode(), (request.get("tenant") or "").encode(), request.get("bind") or {})
        if mode == "open":
            print(open_token(versions, request["token"], *place))
        else:
            print(write_token(versions, request, *place))


if __name__ == "__main__":
    main()
