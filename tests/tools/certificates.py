"""Certificates and revocation lists that OpenSSL's commands do not make, by the authority in a folder (`ca.pem`, `ca.key`).

    certificates.py FOLDER leaf NAME FROM TO SAN USAGE [POINT …]
    certificates.py FOLDER list NAME KIND [REVOKED …]

FROM and TO are seconds from now. SAN is `DNS:a,URI:b`, USAGE `clientAuth` or `serverAuth`. A POINT is where a list of it is to be found:
`URL`, `reasons` (one of certain reasons only) or `indirect` (one that somebody else issues). A list's kinds are below; REVOKED are names of leaves.
"""

import datetime
import ipaddress
import os
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

A, B = "http://lists.test/a", "http://lists.test/b"
POINT_OF_A = b"\xa0\x17\xa0\x15\x86\x13" + A.encode()


def now(seconds):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)


def uris(*names):
    return [x509.UniformResourceIdentifier(name) for name in names]


def point(text):
    others = [x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")]))]
    reasons = frozenset([x509.ReasonFlags.key_compromise])
    return {
        "reasons": x509.DistributionPoint(uris(A), None, reasons, None),
        "indirect": x509.DistributionPoint(uris(A), None, None, others),
    }.get(text, x509.DistributionPoint(uris(text), None, None, None))


def leaf(authority, key, folder, name, start, end, san, usage, *points):
    own = ec.generate_private_key(ec.SECP256R1())
    kinds = {
        "DNS": x509.DNSName,
        "URI": x509.UniformResourceIdentifier,
        "EMAIL": x509.RFC822Name,
        "IP": lambda text: x509.IPAddress(ipaddress.ip_address(text)),
    }
    names = [kinds[one.split(":", 1)[0]](one.split(":", 1)[1]) for one in san.split(",")]
    usages = {"clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH, "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH}
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now(int(start)))
        .not_valid_after(now(int(end)))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.ExtendedKeyUsage([usages[usage]]), False)
    )
    if points:
        builder = builder.add_extension(x509.CRLDistributionPoints([point(one) for one in points]), False)
    pem = serialization.Encoding.PEM
    write(folder, f"{name}.pem", builder.sign(key, hashes.SHA256()).public_bytes(pem))
    plain = serialization.NoEncryption()
    write(folder, f"{name}.key", own.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def scope(full_name=uris(A), users=False, authorities=False, reasons=None, indirect=False, attributes=False, relative=None):
    return x509.IssuingDistributionPoint(full_name, relative, users, authorities, reasons, indirect, attributes)


def raw_scope(rest):
    """One whose last part only bytes can say."""
    value = POINT_OF_A + rest
    return x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.28"), b"\x30" + bytes([len(value)]) + value)


COMMON_NAME = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
KINDS = {
    "plain": [],
    "older": [],
    "two_points": [(scope(uris(A, B)), True)],
    "of_a": [(scope(), True)],
    "of_b": [(scope(uris(B)), True)],
    "users": [(scope(users=True), True)],
    "authorities": [(scope(authorities=True), True)],
    "attributes": [(scope(attributes=True), True)],
    "indirect": [(scope(indirect=True), True)],
    "reasons": [(scope(reasons=frozenset([x509.ReasonFlags.key_compromise])), True)],
    "empty_reasons": [(raw_scope(b"\x83\x01\x00"), True)],
    "no_reasons": [(raw_scope(b"\x83\x00"), True)],
    "relative_name": [(scope(None, relative=COMMON_NAME), True)],
    "delta": [(x509.DeltaCRLIndicator(1), True)],
    "unknown_critical": [(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), True)],
    "forged": [],
}


def crl(authority, key, folder, name, kind, *revoked):
    updated = -7200 if kind == "older" else -60
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    builder = builder.last_update(now(updated)).next_update(now(86400)).add_extension(x509.CRLNumber(7), False)
    for extension, critical in KINDS[kind]:
        builder = builder.add_extension(extension, critical)
    for one in revoked:
        serial = x509.load_pem_x509_certificate(read(folder, f"{one}.pem")).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now(-60)).build()
        builder = builder.add_revoked_certificate(entry)
    signer = ec.generate_private_key(ec.SECP256R1()) if kind == "forged" else key
    write(folder, f"{name}.pem", builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def read(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def write(folder, name, content):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(content)


folder, what, *rest = sys.argv[1:]
authority = x509.load_pem_x509_certificate(read(folder, "ca.pem"))
key = serialization.load_pem_private_key(read(folder, "ca.key"), None)
{"leaf": leaf, "list": crl}[what](authority, key, folder, *rest)
