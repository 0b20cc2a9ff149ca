"""A gateway with a life, and a real Prometheus that watches it: three nodes on a Redis, clients, and what goes wrong.

One run serves all tests of dashboards. It is seen twice: by a plain Prometheus' labels (job and instance), and by those of
a cluster (namespace and pod too).
"""

import asyncio
import itertools
import json
import random
import subprocess
import threading
import time
import urllib.request

import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from backend import OK, BackEnd, result
from cluster import RedisServer, publish
from dashboard import Prometheus
from gatecast import EXAMPLES, ROOT, Node, eventually, lasts, request
from ports import free_port
from wire import TEXT, Socket, frame

PLAIN, KUBERNETES = "gatecast", "kubernetes/gatecast"
LABELS = {"cluster": "earth", "namespace": "space"}
CLIENTS = 30
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
           "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
CONFIG = """
shards = 2
trusted_proxies = ["127.0.0.1"]
[limits]
ping_interval = "1s"
outbox_bytes = 131072
close_timeout = "500ms"
max_connections = 40
handshake_rate = 2
[redis]
lease = "3s"
heartbeat = "200ms"
on_outage = "buffer"
buffer_age = "1s"
[drain]
window = "5s"
[auth]
user_header = "X-User"
[targets.orders]
url = "ORDERS"
max_in_flight = 1
timeout = "2s"
[targets.away]
url = "http://127.0.0.1:1"
[functions.count]
runtime = "node"
handler = "count.handler"
code = "FOLDER"
max_processes = 1
hosts = { "dynamodb.us-east-1.amazonaws.com" = "TABLE" }
[routes.order]
integration = "http"
target = "orders"
two_way = true
[routes.pay]
integration = "http"
target = "away"
[routes.count]
integration = "function"
function = "count"
"""
# Asks its table, and ends now and then.
COUNT = """
let runs = 0;
exports.handler = async () => {
  if (++runs % 8 === 0) process.exit(1);
  await fetch("https://dynamodb.us-east-1.amazonaws.com/").then((answer) => answer.text());
  return { statusCode: 200 };
};
"""


def answered(_):
    """Orders take a while, and some fail."""
    time.sleep(0.4)
    return result(OK, random.choice([200, 200, 200, 500]))


def table_answered(_):
    """A table that keeps no connection, so that each is seen to end."""
    return 200, {"Connection": "close"}, b"{}"


class Watch:
    """A `prometheus` with the configuration and rules of `deploy/`, other targets, and a second between scrapes."""

    def __init__(self, directory):
        self.targets = directory / "targets.json"
        self.cluster_targets = directory / "cluster-targets.json"
        self.nodes = {}
        self.show()
        port = free_port()
        config = directory / "prometheus.yaml"
        config.write_text(yaml.safe_dump(self._config()))
        line = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        with open(directory / "prometheus.log", "wb") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=log)
        self.api = Prometheus(f"http://127.0.0.1:{port}")
        eventually(self._is_ready)

    def _config(self):
        folder = ROOT / "deploy/prometheus"
        config = yaml.safe_load((folder / "prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(folder / name) for name in config["rule_files"]]
        (job,) = [job for job in config["scrape_configs"] if job["job_name"] == PLAIN]
        assert job.pop("static_configs")
        config["scrape_configs"] = [
            job | {"job_name": name, "file_sd_configs": [{"files": [str(file)]}]}
            for name, file in ((PLAIN, self.targets), (KUBERNETES, self.cluster_targets))
        ]
        return config

    def _is_ready(self):
        try:
            with urllib.request.urlopen(f"{self.api.url}/-/ready", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    def show(self):
        """Writes the targets anew; Prometheus notices."""
        plain, cluster = [], []
        for name, node in self.nodes.items():
            address = "{}:{}".format(*node.admin_address)
            plain.append({"targets": [address], "labels": {"instance": f"{name}:9090"}})
            cluster.append({"targets": [address], "labels": LABELS | {"pod": name, "instance": address}})
        for file, content in ((self.targets, plain), (self.cluster_targets, cluster)):
            file.with_suffix(".new").write_text(json.dumps(content))
            file.with_suffix(".new").rename(file)

    def has(self, expression):
        """Returns a query's answer, which is empty where there is none."""
        return self.api.ask("query", query=expression)["result"]

    def sees(self, expression):
        """Waits until a query has an answer."""
        return eventually(lambda: self.has(expression), within=30)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Crowd:
    """Clients that talk now and then, read everything, and come back when they are closed, as browsers do."""

    def __init__(self, nodes):
        self.nodes, self.random = nodes, random.Random(7)
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()

    async def _run(self):
        clients = [asyncio.create_task(self._live(number)) for number in range(CLIENTS)]
        while not self.is_over.is_set():
            await asyncio.sleep(0.05)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _live(self, number):
        options = {"compression": None, "ping_interval": None, "open_timeout": 5, "close_timeout": 1, "proxy": None,
                   "additional_headers": {"X-User": f"user-{number % 10}"}}
        # Not all at once: nodes let in so many a second.
        await asyncio.sleep(0.25 * number)
        while True:
            try:
                async with connect(self.random.choice(list(self.nodes.values())).url, **options) as client:
                    await self._talk(client, number)
            except (OSError, TimeoutError, WebSocketException):
                pass
            await asyncio.sleep(self.random.uniform(0.1, 0.6))

    async def _talk(self, client, number):
        await client.send(json.dumps({"action": "joinGroup", "group": f"crew-{number % 6}"}))
        talking = asyncio.create_task(self._say(client, number))
        try:
            async for _ in client:
                pass
        finally:
            talking.cancel()

    async def _say(self, client, number):
        words = [{"action": "sendMessage", "data": "Ground Control to Major Tom " * 4}, {"action": "dance"},
                 {"action": "order"}, {"action": "pay"}, {"action": "count"},
                 *[{"action": "sendToGroup", "group": f"crew-{number % 6}", "data": "the stars look different"}] * 6]
        while True:
            await asyncio.sleep(self.random.uniform(0.3, 1.2))
            await client.send(json.dumps(self.random.choice(words)))


class Sender:
    """A program that sends through the management API, and sometimes to connections that are gone."""

    def __init__(self, nodes):
        self.nodes = nodes
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
            if self.is_over.wait(0.15):
                return
            node = random.choice(list(self.nodes.values()))
            try:
                publish(node, random.choice(["@broadcast", "@groups/crew-1", "@users/user-3"]), "to those concerned")
                # Half of these say what was said before.
                key = {"Idempotency-Key": f"word {number // 2}"}
                request(node.address, "POST", "/beta/@groups/crew-2", b"once", key)
                request(node.address, "GET", "/beta/@connections/L0SM9cOFvHcCIhw=")
            except OSError:
                pass


class Run:
    """Lives the life; afterwards `start` and `end` say when it was."""

    def __init__(self, directory):
        self.directory, self.started = directory, []
        self.redis = RedisServer(directory / "redis")
        self.watch = Watch(directory)
        # Those that clients are sent to.
        self.nodes = {}
        self.orders, self.table = BackEnd(answered), BackEnd(table_answered)
        (directory / "count.js").write_text(COUNT)
        text = CONFIG.replace("ORDERS", self.orders.url).replace("FOLDER", str(directory))
        text = text.replace("TABLE", "{}:{}".format(*self.table.address))
        chat = (EXAMPLES / "chat.toml").read_text()
        self.config = text + chat[chat.index("[routes"):]

    def add(self, name):
        folder = self.directory / name
        folder.mkdir()
        node = Node(folder, self.config, environment={"GATECAST_REDIS_URL": self.redis.url})
        self.started.append(node)
        eventually(lambda: node.page("/ready")[0] == 200)
        self.nodes[name] = self.watch.nodes[name] = node
        self.watch.show()
        return node

    def live(self):
        for number in range(3):
            self.add(f"node-{number + 1}")
        self.watch.sees(f'count(gatecast_build_info{{job="{PLAIN}"}}) == 3')
        with Crowd(self.nodes), Sender(self.nodes):
            self.watch.sees(f'sum(gatecast_connections{{job="{PLAIN}"}}) == {CLIENTS}')
            self.start = time.time()
            self.be_quiet(3)
            self.be_slow()
            self.cut_subscribers()
            self.be_quiet(1)
            self.lose_redis()
            self.be_quiet(3)
            self.lose_node()
            self.be_quiet(1)
            self.replace_node()
            self.be_quiet(3)
        self.end = time.time()

    def be_quiet(self, seconds):
        """An ordinary time; the pictures need some."""
        lasts(seconds)

    def be_slow(self):
        """A client that never reads, until it is closed."""
        node = self.nodes["node-1"]
        with Socket(node.address, receive_buffer=4096).upgrade() as client:
            client.send(frame(TEXT, b'{"action":"joinGroup","group":"slow"}'))

            def is_seen():
                # The kernel may take what waits after all; then it is given more.
                if not node.metric("gatecast_outbox_bytes"):
                    publish(node, "@groups/slow", "x" * 60_000)
                return self.watch.has(f'sum(gatecast_outbox_bytes{{job="{PLAIN}"}}) > 0')

            eventually(is_seen, within=30)
            while not node.metric("gatecast_slow_consumer_disconnects_total"):
                publish(node, "@groups/slow", "x" * 60_000)

    def cut_subscribers(self):
        """Redis closes the connections that listen, until nodes have had to repair what they missed."""
        def is_repaired():
            assert self.redis.cut_subscribers() > 0
            lasts(0.5)
            return all(node.metric("gatecast_messages_repaired_total") for node in self.nodes.values())

        eventually(is_repaired, within=20)

    def lose_redis(self):
        """Redis dies, and comes back with nothing."""
        self.redis.kill()
        self.watch.sees(f'sum(gatecast_redis_up{{job="{PLAIN}"}}) == 0')
        self.watch.sees('increase(gatecast_publish_duration_seconds_count{outcome="unavailable"}[1m]) > 0')
        # Somebody knocks in vain.
        eventually(lambda: self.nodes["node-1"].metric("gatecast_handshakes_rejected_total", reason="unavailable")
                   or request(self.nodes["node-1"].address, "GET", "/beta", headers=UPGRADE)[0].status == 101)
        assert self.redis.start()
        self.watch.sees(f'sum(gatecast_redis_up{{job="{PLAIN}"}}) == 3')

    def lose_node(self):
        """A node dies; another one ends its connections, and a new one takes its place."""
        eventually(lambda: self.records() == CLIENTS, within=30)
        dead = self.nodes.pop("node-2")
        dead.kill()
        self.watch.sees(f'sum(gatecast_connections_reaped_total{{job="{PLAIN}"}}) > 0')
        del self.watch.nodes["node-2"]
        self.add("node-4")

    def records(self):
        """Connections that Redis knows; it has forgotten them once, and is told again."""
        keys = self.redis.ask("KEYS", "*:connections").split()
        return sum(int(self.redis.ask("HLEN", key)) for key in keys)

    def replace_node(self):
        """A rollout of one node: the fullest, so that there is something to be seen."""
        self.add("node-5")
        self.drained = max(self.nodes, key=lambda name: self.nodes[name].metric("gatecast_connections"))
        old = self.nodes.pop(self.drained)
        old.process.terminate()
        self.watch.sees(f'sum(gatecast_drain_remaining_connections{{job="{PLAIN}"}}) > 0')
        assert old.wait() == 0
        del self.watch.nodes[self.drained]
        self.watch.show()

    def stop(self):
        self.watch.stop()
        for node in self.started:
            node.kill()
        self.redis.kill()
        self.orders.close()
        self.table.close()
