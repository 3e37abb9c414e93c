"""Prints what a login to Vault's AWS method holds, signed by botocore: the record that Oilskin's own is compared with."""

import base64
import datetime
import json
from unittest import mock

from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

NOW = datetime.datetime.fromtimestamp(1_795_000_000, datetime.timezone.utc)
URL, BODY = "https://sts.amazonaws.com/", "Action=GetCallerIdentity&Version=2011-06-15"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


headers = {
    "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
    "Host": "sts.amazonaws.com",
    "X-Vault-AWS-IAM-Server-ID": "vault.example",
}
request = AWSRequest("POST", URL, headers, BODY)
keys = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "token")
with mock.patch.object(auth, "get_current_datetime", create=True, return_value=NOW.replace(tzinfo=None)):
    auth.SigV4Auth(keys, "sts", "us-east-1").add_auth(request)
signed = {name: [value] for name, value in request.headers.items()}
print(json.dumps({
    "iam_http_request_method": "POST",
    "iam_request_url": b64(URL),
    "iam_request_body": b64(BODY),
    "iam_request_headers": b64(json.dumps(signed)),
    "role": "web",
}, indent=1))
