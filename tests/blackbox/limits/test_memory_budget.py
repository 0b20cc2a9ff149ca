"""The node's memory, in a control group of 256 MiB: by no way in do clients or callers push it over the limit."""

import itertools
import json
import os
import selectors
import socket
import threading
import time
from pathlib import Path

import pytest

from cluster import paused
from gatecast import Node, eventually, request
from wire import CLOSE, CONTINUATION, PING, TEXT, Socket, frame, handshake

MIB = 1 << 20
LIMIT = 256 * MIB
CONFIG = """
[limits]
ping_interval = "off"
outbox_age = "1h"
handshake_rate = 100_000
max_http_connections = 4_096
[routes."$default"]
integration = "reply"
reply = "$request.body"
[routes.sendMessage]
integration = "broadcast"
data = "$request.body.data"
[routes.toNobody]
integration = "send_group"
group = "nobody"
data = "$request.body.data"
"""
NUMBERS = itertools.count()


class Group:
    """A control group with a limit of memory, of the version that limits memory here; what sockets hold counts."""

    ROOT = Path("/sys/fs/cgroup")

    def __init__(self):
        name = f"gatecast-test-{os.getpid()}-{next(NUMBERS)}"
        unified = [root for root in (self.ROOT, self.ROOT / "unified") if (root / "cgroup.controllers").exists()]
        self.is_v2 = any("memory" in (root / "cgroup.subtree_control").read_text().split() for root in unified)
        self.path = (unified[0] if self.is_v2 else self.ROOT / "memory") / name
        try:
            self.path.mkdir()
        except OSError as error:
            pytest.fail(f"cannot make a control group, which needs root and a writable {self.path.parent}: {error}")
        if self.is_v2:
            self.write("memory.max", LIMIT)
            if (self.path / "memory.swap.max").exists():
                self.write("memory.swap.max", 0)
        else:
            self.write("memory.limit_in_bytes", LIMIT)
            self.write("memory.kmem.tcp.limit_in_bytes", LIMIT)
        self.highest, self.is_watched = 0, threading.Event()
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()

    def write(self, name, value):
        (self.path / name).write_text(str(value))

    def number(self, name):
        return int((self.path / name).read_text())

    def used(self):
        """Version 1 counts sockets apart."""
        if self.is_v2:
            return self.number("memory.current")
        return self.number("memory.usage_in_bytes") + self.number("memory.kmem.tcp.usage_in_bytes")

    def watch(self):
        while not self.is_watched.wait(0.002):
            self.highest = max(self.highest, self.used())

    def peak(self):
        """Of the sum the highest that was seen, 500 looks a second; of the process the highest there was."""
        file = "memory.peak" if self.is_v2 else "memory.max_usage_in_bytes"
        return max(self.highest, self.number(file))

    def kills(self):
        file = self.path / ("memory.events" if self.is_v2 else "memory.oom_control")
        return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])

    def remove(self):
        self.is_watched.set()
        self.watcher.join()
        eventually(self._removed)

    def _removed(self):
        try:
            self.path.rmdir()
        except OSError:
            return False
        return True


class Arena:
    """A node in a group, with clients that do nothing wrong."""

    def __init__(self, directory, config):
        self.group = Group()
        runner = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.group.path))
        self.node = type("Confined", (Node,), {"runner": runner})(directory, config)
        eventually(lambda: self.node.page("/ready")[0] == 200)
        self.innocents = [Socket(self.node.address).upgrade() for _ in range(20)]
        self.others = []

    def open(self, count, **options):
        """That many clients that will not read."""
        options = {"receive_buffer": 4096} | options
        opened = []
        for _ in range(count):
            client = Socket(self.node.address, **options)
            client.send(handshake())
            head = client.raw.recv(4096)
            if not head.startswith(b"HTTP/1.1 101"):
                assert head.startswith(b"HTTP/1.1 503"), head
                client.raw.close()
                break
            opened.append(client.raw)
        self.others += opened
        return opened

    def dial(self, count):
        opened = [socket.create_connection(self.node.address, timeout=10) for _ in range(count)]
        self.others += opened
        return opened

    def settle(self):
        """Asserts what must be true of each attack, during and after it."""
        for client in self.innocents:
            client.send(frame(PING, b"still here"))
            while (got := client.receive())[0] not in (0xA, CLOSE):
                pass
            assert got == (0xA, b"still here"), "an innocent client was closed"
        peak, kills = self.group.peak(), self.group.kills()
        for one in self.others:
            one.close()
        node = self.node
        eventually(lambda: node.metric("gatecast_connections") == len(self.innocents), within=60)
        eventually(lambda: node.metric("gatecast_memory_used_bytes") < MIB, within=20)
        eventually(lambda: request(node.address, "POST", "/beta/@broadcast", b"again")[0].status == 200)
        for client in self.innocents:
            while client.receive() != (TEXT, b"again"):
                pass
        assert kills == self.group.kills() == 0 and node.process.poll() is None
        assert peak < LIMIT, f"{peak / MIB:.0f} MiB"
        return peak

    def end(self):
        for client in self.innocents:
            client.raw.close()
        for one in self.others:
            one.close()
        self.node.kill()
        self.group.remove()


@pytest.fixture
def arena(tmp_path):
    arenas = []

    def make(config=CONFIG):
        arenas.append(Arena(tmp_path, config))
        return arenas[-1]

    yield make
    for one in arenas:
        one.end()


def pump(sockets, data, within=8.0):
    """Sends `data` on each socket, all at once, until each took it all, or has ended, or takes no more for a while."""
    selector = selectors.DefaultSelector()
    for one in sockets:
        one.setblocking(False)
        selector.register(one, selectors.EVENT_WRITE, memoryview(data))
    end = time.monotonic() + within
    while selector.get_map() and (ready := selector.select(timeout=1.0)) and time.monotonic() < end:
        for key, _ in ready:
            try:
                sent = key.fileobj.send(key.data[: 1 << 20])
            except BlockingIOError:
                continue
            except OSError:
                sent = len(key.data)
            rest = key.data[sent:]
            if rest:
                selector.modify(key.fileobj, selectors.EVENT_WRITE, rest)
            else:
                selector.unregister(key.fileobj)
    selector.close()


def slow_readers(arena):
    """Each is owed 1 MB of answers of its own."""
    pump(arena.open(600), frame(TEXT, b"." * 30_000) * 40)


def unfinished_messages(arena):
    part = frame(TEXT, b"." * 30_000, fin=False) + frame(CONTINUATION, b"." * 30_000, fin=False) * 3
    pump(arena.open(2_500), part)


def unread_pongs(arena):
    pump(arena.open(300), frame(PING, b"." * 125) * 3_000, within=5.0)


def unread_broadcasts(arena):
    """Many are owed the same bytes, which count once."""
    arena.open(1_000)
    sender = Socket(arena.node.address).upgrade().raw
    arena.others.append(sender)
    message = json.dumps({"action": "sendMessage", "data": "x" * 30_000}).encode()
    pump([sender], frame(TEXT, message) * 200)


def floods_of_broadcasts(arena):
    message = json.dumps({"action": "sendMessage", "data": "x"}).encode()
    pump(arena.open(100), frame(TEXT, message) * 200)


def kernel_buffers(arena):
    """Clients that do not read are not read from: what they send stays in the kernel."""
    clients = arena.open(400)
    pump(clients, frame(TEXT, b"." * 30_000) * 25)
    pump(clients, frame(TEXT, b"." * 30_000) * 40)


def http_bodies(arena):
    head = b"POST /beta/@broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 131072\r\n\r\n"
    pump(arena.dial(2_000), head + b"x" * 131_000)


def http_heads(arena):
    pump(arena.dial(2_000), b"GET /beta HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 15_000)


def unread_lists(arena):
    arena.open(500)
    query = b"GET /beta/@connections?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    callers = arena.dial(200)
    for one in callers:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    pump(callers, query * 5)
    eventually(lambda: arena.node.metric("gatecast_management_requests_total") >= 100)


WAYS = [
    slow_readers,
    unfinished_messages,
    unread_pongs,
    unread_broadcasts,
    floods_of_broadcasts,
    kernel_buffers,
    http_bodies,
    http_heads,
    unread_lists,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_way_in_takes_more_than_there_is(arena, note, way):
    one = arena()
    way(one)
    note(f"memory, {way.__name__}: a peak of {one.settle() / MIB:.0f} of {LIMIT // MIB} MiB")


def test_publications_that_redis_does_not_take_are_refused(arena, redis, note):
    """Refused, answered and counted, long before the bound of their number; and given back once Redis answers."""
    one = arena(CONFIG + f'[redis]\nurl = "{redis.url}"\n')
    text = json.dumps({"action": "toNobody", "data": "x" * 120_000}).encode()
    parts = [text[at : at + 30_000] for at in range(0, len(text), 30_000)]
    message = b"".join(
        frame(CONTINUATION if at else TEXT, part, fin=at == len(parts) - 1) for at, part in enumerate(parts)
    )
    clients = one.open(8)
    with paused(redis.process):
        pump(clients, message * 200, within=6.0)
        assert one.node.metric("gatecast_memory_used_bytes", kind="publications") <= 33 * MIB
        refused = lambda: sum(
            one.node.metric("gatecast_messages_dropped_total", reason=reason) for reason in ("overload", "memory", "unavailable")
        )
        eventually(lambda: refused() > 0)
    note(f"memory, publications with Redis held: a peak of {one.settle() / MIB:.0f} of {LIMIT // MIB} MiB")
