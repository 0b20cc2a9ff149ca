"""How fast a node that ends closes its connections: as fast as the nodes that stay can take the clients."""

import json
import re
import signal
import time
from contextlib import ExitStack
from functools import partial

import pytest

from cluster import SHORT_LEASE, clients_of, metric
from gatecast import drain_frames, eventually
from wire import Socket


# Nodes that are told to end at the same moment know of each other when it is over.
NOTICE = {"GATECAST_DRAIN_NOTICE": "1s"}


@pytest.fixture
def start_on(start_on):
    """Here nodes are found dead, or find that they may be."""
    return partial(start_on, **SHORT_LEASE)


def accepts(rate):
    """A setting: half of this is offered to those who drain."""
    return {"GATECAST_LIMITS_HANDSHAKE_RATE": str(rate)}


def end(node):
    node.is_ended_by_test = True
    node.signal(signal.SIGTERM)


def planned(node):
    """Closes a second; 0 before the plan is made."""
    return round(metric(node, "gatecast_drain_rate"), 1)


def all_told(clients):
    """Waits until everybody has been closed, in the right way."""
    return {drain_frames(client)[1] for client in clients} == {(1001, "Going away")}


def plain_log(node):
    return re.sub(r"\x1b\[[0-9;]*m", "", node.log())


@pytest.fixture
def drained(redis, start_on):
    """The node that is to end, with what a test needs of time."""

    def drained(**environment):
        return start_on(redis, 1, **environment)[0]

    return drained


def test_a_node_closes_as_fast_as_those_who_stay_accept(redis, drained, start_on):
    node, staying = drained(), start_on(redis, 2, **accepts(20))
    with clients_of([node], each=40) as clients, clients_of(staying) as others:
        began = time.monotonic()
        end(node)
        eventually(lambda: planned(node) == 20)
        assert all_told(clients)
        # 40 slots of 50 ms; whenever a plan is made anew, each shard may win part of a slot.
        assert time.monotonic() - began > 1.5
        assert node.wait() == 0
        for client in others:
            client.ping().wait(timeout=10)
    assert "drain window" not in node.log()


def test_a_window_that_is_too_short_is_kept_and_warned_of(redis, drained, start_on):
    node = drained(GATECAST_DRAIN_WINDOW="2s", GATECAST_DRAIN_GRACE="20s")
    start_on(redis, 1, **accepts(4))
    with clients_of([node], each=40) as clients:
        end(node)
        assert all_told(clients)
        assert node.wait() == 0
    (line,) = [line for line in plain_log(node).splitlines() if "the drain window is too short" in line]
    window, rate = re.search(r"connections=40 window=(\S+) rate=(\S+) accepted=2\.0 needed=20\.0", line).groups()
    assert float(window) <= 2 and float(rate) == pytest.approx(40 / float(window))


def test_too_few_places_are_warned_of(redis, drained, start_on):
    node = drained(GATECAST_DRAIN_WINDOW="1s", GATECAST_DRAIN_GRACE="20s")
    start_on(redis, 2, GATECAST_LIMITS_MAX_CONNECTIONS="3")
    with clients_of([node], each=20) as clients:
        end(node)
        assert all_told(clients)
        assert node.wait() == 0
    assert "fewer places than this one has connections" in node.log()
    assert "connections=20 places=6" in plain_log(node)


def test_nodes_that_end_together_share_what_the_others_accept(redis, start_on):
    ending, _ = start_on(redis, 2, **NOTICE), start_on(redis, 1, **accepts(40))
    with clients_of(ending, each=30) as clients:
        for node in ending:
            end(node)
        eventually(lambda: [planned(node) for node in ending] == [10, 10])
        assert all_told(clients)
        assert [node.wait() for node in ending] == [0, 0]


def test_a_node_that_comes_while_another_drains_makes_it_faster(redis, drained, start_on):
    node, _ = drained(), start_on(redis, 1, **accepts(8))
    with clients_of([node], each=40) as clients:
        end(node)
        eventually(lambda: planned(node) == 4)
        start_on(redis, 1, **accepts(92))
        eventually(lambda: planned(node) == 50)
        assert all_told(clients)
        assert node.wait() == 0


def test_without_redis_the_last_pace_is_kept(redis, drained, start_on):
    node, _ = drained(), start_on(redis, 1, **accepts(20))
    with clients_of([node], each=40) as clients:
        end(node)
        eventually(lambda: planned(node) == 10)
        redis.kill()
        assert drain_frames(clients[0])[1] == (1001, "Going away")
        eventually(lambda: metric(node, "gatecast_drain_remaining_connections") < 15)
        assert planned(node) == 10
        assert all_told(clients[1:])
        assert node.wait() == 0


def test_without_redis_from_the_start_a_node_drains_as_if_alone(redis, drained, start_on):
    node, _ = drained(GATECAST_DRAIN_MIN_RATE="5"), start_on(redis, 1, **accepts(1_000))
    with clients_of([node], each=10) as clients:
        redis.kill()
        end(node)
        eventually(lambda: planned(node) == 5)
        assert all_told(clients)
        assert node.wait() == 0


def test_when_all_end_nobody_waits_for_the_others(redis, start_on):
    ending = start_on(redis, 3, GATECAST_DRAIN_MIN_RATE="10", **NOTICE)
    with clients_of(ending, each=30) as clients:
        for node in ending:
            end(node)
        eventually(lambda: [planned(node) for node in ending] == [10, 10, 10])
        assert all_told(clients)
        assert [node.wait() for node in ending] == [0, 0, 0]


def test_the_lease_says_how_a_node_is(redis, drained):
    """One small value for each node, however many connections it has."""
    node = drained(GATECAST_NODE_NAME="major", GATECAST_DRAIN_NOTICE="60s", GATECAST_LIMITS_MAX_CONNECTIONS="50")

    def lease():
        (key,) = [key for key in redis.ask("KEYS", "*").split() if key.endswith(":lease")]
        said = json.loads(redis.ask("GET", key))
        # Its renewals move it, whatever else it says.
        assert said.pop("renewals") > 0
        return said

    expected = {"name": "major", "connections": 0, "max_connections": 50, "handshake_rate": 2_000, "phase": "ready"}
    eventually(lambda: lease() == expected)
    with clients_of([node], each=3):
        eventually(lambda: lease() == expected | {"connections": 3})
        end(node)
        eventually(lambda: lease() == expected | {"connections": 3, "phase": "draining"})
        node.signal(signal.SIGTERM)
        assert node.wait() == 1


def test_clients_that_do_not_answer_are_no_reason_to_warn(redis, drained, start_on):
    """They are left when the window is over; the window was long enough all the same."""
    node = drained(GATECAST_DRAIN_WINDOW="1500ms", GATECAST_LIMITS_CLOSE_TIMEOUT="4s")
    start_on(redis, 1, **accepts(40))
    with ExitStack() as stack:
        silent = [stack.enter_context(Socket(node.address).upgrade()) for _ in range(20)]
        end(node)
        for client in silent:
            assert client.receive_close()[:2] == (1001, "Going away")
        assert node.wait() == 0
    assert "drain window" not in node.log()
