"""Opens what a Sealed Secrets controller opens, by nothing but its description and the `cryptography` package.

Usage: sealed_secrets.py KEY.pem SCOPE NAMESPACE NAME < base64
"""

import base64
import sys
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def main() -> None:
    path, scope, namespace, name = sys.argv[1:5]
    label = {"strict": f"{namespace}/{name}", "namespace-wide": namespace, "cluster-wide": ""}[scope].encode()
    key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    sealed = base64.b64decode(sys.stdin.read().strip(), validate=True)
    length = int.from_bytes(sealed[:2], "big")
    wrapped, text = sealed[2 : 2 + length], sealed[2 + length :]
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=label)
    sys.stdout.buffer.write(AESGCM(key.decrypt(wrapped, oaep)).decrypt(bytes(12), text, None))


main()
