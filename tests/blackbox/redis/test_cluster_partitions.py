"""One node alone loses Redis, by a proxy between them: its clients miss nothing, or are closed."""

from functools import partial

import pytest

from cluster import (ANNOUNCED, LONG_LEASE, SHORT_LEASE, Publisher, clients_of, metric, publish, received_until_now,
                     throughout)
from gatecast import drain_frames, eventually


@pytest.fixture
def start_on(start_on):
    """Here nodes are found dead, or find that they may be."""
    return partial(start_on, **SHORT_LEASE)


def test_a_node_is_not_ready_before_it_hears_its_channels(redis, proxy, start_on):
    """A node far from its Redis takes a while to subscribe. Whoever is in then is a member."""
    (old,) = start_on(redis, 1)
    proxy.latency = 0.03
    (new,) = start_on(proxy, 1)
    with new.connect() as client:
        assert publish(old, "@broadcast", "welcome")[0] == 200
        assert client.recv(timeout=10) == "welcome"


@pytest.mark.parametrize("way", ["refuse", "silence", "deafen"])
def test_a_node_that_alone_loses_redis_says_so_and_misses_nothing(redis, proxy, start_on, way):
    others = start_on(redis, 2, **LONG_LEASE)
    (lonely,) = start_on(proxy, 1, **LONG_LEASE)
    with clients_of([lonely, *others], each=2) as clients:
        with Publisher(others) as publisher:
            publisher.more(20)
            getattr(proxy, way)()
            publisher.more(100)
            eventually(lambda: metric(lonely, "gatecast_redis_up") == 0)
            assert publish(lonely, "@broadcast", "refused")[0] == 503
            assert lonely.page("/live")[0] == others[0].page("/live")[0] == others[0].page("/ready")[0] == 200
            proxy.heal()
            publisher.more(20)
        eventually(lambda: metric(lonely, "gatecast_redis_up") == 1)
        received = received_until_now(clients, lonely)
        for number, texts in enumerate(received):
            publisher.check(texts, f"client {number}")
        # What a deaf node was told is refused may have been heard by Redis: then it went to all, once.
        assert all(texts == received[0] for texts in received) and received[0].count("refused") <= 1
        assert metric(lonely, "gatecast_recoveries_total", result="repaired") >= 1


@pytest.mark.parametrize("way", ["refuse", "silence"])
def test_a_node_cut_off_past_its_lease_is_reaped_and_closes_its_sockets(redis, proxy, start_on, way):
    others = start_on(redis, 2, ANNOUNCED)
    (lonely,) = start_on(proxy, 1, ANNOUNCED)
    lonely.is_ended_by_test = True  # It may.
    with clients_of([lonely], each=5) as lost, clients_of(others) as watchers:
        getattr(proxy, way)()
        expected = sorted(f"{client.id} left" for client in lost)
        for watcher in watchers:
            assert sorted(watcher.recv(timeout=10) for _ in lost) == expected
        eventually(lambda: others[0].post(lost[0].id, b"hello") == 410)
        proxy.heal()
        for client in lost:
            drain_frames(client)
        throughout(1, lambda: others[0].page("/ready")[0] == 200)
        assert received_until_now(watchers, others[0]) == [[], []], "told twice"
