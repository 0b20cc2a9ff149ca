"""Redis goes away and comes back: sockets stay, callers are told, and nobody has to reconnect."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from cluster import (BROADCAST_AND_MOON, JOIN_MOON, SHORT_LEASE, LateNode, Publisher, clients_of, is_internal_error,
                     metric, paused, publish, received_until_now, throughout)
from gatecast import ask, connection_id, eventually
from wire import Socket, handshake


@pytest.fixture
def start_on(start_on):
    """Here nodes are found dead, or find that they may be."""
    return partial(start_on, **SHORT_LEASE)


class Outages:
    """Ways in which Redis can be away; each is past all leases."""

    def killed_and_persistent(self, server, while_away):
        server.kill()
        while_away()
        assert server.start()

    killed_and_empty = killed_and_persistent

    def paused(self, server, while_away):
        with paused(server.process):
            while_away()


@pytest.fixture
def outage(request, start_redis, start_on):
    """Three nodes and a way in which their Redis goes away."""
    server = start_redis(is_persistent=request.param == "killed_and_persistent")
    nodes = start_on(server)
    way = getattr(Outages(), request.param)
    return nodes, lambda while_away: way(server, while_away)


def handshake_answer(node):
    with Socket(node.address) as client:
        status, headers, _ = client.send(handshake()).response(has_body=False)
        return status, headers.get("retry-after")


def is_up(node):
    return node.page("/ready")[0] == 200 and metric(node, "gatecast_redis_up") == 1


@pytest.mark.parametrize("outage", ["killed_and_persistent", "paused"], indirect=True)
def test_while_redis_is_away_everything_that_needs_it_is_refused_and_nothing_is_closed(outage):
    nodes, go_through = outage
    with clients_of(nodes) as clients:

        def refuses(client):
            node = client.node
            assert publish(node, "@broadcast", "refused")[0] == 503
            assert publish(node, "@groups/moon", "refused")[0] == 503
            assert is_internal_error(ask(client, '{"action":"sendMessage","data":"refused"}'))
            assert is_internal_error(ask(client, '{"action":"joinGroup","group":"refused"}'))
            status, retry_after = handshake_answer(node)
            assert status == 503 and int(retry_after) > 0
            assert node.page("/live")[0] == 200
            eventually(lambda: metric(node, "gatecast_redis_up") == 0)
            eventually(lambda: node.page("/ready")[0] == 503)
            return True

        def while_away():
            with ThreadPoolExecutor() as threads:
                assert all(threads.map(refuses, clients))
            throughout(1.2, lambda: all(node.page("/live")[0] == 200 for node in nodes))

        assert all(is_up(node) for node in nodes)
        go_through(while_away)
        eventually(lambda: all(is_up(node) for node in nodes))
        for client in clients:
            client.ping().wait(timeout=10)
        assert all(metric(node, "gatecast_redis_reconnects_total") >= 1 for node in nodes)


@pytest.mark.parametrize("outage", ["killed_and_persistent", "killed_and_empty", "paused"], indirect=True)
def test_after_the_return_everything_works_again_without_a_reconnect(outage):
    nodes, go_through = outage
    with clients_of(nodes, each=2) as clients:
        for client in clients:
            assert ask(client, JOIN_MOON) == "joined moon"
        go_through(lambda: throughout(1.5, lambda: all(node.page("/live")[0] == 200 for node in nodes)))
        # From the first message that a node accepts again, before all nodes are back.
        with Publisher(nodes, name="broadcast") as all_of_them, Publisher(nodes, "@groups/moon", "moon") as members:
            all_of_them.more(60)
            members.more(60)
        for number, received in enumerate(received_until_now(clients, nodes[0], BROADCAST_AND_MOON)):
            all_of_them.check(received, f"client {number}")
            members.check(received, f"client {number}")

        eventually(lambda: all(is_up(node) for node in nodes))
        for client in clients:
            for node in nodes:
                eventually(lambda: node.post(client.id, b"hello") == 200)
                assert client.recv(timeout=10) == "hello"
            assert ask(client, '{"action":"joinGroup","group":"mars"}') == "joined mars"
        clients[0].send(json.dumps({"action": "sendToGroup", "group": "mars", "data": "from one"}))
        assert [client.recv(timeout=10) for client in clients] == ["from one"] * 6
        with clients_of(nodes) as new:
            clients[0].send("welcome")
            assert [client.recv(timeout=10) for client in clients + new] == ["welcome"] * 9


def test_the_living_have_no_disconnect_because_redis_was_away(start_redis, start_on):
    """The leases have ended in Redis, but the nodes have not."""
    server = start_redis(is_persistent=True)
    nodes = start_on(server, config='[routes."$disconnect"]\nintegration = "broadcast"\ndata = "somebody left"\n')
    with clients_of(nodes, each=2) as clients:
        server.kill()
        throughout(2, lambda: all(node.page("/live")[0] == 200 for node in nodes))
        assert server.start()
        eventually(lambda: all(is_up(node) for node in nodes))
        throughout(1.5, lambda: all(is_up(node) for node in nodes))
        assert received_until_now(clients, nodes[0]) == [[]] * 6
        assert {nodes[0].post(client.id, b"hello") for client in clients} == {200}


def test_who_left_while_redis_was_away_is_gone_afterwards(start_redis, start_on):
    server = start_redis(is_persistent=True)
    nodes = start_on(server, 2)
    with nodes[0].connect() as stays:
        with nodes[0].connect() as leaves:
            assert ask(leaves, JOIN_MOON) == "joined moon"
            left = connection_id(leaves)
            server.kill()
        assert server.start()
        eventually(lambda: all(is_up(node) for node in nodes))
        eventually(lambda: nodes[0].post(left, b"hello") == nodes[1].post(left, b"hello") == 410)
        eventually(lambda: not server.mentions(left))
        assert nodes[1].post(connection_id(stays), b"hello") == 200
        assert stays.recv(timeout=10) == "hello"


def test_a_node_that_starts_while_redis_is_away_waits_and_says_so(tmp_path, redis, start_on):
    redis.kill()

    def while_starting(node):
        eventually(lambda: "redis" in node.log().lower())
        throughout(1, lambda: node.page("/live")[0] == 200 and node.page("/ready")[0] == 503)
        assert metric(node, "gatecast_redis_up") == 0
        assert redis.start()

    (tmp_path / "late").mkdir()
    node = LateNode(tmp_path / "late", while_starting, GATECAST_REDIS_URL=redis.url, **SHORT_LEASE)
    try:
        eventually(lambda: is_up(node))
        (other,) = start_on(redis, 1)
        with clients_of([node, other]) as clients:
            assert publish(other, "@broadcast", "hello")[0] == 200
            assert [client.recv(timeout=10) for client in clients] == ["hello"] * 2
        assert "panicked" not in node.log()
    finally:
        node.kill()
