"""One malformed or odd handshake with a listener; prints what came of it: `served`, `alert N`, `closed`, or
`unreadable` where the two sides have lost each other.

    handshakes.py PORT CASE [CHAIN KEY]

CHAIN and KEY are shown where a certificate is asked for, whether or not they fit each other.
"""

import socket
import sys

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.constants import ContentType
from tlslite.errors import TLSAbruptCloseError, TLSLocalAlert, TLSRemoteAlert
from tlslite.extensions import SNIExtension, TLSExtension
from tlslite.messages import ApplicationData, ClientHello, Finished, Message

REQUEST = b"GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


class Odd(TLSConnection):
    """Changes messages on their way out."""

    def __init__(self, sock, change):
        super().__init__(sock)
        self.change, self.hellos = change, 0

    def _sendMsg(self, msg, *rest, **more):
        if isinstance(msg, ClientHello):
            self.hellos += 1
        for one in self.change(self, msg):
            yield from super()._sendMsg(one, *rest, **more)


def same(connection, msg):
    yield msg


def bad_finished(connection, msg):
    if isinstance(msg, Finished):
        msg.verify_data[0] ^= 1
    yield msg


def finished_too_early(connection, msg):
    """In the place of the hello."""
    if isinstance(msg, ClientHello):
        yield Finished((3, 4), 32).create(bytearray(32))
    yield msg


def data_before_finished(connection, msg):
    if isinstance(msg, Finished):
        yield ApplicationData().create(bytearray(REQUEST))
    yield msg


def second_hello(connection, msg):
    yield msg
    if isinstance(msg, ClientHello):
        yield msg


def unknown_extensions(connection, msg):
    if isinstance(msg, ClientHello):
        for kind in (0x0A0A, 0xFF77, 0x7777):
            msg.extensions.insert(0, TLSExtension(extType=kind).create(kind, bytearray(17)))
    yield msg


def twice_the_same_extension(connection, msg):
    if isinstance(msg, ClientHello):
        for _ in range(2):
            msg.extensions.insert(0, TLSExtension(extType=0x7777).create(0x7777, bytearray(1)))
    yield msg


def large_extension(connection, msg):
    """One of 60,000 bytes: a hello of four records."""
    if isinstance(msg, ClientHello):
        msg.extensions.insert(0, TLSExtension(extType=0x7777).create(0x7777, bytearray(60_000)))
    yield msg


def early_data(connection, msg):
    """A hello that says data follows at once, and the data."""
    if isinstance(msg, ClientHello):
        msg.extensions.append(TLSExtension(extType=42).create(42, bytearray(0)))
        yield msg
        yield ApplicationData().create(bytearray(REQUEST))
    else:
        yield msg


def other_name_on_retry(connection, msg):
    if isinstance(msg, ClientHello) and connection.hellos == 2:
        names = [one for one in msg.extensions if isinstance(one, SNIExtension)]
        names[0].create(b"other.test")
    yield msg


def empty_records_inside(connection, msg):
    """Sixteen of no data, encrypted, before each that has some: an onlooker's padding."""
    if isinstance(msg, ApplicationData):
        for _ in range(16):
            yield Message(ContentType.application_data, bytearray())
    yield msg


CHANGES = {name: value for name, value in list(globals().items()) if callable(value) and value.__module__ == "__main__"}

# Groups that it has no share for make the listener ask again.
RETRIED = {"other_name_on_retry", "same_name_on_retry"}

RAW = {
    "empty_record": b"\x16\x03\x01\x00\x00" * 3,
    "empty_alert": b"\x15\x03\x01\x00\x00",
    "empty_change_of_cipher": b"\x14\x03\x01\x00\x00",
    "record_of_unknown_type": b"\x63\x03\x01\x00\x01\x00",
    "oversized_record": b"\x16\x03\x01\x48\x01" + bytes(0x4801),
    "oversized_message": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(0x3FFC) + (b"\x16\x03\x01\x40\x00" + bytes(0x4000)) * 5,
    "empty_hello": b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    "clear_text": REQUEST,
    "sslv2": bytes.fromhex("802b0100020012000000100100800700c0030080060040020080040080") + bytes(16),
}


def hello(version, suites):
    """A hello of the old kind, without extensions."""
    suites = b"".join(suite.to_bytes(2, "big") for suite in suites)
    body = version + bytes(32) + b"\x00" + len(suites).to_bytes(2, "big") + suites + b"\x01\x00"
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16" + version + len(message).to_bytes(2, "big") + message


RAW["ssl_3"] = hello(b"\x03\x00", [0x0A, 0x2F, 0x35])
RAW["tls_1_0"] = hello(b"\x03\x01", [0xC013, 0xC014, 0x2F])
RAW["tls_1_1"] = hello(b"\x03\x02", [0xC013, 0xC014, 0x2F])
RAW["null_ciphers"] = hello(b"\x03\x03", [0x00, 0x01, 0x02, 0x3B, 0xC006, 0xC010])
RAW["export_ciphers"] = hello(b"\x03\x03", [0x03, 0x06, 0x08, 0x0B, 0x0E, 0x11, 0x14, 0x17, 0x19])
RAW["anonymous_ciphers"] = hello(b"\x03\x03", [0x18, 0x1B, 0x34, 0x3A, 0x6C, 0xA6, 0xC018])


def raw(sock, data):
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it need not read all of it
    try:
        answer = sock.recv(4096)
    except ConnectionResetError:
        answer = b""
    return f"alert {answer[6]}" if answer[:1] == b"\x15" and len(answer) == 7 else "closed" if not answer else answer.hex()


def own():
    if len(sys.argv) < 5:
        return ()
    chain, key = (open(name).read() for name in sys.argv[3:5])
    certificates = X509CertChain()
    certificates.parsePemList(chain)
    return certificates, parsePEMKey(key, private=True)


def handshake(sock, case):
    connection = Odd(sock, CHANGES[case])
    settings = HandshakeSettings()
    settings.minVersion = settings.maxVersion = (3, 4)
    settings.eccCurves = ["secp521r1", "secp256r1"] if case in RETRIED else ["x25519"]
    settings.keyShares = ["secp521r1"] if case in RETRIED else ["x25519"]
    settings.dhGroups = []
    # It would compress its certificate though the listener has not said that it reads that.
    settings.certificate_compression_send = settings.certificate_compression_receive = []
    try:
        connection.handshakeClientCert(*own(), serverName="localhost", settings=settings)
        connection.sendall(REQUEST)
        answer = connection.recv(4096)
    except TLSRemoteAlert as told:
        return f"alert {told.description}"
    except TLSLocalAlert:
        return "unreadable"
    except (TLSAbruptCloseError, OSError):
        return "closed"
    return "served" if answer.startswith(b"HTTP/1.1 200") else f"answered {bytes(answer[:40])!r}"


CHANGES["same_name_on_retry"] = same

port, case = int(sys.argv[1]), sys.argv[2]
with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
    print(raw(sock, RAW[case]) if case in RAW else handshake(sock, case))
