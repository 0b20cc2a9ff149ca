"""`deploy/try`: what compose starts, from programs of this host, for as long as somebody looks at it."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml


from gatecast import GATECAST, ROOT, clean_environment, connection_id, eventually, request
from management import signature
from ports import free_row
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

PORTS = 10
# Redis, three nodes, HAProxy, Prometheus.
PROCESSES = 6


class Try:
    """The script, as started in a terminal of its own."""

    def __init__(self, directory):
        environment = clean_environment({"GATECAST_BINARY": str(GATECAST.resolve())})
        self.first = free_row(PORTS)
        self.log = directory / f"log-{self.first}"
        with open(self.log, "wb") as log:
            # Who runs the tests in the background may have had their shell ignore the signal of Ctrl-C, for children too.
            line = ["env", "--default-signal=INT", ROOT / "deploy/try", str(self.first)]
            self.process = subprocess.Popen(line, stdout=log, stderr=log, env=environment, start_new_session=True)
        eventually(lambda: self.process.poll() is not None or "  Try " in self.log.read_text(), within=60)
        assert self.process.poll() is None, self.log.read_text()

    def said(self, what):
        return re.search(rf"^  {what} +(.*)$", self.log.read_text(), re.M)[1]

    def children(self):
        """What it has started; what it only calls has ended before long."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = eventually(lambda: len(found := path.read_text().split()) == PROCESSES and found)
        return [int(child) for child in found]

    def ask_prometheus(self, path):
        response, body = request(("127.0.0.1", self.first + 9), "GET", path)
        assert response.status == 200, body
        return json.loads(body)["data"]


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def node_settings(processes):
    """The variables of those processes that are nodes, by their names."""
    found = {}
    for process in processes:
        words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
        if words[0] == str(GATECAST.resolve()):
            pairs = [pair.split("=", 1) for pair in Path(f"/proc/{process}/environ").read_text().split("\0") if "=" in pair]
            found[words[words.index("--node-name") + 1]] = {
                name: value for name, value in pairs if name.startswith("GATECAST_") and name != "GATECAST_BINARY"}
    assert len(found) == 3
    return [found[name] for name in sorted(found)]


@pytest.fixture
def trial(tmp_path):
    trial = Try(tmp_path)
    yield trial
    if trial.process.poll() is None:
        trial.process.terminate()
        trial.process.wait(timeout=60)


@pytest.mark.timeout(180)
def test_one_command_gives_a_watched_gateway_and_ctrl_c_ends_it(trial):
    children = trial.children()
    wanted = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    for number, settings in enumerate(node_settings(children), 1):
        compose = wanted[f"gatecast-{number}"]["environment"]
        assert settings.keys() == compose.keys()
        assert settings["GATECAST_DRAIN_NOTICE"] == compose["GATECAST_DRAIN_NOTICE"]
    url = trial.said("WebSockets")
    with connect(url, compression=None, proxy=None) as first, connect(url, compression=None, proxy=None) as second, \
            connect(url, compression=None, proxy=None) as third:
        # The balancer has sent them to three nodes, whose tags their ids hold; a message reaches all.
        assert len({connection_id(client) for client in (first, second, third)}) == 3
        nodes = [tuple(re.match(r"http://(.*):(\d+)", node).groups()) for node in re.findall(r"http://\S+", trial.said("Nodes"))]
        counts = [re.search(rb"^gatecast_connections (\d+)$", request(node, "GET", "/metrics")[1], re.M)[1] for node in nodes]
        assert counts == [b"1"] * 3
        first.send('{"action":"sendMessage","data":"everywhere"}')
        assert [client.recv(timeout=10) for client in (first, second, third)] == ["everywhere"] * 3

        # Whoever HAProxy passes on has to sign; what is printed does.
        key_id, secret = re.match(r"AWS_ACCESS_KEY_ID=(\S+) AWS_SECRET_ACCESS_KEY=(\S+) ", trial.said("Keys")).groups()
        balancer, path = ("127.0.0.1", trial.first), "/beta/@broadcast"
        signed = signature(balancer, "POST", path, b"hello", secret, key_id)
        assert request(balancer, "POST", path, b"hello", signed)[0].status == 200
        assert [client.recv(timeout=10) for client in (first, second, third)] == ["hello"] * 3
        assert request(balancer, "POST", path, b"unsigned")[0].status == 403

        def are_scraped():
            targets = trial.ask_prometheus("/api/v1/targets?state=active")["activeTargets"]
            return len(targets) == 4 and all(target["health"] == "up" for target in targets)

        eventually(are_scraped, within=60)
        # A target is up a little before what it said can be asked for.
        balanced = "/api/v1/query?query=haproxy_server_current_sessions%7Bproxy%3D%22websockets%22%7D"
        eventually(lambda: len(trial.ask_prometheus(balanced)["result"]) == 3, within=60)
        groups = trial.ask_prometheus("/api/v1/rules")["groups"]
        loaded = {rule["name"] for group in groups for rule in group["rules"]}
        written = [yaml.safe_load(path.read_text()) for path in (ROOT / "deploy/prometheus").glob("*.yaml")]
        assert loaded == {rule.get("alert") or rule["record"] for file in written for group in file.get("groups", [])
                          for rule in group["rules"]}
        folder = Path(trial.said("Logs"))
        # As a terminal does: to the whole foreground group.
        os.killpg(trial.process.pid, signal.SIGINT)
        for client in (first, second, third):
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=60)
            assert closed.value.rcvd.code == 1001
    assert trial.process.wait(timeout=60) == 0
    assert not [child for child in children if is_there(child)]
    assert not folder.exists()


def test_when_it_is_killed_nothing_is_left(trial):
    children = trial.children()
    folder = trial.said("Logs")
    trial.process.kill()
    trial.process.wait()
    eventually(lambda: not [child for child in children if is_there(child)], within=60)
    subprocess.run(["rm", "-r", folder], check=True)
