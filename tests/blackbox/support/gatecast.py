"""`gatecast` as an operator starts it, on ports that the kernel chooses, and what every test says to it."""

import http.client
import os
import re
import subprocess
import threading
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[3]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
GATECAST = Path(os.environ.get("GATECAST_BINARY", TARGET / "release/gatecast"))
EXAMPLES = ROOT / "deploy/examples"
START_SECONDS = 10


def eventually(check, within=10):
    """Returns the first truthy value of `check`; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := check()):
        assert time.monotonic() < deadline, f"not within {within} s: {check}, last {value!r}"
        time.sleep(0.01)
    return value


def lasts(seconds):
    """Lets time pass. Only for what is to last so long: whoever waits for something takes `eventually`."""
    time.sleep(seconds)


def clean_environment(extra=None):
    """The environment without what would configure the program or its clients."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GATECAST_", "AWS_", "RUST_LOG"))}
    return kept | (extra or {})


def command(*arguments, **environment):
    """Runs `gatecast` to its end."""
    line = [str(GATECAST), *map(str, arguments)]
    return subprocess.run(line, env=clean_environment(environment), capture_output=True, text=True, timeout=20)


def request(address, method, path, body=None, headers=None):
    """Sends one request with its path as it is; returns the response and its body."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


class Node:
    """One `gatecast` process."""

    admin_listen = "127.0.0.1:0"
    # What runs the program, such as `ip netns exec NAME`.
    runner = ()

    def __init__(self, directory, config="", arguments=(), listen="127.0.0.1:0", environment=None):
        self.log_path = directory / "stderr.log"
        line = [*self.runner, str(GATECAST), "--listen", listen, "--admin-listen", self.admin_listen]
        line += map(str, arguments)
        if config:
            path = directory / "gatecast.toml"
            path.write_text(config)
            line += ["--config", str(path)]
        # More than one shard, wherever the tests run: what crosses from one to the other is tested too.
        settings = clean_environment({"GATECAST_SHARDS": "2"} | (environment or {}))
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(line, env=settings, stdout=subprocess.PIPE, stderr=log, text=True)
        self.greeting = self._read_greeting()
        self.url = re.search(r"^  WebSockets  (ws://\S+)$", self.greeting, re.M)[1]
        self.management = re.search(r"^  Management  (http://\S+)/@connections$", self.greeting, re.M)[1]
        self.admin_url = re.search(r"^  Admin       (http://[^\s/]+)", self.greeting, re.M)[1]
        self.address = self._address(self.url)
        self.admin_address = self._address(self.admin_url)

    @staticmethod
    def _address(url):
        host, port = re.match(r"\w+://([^:/]+):(\d+)", url).groups()
        return host, int(port)

    def _read_greeting(self):
        killer = threading.Timer(START_SECONDS, self.process.kill)
        killer.start()
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("  Try "):
                break
        killer.cancel()
        assert lines and lines[-1].startswith("  Try "), f"gatecast did not start: {lines}\n{self.log()}"
        return "".join(lines)

    def log(self):
        return self.log_path.read_text()

    def connect(self, **options):
        """A well-behaved client; the `websockets` package is not ours."""
        defaults = {"compression": None, "ping_interval": None, "open_timeout": 10, "close_timeout": 5, "proxy": None}
        return connect(self.url, **(defaults | options))

    def post(self, connection_id, body):
        path = f"/beta/@connections/{connection_id}"
        return request(self.address, "POST", path, body)[0].status

    def delete(self, connection_id):
        return request(self.address, "DELETE", f"/beta/@connections/{connection_id}")[0].status

    def page(self, path):
        response, body = request(self.admin_address, "GET", path)
        return response.status, body.decode()

    def samples(self):
        status, text = self.page("/metrics")
        assert status == 200
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def metric(self, name, **labels):
        """The sum of the samples of this name that have these labels."""
        return sum(s.value for s in self.samples() if s.name == name and labels.items() <= s.labels.items())

    def serves(self):
        """Asserts that an ordinary client connects and is answered."""
        with self.connect() as client:
            assert connection_id(client)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, within=30):
        return self.process.wait(timeout=within)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def ask(client, text):
    """What a client is told next, once it has sent a text."""
    client.send(text)
    return client.recv(timeout=10)


def connection_id(client):
    """Asks for the id the way a user can: an unknown action is answered with it. The built-in table is needed."""
    client.send('{"action":"no such action"}')
    return re.search(r'"connectionId":"([^"]{16})"', client.recv(timeout=10))[1]


def drain_frames(client):
    """All further messages of a client, and then its close code and reason."""
    messages = []
    try:
        while True:
            messages.append(client.recv(timeout=10))
    except ConnectionClosed as closed:
        return messages, (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else None
