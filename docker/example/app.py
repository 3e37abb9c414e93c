"""An app that knows nothing of Oilskin: writes a customer, reads it back, then looks into the store to show the difference."""

import json
import os
import time
import urllib.error
import urllib.request

API, STORE = os.environ["API"], os.environ["STORE"]
CUSTOMER = {"name": "Ada", "ssn": "123-45-6789", "email": "ada@example.com"}


def call(url, document=None):
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="PUT" if body else "GET")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def patiently(work):
    """Sidecar and app start together, so the first call may come too early."""
    for _ in range(60):
        try:
            return work()
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.5)
    return work()


patiently(lambda: call(f"{API}/customers/1", CUSTOMER))
print("the app wrote  ", json.dumps(CUSTOMER), flush=True)
print("the app reads  ", json.dumps(call(f"{API}/customers/1")), flush=True)
print("the store holds", json.dumps(call(f"{STORE}/customers/1")), flush=True)
