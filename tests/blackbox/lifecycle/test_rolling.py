"""A rolling restart under load, behind the load balancer of `deploy/`: nobody loses what he was owed, nobody stampedes."""

import re
import signal
import socket
import time
from collections import Counter

import pytest

from cluster import Publisher
from edge import OPEN, HaProxy
from gatecast import eventually, lasts
from roaming import Roamers, check_books

CLIENTS = 240
HANDSHAKE_RATE = 20
# By two nodes that stay, each a half of its own.
OFFERED = HANDSHAKE_RATE
WINDOW_SECONDS = 15
SETTINGS = OPEN | {
    "GATECAST_LIMITS_HANDSHAKE_RATE": str(HANDSHAKE_RATE),
    "GATECAST_DRAIN_WINDOW": f"{WINDOW_SECONDS}s",
    # Longer than the load balancer needs to notice.
    "GATECAST_DRAIN_NOTICE": "2s",
    "GATECAST_DRAIN_GRACE": "20s",
}
CHECKS = "inter 300ms fastinter 100ms downinter 300ms fall 2 rise 2"


class Moving(HaProxy):
    """Its nodes move: each comes back with another address."""

    def say(self, command):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{self.run_folder.name}/stats.sock")
            client.sendall(f"{command}\n".encode())
            with client.makefile() as answer:
                return answer.read()

    def point(self, number, node):
        """Sends one server's clients to a node, and waits until that is found healthy."""
        for backend in ("websockets", "management"):
            self.say(f"set server {backend}/node{number} addr 127.0.0.1 port {node.address[1]}")
        self.say(f"set server websockets/node{number} check-port {node.admin_address[1]}")
        eventually(lambda: self.states()[number - 1] == "UP", within=20)


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
                # Without a parser, which would take from the clients' time.
                (rate,) = re.findall(r"^gatecast_drain_rate (\S+)$", node.page("/metrics")[1], re.M)
                self.rates.add(round(float(rate), 1))
            except OSError:
                pass  # It is about to exit.
            lasts(0.1)
            assert time.monotonic() - self.began < 60, node.log()
        self.ended = time.monotonic()
        self.code = node.process.returncode


def bins(moments):
    """How many fall into each tenth of the window."""
    width = WINDOW_SECONDS / 10
    first = min(moments)
    counts = Counter(int((moment - first) / width) for moment in moments)
    return [counts[number] for number in range(max(counts) + 1)]


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_a_rolling_restart_loses_nothing_and_stampedes_nobody(redis, start_on, start_balancer, note):
    nodes = start_on(redis, 3, **SETTINGS)
    balancer = start_balancer(Moving, nodes, options=CHECKS)
    eventually(lambda: balancer.states() == ["UP"] * 3)
    drains = []
    with Roamers(balancer.url, CLIENTS) as clients:
        clients.all_connected()
        with Publisher([balancer], pause=0.05) as publisher:
            publisher.more(20)
            for number, node in enumerate(nodes, 1):
                drains.append(Drain(node))
                clients.all_connected()
                balancer.point(number, start_on(redis, 1, **SETTINGS)[0])
            publisher.more(20)
        last = publisher.accepted()[-1]
        eventually(lambda: all(last in roamer.sessions[-1].texts for roamer in clients.all))
        end = time.monotonic()
        sessions, closed = clients.sessions(), clients.closed()

    assert [drain.code for drain in drains] == [0, 0, 0], [drain.node.log() for drain in drains if drain.code]
    assert {session.close for session in closed} == {(1001, "Going away")}
    for session in sessions:
        check_books(session, publisher, end)

    note(f"rolling restart: {CLIENTS} clients, {len(publisher.accepted())} messages accepted of {len(publisher.answers)}")
    for number, drain in enumerate(drains, 1):
        # The window is long enough: those who stayed were asked for what they offered, and for no more.
        assert drain.rates <= {0, OFFERED}, drain.rates
        told = [session.closed_at for session in closed if drain.began < session.closed_at < drain.ended]
        back = [after.opened_at for roamer in clients.all for before, after in zip(roamer.sessions, roamer.sessions[1:])
                if drain.began < before.closed_at < drain.ended]
        refused = [why for roamer in clients.all for when, why in roamer.refusals if drain.began < when < drain.ended]
        note(f"  node {number}, planned {OFFERED}/s: closed in each tenth of the window {bins(told)}, came back "
             f"{bins(back)}, {len(refused)} handshakes refused on the way {set(refused) or ''}")
        assert len(told) == len(back) > 0
        # More than planned only as far as processes stall on a busy machine.
        assert max(bins(told)) <= 2 * OFFERED * WINDOW_SECONDS / 10
        assert max(bins(back)) <= 3 * OFFERED * WINDOW_SECONDS / 10
