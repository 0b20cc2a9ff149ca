"""A chat of two Lambda functions and a table, as tutorials have it, on three nodes behind HAProxy; the functions are not changed."""

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import boto3
import pytest

from cluster import SHORT_LEASE
from edge import OPEN, HaProxy
from gatecast import EXAMPLES, clean_environment, eventually
from terminal import NODE_MODULES, Terminal

SUPPORT = Path(__file__).parents[1] / "support"
FORMS = ["node-v2", "node-v3", "python"]


class Dynalite:
    """DynamoDB without Amazon."""

    def __init__(self):
        line = ["node", SUPPORT / "dynalite.cjs", NODE_MODULES / "dynalite"]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=clean_environment())
        killer = threading.Timer(30, self.process.kill)
        killer.start()
        self.port = int(self.process.stdout.readline())
        killer.cancel()
        self.table = boto3.resource(
            "dynamodb", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="any", aws_secret_access_key="any",
        ).create_table(
            TableName="connections", BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "connectionId", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "connectionId", "AttributeType": "S"}],
        )
        self.table.wait_until_exists()

    def ids(self):
        return {item["connectionId"] for item in self.table.scan()["Items"]}

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def dynalite():
    dynalite = Dynalite()
    yield dynalite
    dynalite.close()


def configuration(directory, form, dynalite):
    """The example as it is shipped, beside what its functions import."""
    folder = directory / "functions"
    shutil.copytree(EXAMPLES / "functions", folder)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    text = (folder / f"{form}.toml").read_text()
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{dynalite.port}")
    text = re.sub(r'^code = "(.+)"$', rf'code = "{folder}/\1"', text, flags=re.M)
    if form == "python":
        text = text.replace('runtime = "python"', f'runtime = "python"\ncommand = ["{sys.executable}"]')
    return text


@pytest.mark.parametrize("form", FORMS)
def test_every_terminal_sees_each_line(tmp_path, start_on, redis, start_balancer, dynalite, form):
    nodes = start_on(redis, config=configuration(tmp_path, form, dynalite), **(SHORT_LEASE | OPEN))
    balancer = start_balancer(HaProxy, nodes)
    terminals = [Terminal("--no-color", "-c", balancer.url) for _ in range(4)]
    for terminal in terminals:
        terminal.shows("Connected (press CTRL+C to quit)")
    assert len(dynalite.ids()) == 4
    first, second, third, last = terminals
    first.type('{"action":"sendMessage","data":"Ground Control to Major Tom"}')
    for terminal in terminals:
        terminal.shows("< Ground Control to Major Tom")
    # A terminal that is closed is forgotten.
    last.__exit__()
    eventually(lambda: sum(node.metric("gatecast_connections") for node in nodes) == 3)
    second.type('{"action":"sendMessage","data":"Commencing countdown"}')
    for terminal in (first, second, third):
        terminal.shows("< Commencing countdown")
    eventually(lambda: len(dynalite.ids()) == 3)
    # So are those of a node that dies.
    victim = next(node for node in nodes if node.metric("gatecast_connections"))
    lost = int(victim.metric("gatecast_connections"))
    victim.is_ended_by_test = True
    victim.kill()
    late = Terminal("--no-color", "-c", balancer.url)
    late.shows("Connected (press CTRL+C to quit)")

    def is_said():
        late.type('{"action":"sendMessage","data":"Take your protein pills"}')
        return len(dynalite.ids()) == 4 - lost

    eventually(is_said, within=30)
    late.shows("< Take your protein pills")
    for terminal in (first, second, third, late):
        terminal.__exit__()
