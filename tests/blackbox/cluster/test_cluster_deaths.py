"""How nodes end, and what the others make of it: everybody is told once, nobody is left behind."""

import signal
import time
from functools import partial

import pytest

from cluster import ANNOUNCED, SHORT_LEASE, clients_of, kill, paused, publish, received_until_now, throughout
from gatecast import connection_id, drain_frames, eventually

LEASE = 1


@pytest.fixture
def start_on(start_on):
    """Here nodes are found dead, or find that they may be."""
    return partial(start_on, **SHORT_LEASE)


@pytest.fixture
def nodes(redis, start_on):
    return start_on(redis, config=ANNOUNCED)


def farewells(watchers, ids, through):
    """Waits for one frame per lost connection, and for the second ones that must not come."""
    expected = sorted(f"{each} left" for each in ids)
    for watcher in watchers:
        assert sorted(watcher.recv(timeout=10) for _ in expected) == expected
    throughout(1.5 * LEASE, lambda: through.page("/live")[0] == 200)
    assert received_until_now(watchers, through) == [[]] * len(watchers)


def is_ready(node):
    try:
        return node.page("/ready")[0] == 200
    except OSError:
        return False  # It is about to exit.


@pytest.mark.parametrize("count", [1, 2])
def test_survivors_run_disconnect_once_for_each_connection_of_killed_nodes(redis, nodes, count):
    dead, alive = nodes[:count], nodes[count:]
    with clients_of(dead, each=8) as lost, clients_of(alive) as watchers:
        kill(dead)
        farewells(watchers, [client.id for client in lost], alive[0])
        assert [redis.mentions(client.id) for client in lost] == [None] * len(lost)
        assert all(redis.mentions(watcher.id) for watcher in watchers)


def test_connections_of_a_killed_node_are_503_until_its_lease_ends_and_then_410(nodes):
    with nodes[0].connect() as lost, nodes[1].connect():
        own = connection_id(lost)
        kill(nodes[:1])
        began, answers = time.monotonic(), []
        while 410 not in [status for _, status in answers]:
            for node in nodes[1:]:
                status = node.post(own, b"hello")
                answers.append((time.monotonic() - began, status))
            assert answers[-1][0] < LEASE + 10, answers
        assert {status for _, status in answers} <= {503, 410}
        # The lease was renewed at most a third of its time before the kill, and may not be taken for ended before.
        assert all(elapsed > LEASE / 2 for elapsed, status in answers if status == 410)
        eventually(lambda: nodes[1].post(own, b"hello") == nodes[2].post(own, b"hello") == 410)


def test_broadcasts_go_on_while_a_node_is_dead_and_after(nodes):
    with nodes[0].connect(), clients_of(nodes[1:]) as watchers:
        kill(nodes[:1])
        expected = [f"message {number}" for number in range(100)]
        for number, text in enumerate(expected):
            assert publish(nodes[1 + number % 2], "@broadcast", text)[0] == 200
        for received in received_until_now(watchers, nodes[1]):
            assert [text for text in received if not text.endswith(" left")] == expected


def test_a_node_that_is_told_to_end_runs_disconnect_itself_once(redis, nodes):
    ending, *alive = nodes
    with clients_of([ending], each=8) as clients, clients_of(alive) as watchers:
        ending.is_ended_by_test = True
        ending.signal(signal.SIGTERM)
        for client in clients:
            messages, closed = drain_frames(client)
            assert closed == (1001, "Going away")
            assert all(text.endswith(" left") for text in messages)
        assert ending.wait() == 0
        assert [redis.mentions(client.id) for client in clients] == [None] * len(clients)
        assert alive[0].post(clients[0].id, b"hello") == alive[1].post(clients[1].id, b"hello") == 410
        farewells(watchers, [client.id for client in clients], alive[1])


def test_a_node_paused_past_its_lease_is_reaped_and_closes_its_sockets(nodes):
    ghost, *alive = nodes
    with clients_of([ghost], each=5) as clients, clients_of(alive) as watchers:
        ghost.is_ended_by_test = True  # It may.
        with paused(ghost.process):
            eventually(lambda: alive[0].post(clients[0].id, b"hello") == 410)
        for client in clients:
            drain_frames(client)
        farewells(watchers, [client.id for client in clients], alive[0])
        eventually(lambda: ghost.process.poll() is not None or is_ready(ghost))
        if ghost.process.poll() is None:
            with clients_of([ghost]) as again:
                assert alive[0].post(again[0].id, b"hello") == 200
                assert publish(alive[1], "@broadcast", "to all")[0] == 200
                assert [again[0].recv(timeout=10) for _ in range(2)] == ["hello", "to all"]


def test_a_node_of_the_same_name_starts_again_at_once_after_a_kill(redis, start_on):
    """As Kubernetes does with a StatefulSet: the name is taken by a lease that nobody holds."""
    first, other = (start_on(redis, 1, ANNOUNCED, GATECAST_NODE_NAME=name)[0] for name in ("major", "tom"))
    with first.connect() as lost, other.connect() as watcher:
        own = connection_id(lost)
        assert connection_id(watcher)
        kill([first])
        (second,) = start_on(redis, 1, ANNOUNCED, GATECAST_NODE_NAME="major")
        with second.connect() as client:
            assert connection_id(client) != own
            farewells([watcher], [own], other)
            assert other.post(own, b"hello") == 410
