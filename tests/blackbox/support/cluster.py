"""Several nodes on one real Redis: the server, what goes wrong with it, and publishers that keep the books."""

import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from gatecast import Node, connection_id, eventually, request
from ports import free_port
from wire import Socket, handshake

# Longer than any fault, even on a machine that is busy: nobody is taken for dead.
LONG_LEASE = {"GATECAST_REDIS_LEASE": "10s", "GATECAST_REDIS_HEARTBEAT": "200ms"}
# For tests in which somebody is.
SHORT_LEASE = LONG_LEASE | {"GATECAST_REDIS_LEASE": "1s"}
# Order is promised within a channel only, so each channel has its own last message.
BROADCAST_AND_MOON = ("@broadcast", "@groups/moon")
# Everybody is told of every end.
ANNOUNCED = """
[routes."$disconnect"]
integration = "broadcast"
data = "${context.connectionId} left"
"""
JOIN_MOON = '{"action":"joinGroup","group":"moon"}'


class RedisServer:
    """One `redis-server` with its own directory and port, which may be ended and started again."""

    def __init__(self, directory, is_persistent=False):
        directory.mkdir()
        self.directory, self.is_persistent = directory, is_persistent
        self.port = free_port()
        assert self.start(), f"redis-server did not start: {self.log()}"

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def start(self):
        """Returns whether the server is there; it is not if another process has the port."""
        line = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--dir", self.directory, "--save", "",
                "--appendonly", "yes" if self.is_persistent else "no", "--appendfsync", "always"]
        with open(self.directory / "redis.log", "ab") as log:
            self.process = subprocess.Popen([str(word) for word in line], stdout=log, stderr=log)
        own = f"process_id:{self.process.pid}"
        eventually(lambda: self.process.poll() is not None or own in self.ask("INFO", "server"))
        return self.process.poll() is None

    def log(self):
        return (self.directory / "redis.log").read_text()

    def ask(self, *words):
        line = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=10).stdout.strip()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def cut_subscribers(self):
        """Ends the connections that listen; returns how many there were."""
        return int(self.ask("CLIENT", "KILL", "TYPE", "pubsub"))

    def mentions(self, text):
        """The first key whose record holds a text. Streams are not asked: they keep what was once said."""
        reads = {"hash": ["HGETALL"], "set": ["SMEMBERS"], "string": ["GET"], "zset": ["ZRANGE", "0", "-1"]}
        for key in self.ask("KEYS", "*").split():
            read, *rest = reads.get(self.ask("TYPE", key), ["EXISTS"])
            if text in key or text in self.ask(read, key, *rest):
                return key
        return None


class LateNode(Node):
    """A node that is looked at while it starts; it is not known whether it greets before it is ready."""

    def __init__(self, directory, while_starting, **environment):
        self.while_starting = while_starting
        super().__init__(directory, environment=environment)

    def _read_greeting(self):
        self.admin_address = eventually(self._find_admin)
        self.while_starting(self)
        return super()._read_greeting()

    def _find_admin(self):
        addresses = [("127.0.0.1", port) for port in listening_ports(self.process.pid)]
        return next((each for each in addresses if request(each, "GET", "/live")[0].status == 200), None)


def link_of(path):
    """Where a link leads; nowhere once it is gone."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return None


def listening_ports(process_id):
    links = [link_of(f"/proc/{process_id}/fd/{name}") for name in os.listdir(f"/proc/{process_id}/fd")]
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return [int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links]


@contextmanager
def paused(process):
    """Holds a process, as a stall of its host does."""
    process.send_signal(signal.SIGSTOP)
    try:
        with open(f"/proc/{process.pid}/stat") as stat:
            eventually(lambda: stat.seek(0) == 0 and stat.read().rsplit(")")[1].split()[0] == "T")
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def kill(nodes):
    for node in nodes:
        node.is_ended_by_test = True
        node.process.kill()


def throughout(seconds, check):
    """Asserts that something is so all the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert check()
        time.sleep(0.02)


@pytest.fixture
def start_redis(tmp_path):
    """Starts servers, and ends them with the test."""
    servers = []

    def start_redis(**options):
        servers.append(RedisServer(tmp_path / f"redis-{len(servers)}", **options))
        return servers[-1]

    yield start_redis
    for server in servers:
        server.kill()


@pytest.fixture
def redis(start_redis):
    return start_redis()


@pytest.fixture
def start_on(start):
    """Starts nodes on a Redis, with times that suit tests, and waits as a load balancer does."""

    def start_on(server, count=3, config="", **environment):
        nodes = [start(config, GATECAST_REDIS_URL=server.url, **(LONG_LEASE | environment)) for _ in range(count)]
        eventually(lambda: all(node.page("/ready")[0] == 200 for node in nodes))
        return nodes

    return start_on


@contextmanager
def clients_of(nodes, each=1):
    """Clients of every node; each knows its id and its node."""
    with ExitStack() as stack:
        clients = []
        for node in (node for node in nodes for _ in range(each)):
            client = stack.enter_context(node.connect(max_queue=None))
            client.id, client.node = connection_id(client), node
            clients.append(client)
        yield clients


def is_internal_error(text):
    return re.fullmatch(r'\{"message": "Internal server error", "connectionId":"\S{16}", "requestId":"\S{16}"\}', text)


def metric(node, name, **labels):
    """As the node's own, but it is a fault if there is none."""
    assert any(sample.name == name for sample in node.samples()), f"{name} is missing"
    return node.metric(name, **labels)


def refusals(node, kind):
    return metric(node, "gatecast_redis_refusals_total", **{"class": kind})


def handshake_status(address):
    with Socket(address) as client:
        return client.send(handshake()).response(has_body=False)[0]


def ready(node):
    status, body = node.page("/ready")
    return status, json.loads(body)


def warnings(node, text):
    return [line for line in node.log().splitlines() if " WARN " in line and text in line]


def publish(node, path, text):
    """Returns the status and, if it was accepted, the offset."""
    response, body = request(node.address, "POST", f"/beta/{path}", text.encode())
    return response.status, json.loads(body)["offset"] if response.status == 200 else None


class Publisher:
    """Posts numbered messages from a thread, one after the other, through its nodes in turn; notes each answer."""

    def __init__(self, nodes, path="@broadcast", name="message", pause=0.004, publish=publish):
        self.nodes, self.path, self.name, self.pause = itertools.cycle(nodes), path, name, pause
        self.publish = publish
        self.answers = []
        # When each was asked for and answered, by its text.
        self.times = {}
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()

    def _run(self):
        for number in itertools.count():
            text = f"{self.name} {number}"
            asked = time.monotonic()
            try:
                answer = self.publish(next(self.nodes), self.path, text)
            except OSError as error:
                answer = error, None
            self.times[text] = asked, time.monotonic()
            self.answers.append((text, *answer))
            if self.is_over.wait(self.pause):
                return

    def accepted(self):
        return [text for text, status, _ in self.answers if status == 200]

    def more(self, count):
        """Waits until that many more messages have been accepted."""
        wanted = len(self.accepted()) + count
        eventually(lambda: len(self.accepted()) >= wanted, within=20)

    def check(self, received, who=""):
        """What was accepted came once and in order; what was not may have come, at most once."""
        own = [text for text in received if text.rsplit(" ")[0] == self.name]
        twice = sorted({text for text in own if own.count(text) > 1})
        assert not twice, f"{who}: more than once: {twice}"
        accepted = self.accepted()
        lost = sorted(set(accepted) - set(own), key=accepted.index)
        assert not lost, f"{who}: lost {len(lost)} of {len(accepted)}: {lost[:10]}"
        assert [text for text in own if text in set(accepted)] == accepted, f"{who}: another order"
        assert set(own) <= {text for text, _, _ in self.answers}


def received_until_now(clients, through, paths=("@broadcast",)):
    """Sends everybody a last message on each channel, and returns what each client received before them."""

    def last(path):
        text = f"last {path} {next(numbers)}"
        return text if publish(through, path, text)[0] == 200 else None

    numbers = itertools.count()
    ends = {eventually(lambda: last(path)) for path in paths}
    received = [[] for _ in clients]
    for client, texts in zip(clients, received):
        while not ends <= set(texts):
            texts.append(client.recv(timeout=10))
    return [[text for text in texts if not text.startswith("last ")] for texts in received]
