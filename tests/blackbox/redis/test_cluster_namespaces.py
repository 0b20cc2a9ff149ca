"""True partitions: a node in one network namespace, Redis in another, and packets between them that do not arrive.

Nothing is refused or reset here, as by a proxy that is told to: bytes vanish, in both directions or in one, and TCP goes on
trying. Clients reach the cut node all the time, by a link of their own.
"""

import ipaddress
import itertools
import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import (ANNOUNCED, BROADCAST_AND_MOON, JOIN_MOON, SHORT_LEASE, Publisher, RedisServer, clients_of,
                     is_internal_error, metric, publish, received_until_now, throughout)
from gatecast import EXAMPLES, Node, ask, drain_frames, eventually
from wire import Socket, handshake

CHAT = (EXAMPLES / "chat.toml").read_text() + ANNOUNCED
# A fault that is shorter than the lease even on a machine that is busy.
PATIENT = {
    "GATECAST_REDIS_LEASE": "25s",
    "GATECAST_REDIS_HEARTBEAT": "200ms",
    "GATECAST_REDIS_STREAM_ENTRIES": "100000",
}
# Within which nobody else's addresses are: it is reserved for tests of networks.
ADDRESSES = ipaddress.ip_network("198.18.0.0/15")
numbers = itertools.count()


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        pytest.fail(
            f"{' '.join(map(str, words))}: {done.stderr.strip() or done.stdout.strip()}\n"
            "These tests need network namespaces: root (or CAP_NET_ADMIN and CAP_SYS_ADMIN), Linux, iproute2 and iptables."
        )
    return done.stdout


class Network:
    """The host, a namespace for the node that is cut, and one for Redis; a link between any two of them.

    The link between node and Redis is the one that fails. There is no way around it: nobody forwards.
    """

    def __init__(self):
        number = next(numbers)
        self.name = f"gatecast-{os.getpid()}-{number}"
        self.node, self.redis = f"{self.name}-node", f"{self.name}-redis"
        self.links = itertools.count()
        # Each its own: the links of a network that was removed end a moment later.
        base = int(ADDRESSES[0]) + (os.getpid() * 61 + number) % (ADDRESSES.num_addresses // 16) * 16
        self.addresses = map(str, map(ipaddress.ip_address, itertools.count(base)))

    def build(self):
        for namespace in (self.node, self.redis):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        _, self.node_for_clients = self._link(None, self.node)
        _, self.redis_for_others = self._link(None, self.redis)
        _, self.redis_for_node = self._link(self.node, self.redis, name="cut")

    def _link(self, *namespaces, name=None):
        """Links two namespaces, of which `None` is the host's; returns the address of each end."""
        _, *addresses, _ = (next(self.addresses) for _ in range(4))
        # The host's names are for all; those in a namespace are its own.
        names = [f"{name or 'clients'}{end}" if own else f"gc{os.getpid()}-{next(numbers)}" for end, own in enumerate(namespaces)]
        ends = [[name, *(["netns", own] if own else [])] for name, own in zip(names, namespaces)]
        run("ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
        for own, name, address in zip(namespaces, names, addresses):
            inside = ["-n", own] if own else []
            run("ip", *inside, "address", "add", f"{address}/30", "dev", name)
            run("ip", *inside, "link", "set", name, "up")
        return addresses

    def remove(self):
        """Removes whatever there is of it; the links end with the namespaces."""
        there = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=20).stdout.split()
        for namespace in {self.node, self.redis} & set(there):
            # Whatever a test that failed has left in it.
            for process in run("ip", "netns", "pids", namespace).split():
                os.kill(int(process), signal.SIGKILL)
            run("ip", "netns", "delete", namespace)

    # The ways in which the link fails. Each is undone by `heal`.

    def link_is_down(self):
        run("ip", "-n", self.node, "link", "set", "cut0", "down")

    def nothing_passes(self):
        self.nothing_reaches_redis()
        self.nothing_reaches_the_node()

    def nothing_reaches_redis(self):
        run("ip", "netns", "exec", self.redis, "iptables", "-A", "INPUT", "-i", "cut1", "-j", "DROP")

    def nothing_reaches_the_node(self):
        run("ip", "netns", "exec", self.node, "iptables", "-A", "INPUT", "-i", "cut0", "-j", "DROP")

    def heal(self):
        run("ip", "-n", self.node, "link", "set", "cut0", "up")
        for namespace in (self.node, self.redis):
            run("ip", "netns", "exec", namespace, "iptables", "-F", "INPUT")


WAYS = ["link_is_down", "nothing_passes", "nothing_reaches_redis", "nothing_reaches_the_node"]


class DistantRedis(RedisServer):
    """A server in its own namespace."""

    def __init__(self, directory, network):
        self.network = network
        super().__init__(directory)

    @property
    def url(self):
        return f"redis://{self.network.redis_for_others}:{self.port}"

    @property
    def url_for_node(self):
        return f"redis://{self.network.redis_for_node}:{self.port}"

    def start(self):
        line = ["ip", "netns", "exec", self.network.redis, "redis-server", "--port", self.port, "--bind", "0.0.0.0",
                "--protected-mode", "no", "--dir", self.directory, "--save", ""]
        with open(self.directory / "redis.log", "ab") as log:
            self.process = subprocess.Popen([str(word) for word in line], stdout=log, stderr=log)
        eventually(lambda: self.process.poll() is not None or self.ask("PING") == "PONG")
        return self.process.poll() is None

    def ask(self, *words):
        line = ["redis-cli", "-h", self.network.redis_for_others, "-p", str(self.port), *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=10).stdout.strip()


class NamedRedis(DistantRedis):
    """A server beside the node, at an address for which the node knows a name."""

    name = "redis.test"

    def __init__(self, directory, network, address):
        self.address = address
        super().__init__(directory, network)

    @property
    def url_for_node(self):
        return f"redis://{self.name}:6379"

    def start(self):
        # The namespace has all ports for itself.
        line = ["ip", "netns", "exec", self.network.node, "redis-server", "--port", "6379", "--bind", self.address, "--save", "",
                "--dir", str(self.directory)]
        with open(self.directory / "redis.log", "ab") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=log)
        eventually(lambda: self.process.poll() is not None or self.ask("PING") == "PONG")
        return self.process.poll() is None

    def ask(self, *words):
        line = ["ip", "netns", "exec", self.network.node, "redis-cli", "-h", self.address, *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=10).stdout.strip()


def node_in(network):
    """A node in the namespace whose link to Redis fails."""
    address = network.node_for_clients

    class LonelyNode(Node):
        admin_listen = f"{address}:0"
        runner = ("ip", "netns", "exec", network.node)

    return LonelyNode


@pytest.fixture
def network():
    network = Network()
    try:
        network.build()
        yield network
    finally:
        network.remove()


@pytest.fixture
def start_cut_off(tmp_path, network, start):
    """Starts Redis, a node whose link to it can fail, and nodes whose link does not."""
    ends = []

    def start_cut_off(config="", count=2, **environment):
        server = DistantRedis(tmp_path / "redis", network)
        ends.append(server.kill)
        well = [start(config, GATECAST_REDIS_URL=server.url, **environment) for _ in range(count)]
        (tmp_path / "lonely").mkdir()
        variables = {"GATECAST_REDIS_URL": server.url_for_node, "GATECAST_MANAGEMENT_AUTH": "none"} | environment
        listen = f"{network.node_for_clients}:0"
        lonely = node_in(network)(tmp_path / "lonely", config, listen=listen, environment=variables)
        ends.append(lonely.kill)
        eventually(lambda: all(node.page("/ready")[0] == 200 for node in [lonely, *well]))
        return lonely, well

    try:
        yield start_cut_off
    finally:
        for end in reversed(ends):
            end()
    assert "panicked" not in (tmp_path / "lonely/stderr.log").read_text()


@contextmanager
def failing(network, way):
    getattr(network, way)()
    try:
        yield
    finally:
        network.heal()


def reply(client, text, is_reply, others):
    """Sends a message and waits for the reply to it; what comes before it is added to `others`."""
    client.send(text)
    while not is_reply(got := client.recv(timeout=10)):
        others.append(got)
    return got


def refuses_what_needs_redis(client, far, text):
    """The README's table of an outage, for the node of `client`; `far` is a client of another node.

    Returns what came to the client meanwhile.
    """
    node, others = client.node, []
    with Socket(node.address) as new, ThreadPoolExecutor() as threads:
        # Each waits for Redis in vain, all at once.
        handshaking = threads.submit(lambda: new.send(handshake()).response(has_body=False))
        posting = [threads.submit(publish, node, path, text) for path in ("@broadcast", "@groups/moon")]
        asking = threads.submit(node.post, far.id, b"refused")
        assert reply(client, f'{{"action":"sendMessage","data":"{text}"}}', is_internal_error, others)
        assert reply(client, '{"action":"joinGroup","group":"mars"}', is_internal_error, others)
        status, headers, _ = handshaking.result()
        assert status == 503 and int(headers["retry-after"]) > 0
        assert [each.result()[0] for each in posting] == [503, 503]
        assert asking.result() == 503
    assert node.post(client.id, b"from the same node") == 200
    assert reply(client, '{"action":"no such action"}', lambda got: '"Forbidden"' in got, others)
    assert others.pop() == "from the same node"
    assert node.page("/live")[0] == 200
    return others


@pytest.mark.parametrize("way", WAYS)
def test_a_node_that_is_cut_off_for_less_than_its_lease_misses_nothing(network, start_cut_off, way):
    lonely, well = start_cut_off(CHAT, **PATIENT)
    with clients_of([lonely, *well], each=2) as clients:
        near, far = clients[0], clients[2]
        for client in clients:
            assert ask(client, JOIN_MOON) == "joined moon"
        with Publisher(well, name="broadcast") as all_of_them, Publisher(well, "@groups/moon", "moon") as members:
            all_of_them.more(20)
            with failing(network, way):
                all_of_them.more(100)
                members.more(100)
                eventually(lambda: metric(lonely, "gatecast_redis_up") == 0)
                before = refuses_what_needs_redis(near, far, "refused")
                assert well[0].post(clients[1].id, b"refused") == 503, "its node holds its lease"
                assert lonely.page("/ready")[0] == 200, "within the grace, since a short outage is the same for all"
            all_of_them.more(20)
            members.more(20)
        eventually(lambda: metric(lonely, "gatecast_redis_up") == 1)
        received = received_until_now(clients, lonely, BROADCAST_AND_MOON)
        received[0] = before + received[0]
        for number, texts in enumerate(received):
            all_of_them.check(texts, f"client {number}")
            members.check(texts, f"client {number}")
            # What a deaf node was told is refused may have been heard by Redis: then it went to all, each once.
            assert texts.count("refused") <= 4
            assert not [text for text in texts if text.endswith("left")]
        orders = [[text for text in texts if text.startswith("broadcast ")] for texts in received]
        assert all(texts == orders[0] for texts in orders), "one order for all"
        assert metric(lonely, "gatecast_recoveries_total", result="repaired") >= 1
        assert metric(lonely, "gatecast_recoveries_total", result="lost") == 0
        # Whoever was refused may try again; calls for it work again, both ways.
        assert eventually(lambda: well[0].post(near.id, b"hello") == 200) and near.recv(timeout=10) == "hello"
        assert eventually(lambda: lonely.post(far.id, b"hello") == 200) and far.recv(timeout=10) == "hello"
        lonely.serves()
    assert lonely.process.poll() is None


@pytest.mark.parametrize("way", WAYS)
def test_a_node_that_is_cut_off_for_longer_than_its_lease_is_ended_by_the_others_once(network, start_cut_off, way):
    lonely, well = start_cut_off(CHAT, **SHORT_LEASE)
    with clients_of([lonely], each=5) as lost, clients_of(well) as watchers:
        with failing(network, way):
            expected = sorted(f"{client.id} left" for client in lost)
            for watcher in watchers:
                assert sorted(watcher.recv(timeout=15) for _ in lost) == expected
            eventually(lambda: well[0].post(lost[0].id, b"hello") == well[1].post(lost[1].id, b"hello") == 410)
            eventually(lambda: metric(lonely, "gatecast_redis_up") == 0)
            # It cannot know that it is taken for dead: its clients stay, and are told that nothing goes through.
            refuses_what_needs_redis(lost[0], watchers[0], "too late")
            eventually(lambda: lonely.page("/ready")[0] == 503, within=15)
            for client in lost:
                client.ping().wait(timeout=10)
        assert lonely.wait() == 75, "it comes back, learns that it was taken for dead, and ends"
        for client in lost:
            messages, closed = drain_frames(client)
            assert closed is not None, "it was closed with a code"
            assert set(messages) <= {"too late"} | set(expected)
        throughout(1, lambda: all(node.page("/ready")[0] == 200 for node in well))
        for texts in received_until_now(watchers, well[0]):
            # In doubt when it was sent: at most as often as that.
            assert set(texts) <= {"too late"} and texts.count("too late") <= 3, "nobody is told twice that somebody left"


def test_a_name_is_resolved_anew_with_every_connection(tmp_path, network):
    """As when a service moves: its name stays, and its address does not."""
    folder = Path("/etc/netns") / network.node
    folder.mkdir(parents=True)
    ends = [lambda: shutil.rmtree(folder)]
    try:
        # What is here takes the place of /etc/hosts in the namespace.
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.2 {NamedRedis.name}\n")
        first, second = (NamedRedis(tmp_path / address, network, address) for address in ("127.0.0.2", "127.0.0.3"))
        ends += [first.kill, second.kill]
        (tmp_path / "node").mkdir()
        variables = {"GATECAST_REDIS_URL": first.url_for_node, "GATECAST_MANAGEMENT_AUTH": "none"} | SHORT_LEASE
        node = node_in(network)(tmp_path / "node", listen=f"{network.node_for_clients}:0", environment=variables)
        ends.append(node.kill)
        eventually(lambda: node.page("/ready")[0] == 200)
        with node.connect() as client:
            hosts.write_text(f"127.0.0.3 {NamedRedis.name}\n")
            first.kill()
            eventually(lambda: publish(node, "@broadcast", "hello")[0] == 200)
            assert client.recv(timeout=10) == "hello"
        eventually(lambda: "gatecast:nodes" in second.ask("KEYS", "*"))
    finally:
        for end in reversed(ends):
            end()
