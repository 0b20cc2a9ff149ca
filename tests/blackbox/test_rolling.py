"""A rolling restart under load, behind the load balancer of `deploy/`: nobody loses what he was owed, nobody stampedes."""

import csv
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from urllib.parse import urlsplit

import pytest

from cluster import Publisher, metric, redis, start_on, start_redis
from conftest import ROOT, clean_environment, eventually
from roaming import Roamers, check_books

CLIENTS = 240
# Three nodes with half of this each: two that stay take this many a second.
HANDSHAKE_RATE = 20
WINDOW_SECONDS = 10
SETTINGS = {
    "GATECAST_LIMITS_HANDSHAKE_RATE": str(HANDSHAKE_RATE),
    "GATECAST_DRAIN_WINDOW": f"{WINDOW_SECONDS}s",
    # Longer than the load balancer needs to notice.
    "GATECAST_DRAIN_NOTICE": "2s",
    "GATECAST_DRAIN_GRACE": "20s",
}
CHECKS = "inter 300ms fastinter 100ms downinter 300ms fall 2 rise 2"


class Balancer:
    """HAProxy with our configuration; its servers are given their addresses while it runs."""

    def __init__(self, directory):
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listener:
            self.address = listener.getsockname()
            environment = {
                "GATECAST_BIND": f"fd@{listener.fileno()}",
                "GATECAST_STATS": f"unix@{directory}/http.sock",
                "GATECAST_MAXCONN": "2000",
                "GATECAST_SERVER_OPTIONS": CHECKS,
                "HAPROXY_RUN": str(directory),
            } | {f"GATECAST_{number}": "127.0.0.1:1" for number in (1, 2, 3)}
            with open(directory / "haproxy.log", "wb") as log:
                self.process = subprocess.Popen(
                    ["haproxy", "-db", "-f", str(ROOT / "deploy/haproxy/haproxy.cfg")], stdout=log, stderr=log,
                    env=clean_environment(environment), pass_fds=[listener.fileno()])
        eventually(lambda: self.process.poll() is not None or os.path.exists(directory / "stats.sock"))
        assert self.process.poll() is None, (directory / "haproxy.log").read_text()

    def say(self, command):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.directory / "stats.sock"))
            client.sendall(f"{command}\n".encode())
            with client.makefile() as answer:
                return answer.read()

    def point(self, name, node):
        """Sends one server's clients to a node, and waits until it is found healthy."""
        port, admin = node.address[1], node.admin_address[1]
        for backend in ("websockets", "management"):
            self.say(f"set server {backend}/{name} addr 127.0.0.1 port {port}")
        self.say(f"set server websockets/{name} check-port {admin}")
        eventually(lambda: self.status(name) == "UP", within=20)

    def status(self, name):
        rows = csv.DictReader(self.say("show stat").lstrip("# ").splitlines())
        (row,) = [row for row in rows if (row["pxname"], row["svname"]) == ("websockets", name)]
        return row["status"]

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def balancer(tmp_path):
    directory = tmp_path / "edge"
    directory.mkdir()
    balancer = Balancer(directory)
    yield balancer
    balancer.end()


class Drain:
    """What was seen of the end of one node."""

    def __init__(self, node):
        self.node = node
        self.rates = set()
        node.is_ended_by_test = True
        node.signal(signal.SIGTERM)
        self.began = time.monotonic()
        while node.process.poll() is None:
            try:
                self.rates.add(round(metric(node, "gatecast_drain_rate"), 1))
            except OSError:
                pass  # It is about to exit.
            time.sleep(0.05)
            assert time.monotonic() - self.began < 60, node.log()
        self.ended = time.monotonic()
        self.code = node.process.returncode


def bins(moments):
    """How many fall into each tenth of the window."""
    width = WINDOW_SECONDS / 10
    first = min(moments)
    counts = Counter(int((moment - first) / width) for moment in moments)
    return [counts[number] for number in range(max(counts) + 1)]


@pytest.mark.timeout(240)
def test_a_rolling_restart_loses_nothing_and_stampedes_nobody(redis, start_on, balancer, note):
    nodes = start_on(redis, 3, **SETTINGS)
    for number, node in enumerate(nodes, 1):
        balancer.point(f"node{number}", node)
    url = f"ws://127.0.0.1:{balancer.address[1]}{urlsplit(nodes[0].url).path}"
    drains = []
    with Roamers(url, CLIENTS) as clients:
        clients.all_connected()
        with Publisher([balancer], pause=0.05) as publisher:
            publisher.more(20)
            for number, node in enumerate(list(nodes)):
                drains.append(Drain(node))
                clients.all_connected()
                (nodes[number],) = start_on(redis, 1, **SETTINGS)
                balancer.point(f"node{number + 1}", nodes[number])
            publisher.more(20)
        last = publisher.accepted()[-1]
        eventually(lambda: all(last in roamer.sessions[-1].texts for roamer in clients.all))
        end = time.monotonic()
        sessions, closed = clients.sessions(), clients.closed()

    assert [drain.code for drain in drains] == [0, 0, 0], [drain.node.log() for drain in drains if drain.code]
    assert {session.close for session in closed} == {(1001, "Going away")}
    for session in sessions:
        check_books(session, publisher, end)

    note(f"rolling restart: {CLIENTS} clients, {len(publisher.accepted())} messages accepted of {len(publisher.answers)}, "
         f"{sum(len(roamer.refusals) for roamer in clients.all)} handshakes refused on the way")
    for number, drain in enumerate(drains, 1):
        # The window is long enough: those who stayed were asked for what they offered, and for no more.
        assert drain.rates <= {0, HANDSHAKE_RATE}, drain.rates
        told = [session.closed_at for session in closed if drain.began < session.closed_at < drain.ended]
        back = [after.opened_at for roamer in clients.all for before, after in zip(roamer.sessions, roamer.sessions[1:])
                if drain.began < before.closed_at < drain.ended]
        note(f"  node {number}, planned {HANDSHAKE_RATE}/s: closed each tenth of the window {bins(told)}, "
             f"came back {bins(back)}")
        assert len(told) == len(back) > 0
        # Twice the plan, since the clock of this process is not that of the node.
        assert max(bins(told) + bins(back)) <= 2 * HANDSHAKE_RATE * WINDOW_SECONDS / 10
