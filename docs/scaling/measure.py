#!/usr/bin/env python3
"""Measures the constants of the model on this machine, in some 90 s, and prints `constants.toml`:

    docs/scaling/measure.py target/release/gatecast target/release/loadtest > /tmp/constants.toml

With `--short` as well it does all that in little, to see that it works; the figures are worth nothing then. Needs `redis-server`, and root for `/proc/slabinfo`. Everything is on loopback and ends with the program. CPU is what the kernel
counts in nanoseconds for all threads of a process (`schedstat`), so clients on the same cores slow it down but are not counted;
what the kernel does on loopback for the receiver is counted with the sender, who would not pay for it on a network.
"""

import atexit
import contextlib
import datetime
import http.client
import json
import os
import platform
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IS_SHORT = "--short" in sys.argv
LITTLE = 0.02 if IS_SHORT else 1
IDLE, GROUPS, POSTS = (int(count * LITTLE) for count in (15_000, 10_000, 3_000))
PAYLOAD, EXTRA = 128, 16
# Seconds in which nothing happens, and is looked at.
QUIET = 0.5 if IS_SHORT else 8
# Nothing but what is measured: no pings, no limits.
SETTINGS = {"GATECAST_LIMITS_HANDSHAKE_RATE": "1000000", "GATECAST_LIMITS_GROUPS_PER_CONNECTION": "10000",
            "GATECAST_LIMITS_MESSAGE_RATE": "100000000", "GATECAST_LIMITS_PING_INTERVAL": "off", "RUST_LOG": "error"}
HANDSHAKE = (b"GET /beta HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
PING, PONG = b"\x89", b"\x8a"
PLAIN = '[[groups]]\npattern = "ticks-*"\nreplay = "off"\n'
CONSTANTS = {}


def constant(name, value, unit, source):
    """Notes a constant; differences of small figures may come out below 0."""
    CONSTANTS[name] = (max(value, 0.0), unit, source)
    print(f"{name} = {value:.4g} {unit}", file=sys.stderr)


class Process:
    """A child, and what it has used."""

    def __init__(self, line, **options):
        self.child = subprocess.Popen([str(word) for word in line], **options)
        atexit.register(self.end)

    def cpu(self):
        """Microseconds."""
        tasks = Path(f"/proc/{self.child.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e3

    def rss(self):
        return int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def end(self):
        self.child.terminate()
        self.child.wait()


class Redis(Process):
    def __init__(self, directory):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        super().__init__(["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--dir", directory],
                         stdout=subprocess.DEVNULL)
        self.url = f"redis://127.0.0.1:{self.port}"
        self.connection = None
        while not self.connection:
            with contextlib.suppress(ConnectionRefusedError):
                self.connection = socket.create_connection(("127.0.0.1", self.port), 10)
        self.answers = self.connection.makefile("rb")

    def ask(self, *words):
        self.connection.sendall(encoded(*words))
        return self._answer()

    def _answer(self):
        line = self.answers.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return self.answers.read(int(rest) + 2)[:-2].decode() if rest != b"-1" else None
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        return rest.decode()

    def info(self, name):
        return int(re.search(rf"^{name}:(?:calls=)?(\d+)", self.ask("INFO", "everything"), re.M)[1])

    def used(self):
        """CPU, bytes that came in, bytes that went out."""
        return self.cpu(), self.info("total_net_input_bytes"), self.info("total_net_output_bytes")

    def subscriber(self, channel):
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        connection.sendall(encoded("SUBSCRIBE", channel))
        connection.recv(1000)
        return connection


def encoded(*words):
    words = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Node(Process):
    def __init__(self, program, directory, redis=None, **settings):
        path = Path(directory) / "gatecast.toml"
        path.write_text(PLAIN)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GATECAST_")}
        environment = kept | SETTINGS | settings | ({"GATECAST_REDIS_URL": redis.url} if redis else {})
        line = [program, "--config", path, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        super().__init__(line, env=environment, stdout=subprocess.PIPE, text=True)
        greeting = self._greeting()
        self.url = re.search(r"ws://\S+", greeting)[0]
        self.address = ("127.0.0.1", int(re.search(r"ws://[^:]+:(\d+)", greeting)[1]))
        self.admin = int(re.search(r"Admin\s+http://[^:]+:(\d+)", greeting)[1])
        while http_status(self.admin, "/ready") != 200:
            time.sleep(0.05)

    def _greeting(self):
        lines = []
        while not lines or "  Try " not in lines[-1]:
            lines.append(self.child.stdout.readline() or sys.exit("gatecast did not start"))
        return "".join(lines)

    def connect(self):
        connection = socket.create_connection(self.address, 10)
        connection.sendall(HANDSHAKE)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(4096) or sys.exit("a handshake was refused")
        return connection


def http_status(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().status


def sent(connection, text):
    """Sends a text frame under a mask of zeros."""
    payload = text.encode()
    head = bytes([0x81, 0x80 | len(payload)]) if len(payload) < 126 else b"\x81\xfe" + len(payload).to_bytes(2, "big")
    connection.sendall(head + bytes(4) + payload)


def serve(connections, is_over):
    """Reads all connections, and answers what are pings, until it is over; returns how many pings there were."""
    poll, by_file, pings = select.epoll(), {}, 0
    for connection in connections:
        poll.register(connection, select.EPOLLIN)
        by_file[connection.fileno()] = connection
    while not is_over():
        for file, _ in poll.poll(0.05):
            data = by_file[file].recv(1 << 18)
            if data[:1] == PING:
                pings += 1
                by_file[file].sendall(PONG + bytes([0x80 | data[1]]) + bytes(4) + data[2:2 + data[1]])
    return pings


def settled(read, seconds=1.0):
    time.sleep(seconds * LITTLE)
    return read()


def for_seconds(seconds):
    """Whether the time is over."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def slab():
    """Bytes in kernel objects that are in use."""
    rows = [line.split() for line in Path("/proc/slabinfo").read_text().splitlines()[2:]]
    return sum(int(row[1]) * int(row[3]) for row in rows)


def loadtest(program, node, *options, meanwhile=()):
    """Runs it, serving connections meanwhile; returns the medians of its measures."""
    with tempfile.NamedTemporaryFile() as file:
        line = [program, *options, "--url", node.url, "--pid", node.child.pid, "--rounds", 1, "--json", file.name]
        child = subprocess.Popen([str(word) for word in line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        serve(meanwhile, lambda: child.poll() is not None)
        if child.returncode:
            sys.exit(f"loadtest {options} has failed")
        return {row["measure"]: statistics.median(row["samples"]) for row in json.load(file)["rows"]}


def deliveries(gatecast, tool, directory):
    for name, window, messages in (("deliver_us", 1, 30), ("deliver_flood_us", 32, 100)):
        node = Node(gatecast, directory)
        options = ["fanout", "--connections", IDLE, "--window", window, "--messages", messages]
        constant(name, loadtest(tool, node, *options)["server CPU per delivery"], "µs of a node",
                 f"loadtest {' '.join(map(str, options))}, {PAYLOAD} bytes")
        node.end()


def idle(gatecast, directory):
    node = Node(gatecast, directory, GATECAST_LIMITS_PING_INTERVAL="2s")
    empty = [settled(node.rss), slab(), node.cpu()]
    crowd = [node.connect() for _ in range(IDLE)]
    constant("open_us", (node.cpu() - empty[2]) / IDLE, "µs of a node", f"{IDLE:,} handshakes, one after the other, no Redis")
    serve(crowd, for_seconds(3 * LITTLE))
    constant("idle_rss_bytes", (node.rss() - empty[0]) / IDLE, "bytes of a node", f"resident set with {IDLE:,} idle connections")
    constant("idle_kernel_bytes", (slab() - empty[1]) / 2 / IDLE, "bytes of a node's kernel",
             f"/proc/slabinfo with {IDLE:,} idle connections, half of it: both ends are on this host")
    before, seconds = node.cpu(), max(QUIET, 3)
    pings = serve(crowd, for_seconds(seconds))
    constant("ping_us", (node.cpu() - before) / pings, "µs of a node", f"{pings:,} pings and pongs of {IDLE:,} connections in {seconds} s")
    for connection in crowd:
        connection.close()
    node.end()


def openings(node, redis):
    before, memory, cpu = redis.cpu(), redis.info("used_memory"), node.cpu()
    crowd = [node.connect() for _ in range(GROUPS)]
    source = f"{GROUPS:,} handshakes, one after the other, with Redis"
    constant("open_with_redis_us", (node.cpu() - cpu) / GROUPS, "µs of a node", source)
    constant("open_redis_us", (settled(redis.cpu) - before) / GROUPS, "µs of Redis", source)
    constant("record_redis_bytes", (redis.info("used_memory") - memory) / GROUPS, "bytes of Redis", source + ": used_memory")
    before = redis.cpu()
    for connection in crowd:
        connection.close()
    constant("close_redis_us", (settled(redis.cpu, 2) - before) / GROUPS, "µs of Redis", "their ends, at once")


def publishing(tool, node, other, redis):
    """Two nodes are subscribed, then so many others as well: the difference is what one costs."""
    listener, channel = other.connect(), "gatecast:{all}"
    for suffix, window, messages in (("us", 1, int(4_000 * LITTLE)), ("flood_us", 32, int(40_000 * LITTLE))):
        options = ["fanout", "--connections", 1, "--senders", 1, "--window", window, "--messages", messages]
        seen = []
        for count in (0, EXTRA):
            extra = [redis.subscriber(channel) for _ in range(count)]
            redis.ask("CONFIG", "RESETSTAT")
            before = (node.cpu(), other.cpu(), *redis.used())
            loadtest(tool, node, *options, meanwhile=[listener, *extra])
            published = redis.info("cmdstat_evalsha")
            after = (node.cpu(), other.cpu(), *redis.used())
            seen.append([(b - a) / published for a, b in zip(before, after)])
            for connection in extra:
                connection.close()
        source = f"loadtest {' '.join(map(str, options))} through Redis"
        each = [(b - a) / EXTRA for a, b in zip(*seen)]
        constant(f"redis_publish_{suffix}", seen[0][2] - 2 * each[2], "µs of Redis", source)
        constant(f"redis_fanout_{suffix}", each[2], "µs of Redis for each node subscribed", f"the same, and with {EXTRA} subscribers more")
        deliver = CONSTANTS["deliver_us" if window == 1 else "deliver_flood_us"][0]
        constant(f"publish_{suffix}", seen[0][0] - seen[0][1], "µs of a node", source + ": a node that publishes and hears, less one that hears")
        constant(f"hear_{suffix}", seen[0][1] - deliver, "µs of a node", "the one that hears, less a delivery")
        if window == 1:
            constant("redis_in_bytes", seen[0][3] - PAYLOAD, "bytes into Redis besides the payload", source + ": total_net_input_bytes")
            constant("redis_fanout_bytes", each[4] - PAYLOAD, "bytes out of Redis for each node subscribed, besides the payload", "total_net_output_bytes")
            constant("redis_answer_bytes", seen[0][4] - 2 * each[4], "bytes out of Redis to who publishes", "total_net_output_bytes")
    template = ["--join-template", '{"action":"joinGroup","group":"ticks-{group}"}', "--join-reply", "joined ticks-{group}",
                "--message-template", '{"action":"sendToGroup","group":"ticks-{group}","data":"{payload}"}']
    options = ["groups", "--groups", 1, "--size", 1, "--senders", 1, "--window", 1, "--messages", int(4_000 * LITTLE)]
    before = redis.cpu()
    redis.ask("CONFIG", "RESETSTAT")
    loadtest(tool, node, *options, *template)
    constant("redis_plain_us", (redis.cpu() - before) / redis.info("cmdstat_publish") - CONSTANTS["redis_fanout_us"][0], "µs of Redis",
             f"loadtest {' '.join(map(str, options))}, a group without replay")


def groups(node, redis):
    member = node.connect()
    before = node.cpu(), redis.cpu(), redis.info("used_memory"), node.rss()
    for number in range(GROUPS):
        sent(member, json.dumps({"action": "joinGroup", "group": f"group-{number}"}))
        # Its answers are not let pile up.
        if number % 100 == 99:
            serve([member], for_seconds(0.05))
    after = settled(node.cpu), redis.cpu(), redis.info("used_memory"), node.rss()
    source = f"{GROUPS:,} groups, joined a hundred at a time"
    names = ("join_us", "join_redis_us", "subscription_redis_bytes", "channel_rss_bytes")
    for name, unit, a, b in zip(names, ("µs of a node", "µs of Redis", "bytes of Redis", "bytes of a node"), before, after):
        constant(name, (b - a) / GROUPS, unit, source)
    before = node.cpu(), redis.cpu(), redis.info("used_memory")
    post(node, [f"/beta/@groups/group-{number}" for number in range(POSTS)])
    after = node.cpu(), redis.cpu(), redis.info("used_memory")
    constant("post_many_us", (after[0] - before[0]) / POSTS, "µs of a node", f"{POSTS:,} POST @groups/…, one after the other, one member each")
    constant("channel_redis_bytes", (after[2] - before[2]) / POSTS, "bytes of Redis", f"a channel with one message of {PAYLOAD} bytes: used_memory")
    constant("meta_redis_bytes", int(redis.ask("MEMORY", "USAGE", "gatecast:{group:group-0}:meta")), "bytes of Redis", "what of it stays for a day: MEMORY USAGE")
    post(node, ["/beta/@groups/group-0"] * 900)
    constant("message_redis_bytes", (redis.info("used_memory") - after[2]) / 900 - PAYLOAD, "bytes of Redis besides the payload", "each further message: used_memory")
    member.close()


def post(node, paths):
    connection = http.client.HTTPConnection(*node.address, timeout=10)
    for path in paths:
        connection.request("POST", path, b"x" * PAYLOAD)
        response = connection.getresponse()
        response.read() if response.status == 200 else sys.exit(f"{path}: {response.status}")


def posts(node, other, redis):
    for name, target in (("here", node), ("away", other)):
        client = target.connect()
        sent(client, '{"action":"dance"}')
        path = "/beta/@connections/" + re.search(rb'connectionId":"(\S{16})"', client.recv(4096))[1].decode()
        before = node.cpu(), other.cpu(), redis.cpu()
        post(node, [path] * POSTS)
        spent = [(b - a) / POSTS for a, b in zip(before, (node.cpu(), other.cpu(), redis.cpu()))]
        source = f"{POSTS:,} POST @connections/…, one after the other, unsigned"
        constant(f"post_{name}_us", spent[0], "µs of a node", source)
        if name == "away":
            constant("post_target_us", spent[1], "µs of the other node, the delivery included", source)
            constant("post_redis_us", spent[2], "µs of Redis", source)
        client.close()


def nodes(gatecast, directory, redis, alive):
    """What nodes cost that do nothing. They do so little that it is made more often: 5 heartbeats a second, then 10 renewals as well."""
    def used():
        begin, cpu = redis.used(), [node.cpu() for node in alive]
        end = settled(redis.used, QUIET / LITTLE)
        return [(b - a) / QUIET for a, b in zip(begin, end)], sum(node.cpu() - old for node, old in zip(alive, cpu)) / QUIET / len(alive)

    def more(lease):
        """What so many nodes more cost each, by the second: CPU, bytes in and out of Redis; and their connections."""
        (few, _), clients = used(), redis.info("connected_clients")
        come = [Node(gatecast, directory, redis, GATECAST_REDIS_HEARTBEAT="200ms", GATECAST_REDIS_LEASE=lease) for _ in range(count)]
        clients = settled(lambda: redis.info("connected_clients")) - clients
        many, _ = used()
        for node in come:
            node.end()
        return [(b - a) / count for a, b in zip(few, many)], clients / count

    count = 6
    constant("node_us", used()[1], "µs of a node a second", f"{len(alive)} nodes that do nothing, {QUIET} s")
    source = f"{count} nodes more that do nothing, {QUIET} s, heartbeat 200ms, lease"
    (beats, clients), (both, _) = more("10m"), more("1s")
    constant("node_redis_clients", clients, "connections to each Redis server", source + " 10m")
    for name, at, unit in (("us", 0, "µs of Redis a second"), ("bytes", 2, "bytes out of Redis a second")):
        beat, renewals = beats[at] / 5, both[at] - beats[at]
        # By default there is a heartbeat a second, and a lease of 10 s.
        constant(f"beat_redis_{name}", beat, unit, source + " 10m: a heartbeat")
        constant(f"node_redis_{name}", beat + max(renewals, 0) / 10, unit, source + " 1s, less that, / 10, and a heartbeat")
    redis.ask("SADD", "many", *(f"node-tag-{number:07}" for number in range(1_000)))
    before = redis.used()
    for _ in range(300):
        redis.ask("SMEMBERS", "many")
    spent = [(b - a) / 300_000 for a, b in zip(before, redis.used())]
    constant("member_redis_us", spent[0], "µs of Redis", "SMEMBERS of 1,000 names, for each name")
    constant("member_redis_bytes", spent[2], "bytes out of Redis", "the same")


def machine():
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1]
    redis = re.search(r"v=(\S+)", subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout)[1]
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, Redis {redis}"


def main(gatecast, tool):
    with tempfile.TemporaryDirectory() as directory:
        deliveries(gatecast, tool, directory)
        idle(gatecast, directory)
        redis = Redis(directory)
        node, other = alive = [Node(gatecast, directory, redis) for _ in range(2)]
        openings(node, redis)
        publishing(tool, node, other, redis)
        groups(node, redis)
        posts(node, other, redis)
        nodes(gatecast, directory, redis, alive)
        for process in (*alive, redis):
            process.end()
    print("# Printed by measure.py; values may be changed by hand, with their source.")
    print(f'machine = "{machine()}"\ndate = {datetime.date.today()}')
    for name, (value, unit, source) in CONSTANTS.items():
        print(f"\n[constants.{name}]\nvalue = {float(f'{value:.3g}'):g}\nunit = {json.dumps(unit, ensure_ascii=False)}")
        print(f"source = {json.dumps(source, ensure_ascii=False)}")


if __name__ == "__main__":
    # What was started ends with the program, also when that is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    programs = [word for word in sys.argv[1:] if word != "--short"]
    main(*programs) if len(programs) == 2 else sys.exit(__doc__)
