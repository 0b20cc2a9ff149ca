"""The management API by Amazon's JavaScript SDK, as it comes from its registry."""

import base64
import json
import subprocess
from pathlib import Path

from gatecast import clean_environment
from management import KEY_ID, SECRET
from terminal import NODE_MODULES

SCRIPT = Path(__file__).with_name("sdk.cjs")


def run(endpoint, *calls, key_id=KEY_ID, secret=SECRET, **options):
    """Runs calls, each an operation, an id and for a post its bytes."""
    make = lambda operation, id, data=b"hello": {
        "operation": operation, "id": id, "bytes": base64.b64encode(data).decode()
    }
    credentials = {"accessKeyId": key_id, "secretAccessKey": secret}
    client = {"endpoint": endpoint, "credentials": credentials} | options
    work = json.dumps({"client": client, "calls": [make(*call) for call in calls]})
    environment = clean_environment({"NODE_PATH": str(NODE_MODULES)})
    ended = subprocess.run(
        ["node", str(SCRIPT)], input=work, env=environment, capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def errors(results):
    return [(result["error"], result["status"]) for result in results]
