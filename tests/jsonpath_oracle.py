"""RFC 9535 by another's hand: reads lines of JSON {"selector", "document"}, prints for each the normalized paths it selects
as a JSON array, or {"error": …} where the selector is none."""

import json
import sys

import jsonpath_rfc9535
from jsonpath_rfc9535.exceptions import JSONPathError

for line in sys.stdin:
    case = json.loads(line)
    try:
        nodes = jsonpath_rfc9535.find(case["selector"], json.loads(case["document"]))
        print(json.dumps([node.path() for node in nodes]))
    except JSONPathError as error:
        print(json.dumps({"error": type(error).__name__}))
