"""The README's table of what works while something is wrong with Redis: each of its cells, by default settings."""

import json
from functools import partial

import pytest

from cluster import (LONG_LEASE, SHORT_LEASE, clients_of, is_internal_error, metric, publish, received_until_now,
                     throughout)
from gatecast import ask, connection_id, eventually
from wire import Socket, handshake

OPERATIONS = ["open connections", "a handshake", "a broadcast", "a group send", "a join", "a publication",
              "a call for this node", "a call for another", "probes"]


@pytest.fixture
def start_on(start_on):
    """Here nodes are found dead, or find that they may be."""
    return partial(start_on, **SHORT_LEASE)


class Scene:
    """Two nodes, each with a client that is a member of the group."""

    def __init__(self, near, far):
        self.near, self.far = near, far
        assert join(near, "moon") == join(far, "moon") == "joined moon"

    def works(self, operation):
        """Asserts that an operation is carried out as on any other day."""
        near, far = self.near, self.far
        if operation == "open connections":
            near.ping().wait(timeout=10)
        elif operation == "a handshake":
            with near.node.connect() as client:
                assert connection_id(client)
        elif operation == "a broadcast":
            near.send("hello")
            assert near.recv(timeout=10) == far.recv(timeout=10) == "hello"
        elif operation == "a group send":
            near.send(json.dumps({"action": "sendToGroup", "group": "moon", "data": "hello"}))
            assert near.recv(timeout=10) == far.recv(timeout=10) == "hello"
        elif operation == "a join":
            assert join(near, "mars") == "joined mars"
        elif operation == "a publication":
            assert publish(near.node, "@broadcast", "hello")[0] == 200
            assert near.recv(timeout=10) == far.recv(timeout=10) == "hello"
        elif operation == "a call for this node":
            assert near.node.post(near.id, b"hello") == 200 and near.recv(timeout=10) == "hello"
        elif operation == "a call for another":
            assert near.node.post(far.id, b"hello") == 200 and far.recv(timeout=10) == "hello"
        elif operation == "probes":
            assert near.node.page("/live")[0] == near.node.page("/ready")[0] == 200

    def is_refused(self, operation):
        """Asserts that an operation is answered as the table says; what needs no Redis works."""
        near, far = self.near, self.far
        if operation == "a handshake":
            with Socket(near.node.address) as client:
                status, headers, _ = client.send(handshake()).response(has_body=False)
                assert status == 503 and int(headers["retry-after"]) > 0
        elif operation == "a broadcast":
            assert is_internal_error(ask(near, "hello"))
        elif operation == "a group send":
            assert is_internal_error(ask(near, json.dumps({"action": "sendToGroup", "group": "moon", "data": "x"})))
        elif operation == "a join":
            assert is_internal_error(join(near, "mars"))
        elif operation == "a publication":
            assert publish(near.node, "@broadcast", "hello")[0] == 503
        elif operation == "a call for another":
            assert near.node.post(far.id, b"hello") == 503
        elif operation == "probes":
            assert near.node.page("/live")[0] == 200
            # Three leases.
            eventually(lambda: near.node.page("/ready")[0] == 503)
            assert near.node.page("/live")[0] == 200
        else:
            self.works(operation)


def join(client, group):
    return ask(client, json.dumps({"action": "joinGroup", "group": group}))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_slow(proxy, start_on, operation):
    """Each answer of Redis takes a fifth of a second."""
    nodes = start_on(proxy, 2, **LONG_LEASE)
    with clients_of(nodes) as clients:
        scene = Scene(*clients)
        proxy.latency = 0.1
        scene.works(operation)
        assert metric(nodes[0], "gatecast_messages_dropped_total") == 0


def test_too_slow_is_as_down(proxy, start_on):
    """Two nodes whose Redis takes longer to answer than they wait."""
    nodes = start_on(proxy, 2, **LONG_LEASE)
    with clients_of(nodes) as clients:
        scene = Scene(*clients)
        proxy.latency = 1.2
        scene.is_refused("a publication")
        scene.is_refused("a handshake")
        scene.works("a call for this node")
        throughout(1, lambda: nodes[0].page("/live")[0] == 200)
        proxy.latency = 0
        eventually(lambda: publish(nodes[0], "@broadcast", "again")[0] == 200)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_down(redis, start_on, operation):
    with clients_of(start_on(redis, 2)) as clients:
        scene = Scene(*clients)
        redis.kill()
        scene.is_refused(operation)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_restarted_empty(redis, start_on, operation):
    nodes = start_on(redis, 2, **LONG_LEASE)
    with clients_of(nodes) as clients:
        scene = Scene(*clients)
        assert publish(nodes[0], "@broadcast", "before") == (200, 1)
        assert [client.recv(timeout=10) for client in clients] == ["before"] * 2
        redis.kill()
        assert redis.start()
        eventually(lambda: all(metric(node, "gatecast_redis_up") == 1 for node in nodes))
        scene.works(operation)


def test_restarted_empty_begins_a_new_epoch(redis, start_on):
    nodes = start_on(redis, 2, **LONG_LEASE)
    with clients_of(nodes) as clients:
        assert [publish(nodes[0], "@broadcast", "before")[1] for _ in range(3)] == [1, 2, 3]
        # What Redis has accepted but not yet sent to the nodes would be lost with it.
        assert [[client.recv(timeout=10) for _ in range(3)] for client in clients] == [["before"] * 3] * 2
        redis.kill()
        assert redis.start()
        assert eventually(lambda: publish(nodes[0], "@broadcast", "after")[1]) == 1
        assert received_until_now(clients, nodes[0]) == [["after"]] * 2
        eventually(lambda: all(metric(node, "gatecast_recoveries_total", result="lost") >= 1 for node in nodes))


def test_readiness_comes_back_with_steady_heartbeats(redis, start_on):
    (node,) = start_on(redis, 1, **(SHORT_LEASE | {"GATECAST_REDIS_LEASE": "1500ms", "GATECAST_REDIS_HEARTBEAT": "500ms"}))
    redis.kill()
    eventually(lambda: node.page("/ready")[0] == 503)
    assert redis.start()
    eventually(lambda: metric(node, "gatecast_redis_up") == 1)
    # The first heartbeat is back, the third is a second away.
    assert node.page("/ready")[0] == 503
    eventually(lambda: node.page("/ready")[0] == 200)
