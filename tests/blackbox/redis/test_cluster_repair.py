"""Faults in the middle of a stream of messages: every accepted one arrives, in order, once, and nobody is closed."""

import time

import pytest
from websockets.exceptions import ConnectionClosed

from cluster import (BROADCAST_AND_MOON, JOIN_MOON, Publisher, clients_of, metric, paused, publish, received_until_now,
                     throughout)
from gatecast import ask, eventually, lasts
from wire import TEXT, Socket, frame


class Faults:
    """Each is made while messages are published through the first two nodes; the third only listens."""

    def subscribers_are_cut(self, server, nodes, more):
        for _ in range(3):
            assert server.cut_subscribers() >= len(nodes)
            more(20)
            eventually(lambda: len(server.ask("CLIENT", "LIST", "TYPE", "pubsub").splitlines()) >= len(nodes))

    def one_subscriber_is_cut(self, server, nodes, more):
        for _ in range(3):
            first = server.ask("CLIENT", "LIST", "TYPE", "pubsub").splitlines()[0].split()[0].removeprefix("id=")
            assert server.ask("CLIENT", "KILL", "ID", first) == "1"
            more(20)

    def commands_are_cut(self, server, nodes, more):
        for _ in range(3):
            assert int(server.ask("CLIENT", "KILL", "TYPE", "normal")) >= 1
            more(20)

    def a_node_is_paused(self, server, nodes, more):
        with paused(nodes[2].process):
            more(100)

    def a_node_is_paused_and_cut(self, server, nodes, more):
        with paused(nodes[2].process):
            server.cut_subscribers()
            more(100)

    def redis_is_paused(self, server, nodes, more):
        with paused(server.process):
            throughout(1.5, lambda: all(node.page("/live")[0] == 200 for node in nodes))

    def redis_is_killed_and_keeps_its_data(self, server, nodes, more):
        server.kill()
        throughout(0.5, lambda: all(node.page("/live")[0] == 200 for node in nodes))
        assert server.start()


@pytest.mark.parametrize("fault", [name for name in vars(Faults) if not name.startswith("_")])
def test_every_accepted_message_arrives_in_order_once_though(start_redis, start_on, fault):
    server = start_redis(is_persistent=True)
    nodes = start_on(server)
    with clients_of(nodes, each=2) as clients:
        for client in clients:
            assert ask(client, JOIN_MOON) == "joined moon"
        with Publisher(nodes[:2], name="broadcast") as one, Publisher(nodes[1::-1], "@groups/moon", "moon") as two:

            def more(count):
                one.more(count)
                two.more(count)

            more(20)
            getattr(Faults(), fault)(server, nodes, more)
            more(20)
        received = received_until_now(clients, nodes[2], BROADCAST_AND_MOON)
        for number, texts in enumerate(received):
            one.check(texts, f"client {number}")
            two.check(texts, f"client {number}")
        assert all(is_same_order(texts, received[0], publisher.name) for texts in received for publisher in (one, two))
        if fault == "a_node_is_paused_and_cut":
            assert metric(nodes[2], "gatecast_recoveries_total", result="repaired") >= 1
        assert sum(metric(node, "gatecast_recoveries_total", result="lost") for node in nodes) == 0


def is_same_order(some, others, name):
    """Whether two clients received the same of a channel, what was not acknowledged included."""
    one, two = ([text for text in texts if text.startswith(f"{name} ")] for texts in (some, others))
    return one == two


def test_a_lost_subscription_is_repaired_without_another_message(redis, start_on):
    """The last message of a burst has no successor that would show the gap."""
    nodes = start_on(redis, 2)
    with clients_of(nodes) as clients:
        with paused(nodes[1].process):
            redis.cut_subscribers()
            # Its own subscription is gone, too: until that is back a node may refuse.
            eventually(lambda: publish(nodes[0], "@broadcast", "the only one")[0] == 200)
        assert [client.recv(timeout=10) for client in clients] == ["the only one"] * 2
        assert metric(nodes[1], "gatecast_recoveries_total", result="repaired") >= 1


def test_what_the_stream_no_longer_holds_is_counted_as_lost(redis, start_on):
    nodes = start_on(redis, 2, GATECAST_REDIS_STREAM_ENTRIES="20")
    with clients_of(nodes) as (healthy, late):
        with paused(nodes[1].process), Publisher(nodes[:1]) as publisher:
            redis.cut_subscribers()
            publisher.more(300)
        eventually(lambda: metric(nodes[1], "gatecast_recoveries_total", result="lost") >= 1)
        publisher.check(received_until_now([healthy], nodes[0])[0])
        assert metric(nodes[0], "gatecast_recoveries_total", result="lost") == 0
        # Whoever missed something is told by a close frame, or goes on with what is left.
        received, accepted = [], publisher.accepted()
        try:
            while not received or not received[-1].startswith("last "):
                received.append(late.recv(timeout=10))
        except ConnectionClosed as closed:
            assert closed.rcvd
        else:
            assert received[:-1] == [text for text in accepted if text in received]
            assert received[-21:-1] == accepted[-20:]
            assert len(received) < len(accepted)


def test_metrics_of_redis_are_there_and_count_what_happens(redis, start_on):
    nodes = start_on(redis, 2)
    for node in nodes:
        # The subscribers of all nodes are cut each time.
        eventually(lambda: metric(node, "gatecast_redis_up") == 1)
        eventually(lambda: metric(node, "gatecast_redis_round_trip_seconds_count") > 0)
        before = metric(node, "gatecast_redis_reconnects_total")
        assert redis.cut_subscribers() >= 1
        eventually(lambda: metric(node, "gatecast_redis_reconnects_total") > before)
        eventually(lambda: metric(node, "gatecast_redis_up") == 1)


LARGE = "x" * 100_000


def missed(redis, nodes, groups, count):
    """Has the second node miss `count` large messages in each of so many groups: six times what an outbox holds."""
    with paused(nodes[1].process):
        redis.cut_subscribers()
        for number in range(count):
            for group in range(groups):
                # Its own subscription is gone, too: until that is back the first may refuse.
                eventually(lambda: publish(nodes[0], f"@groups/big-{group}", f"{group} {number} {LARGE}")[0] == 200)


def member(node, groups, **options):
    client = Socket(node.address, **options).upgrade()
    for group in range(groups):
        client.send(frame(TEXT, b'{"action":"joinGroup","group":"big-%d"}' % group))
        assert client.receive() == (TEXT, b"joined big-%d" % group)
    return client


def hear(client, groups, count, pause=0.0):
    """Takes what was missed, each message after a pause; all of a group in its order."""
    heard = {f"{group}": [] for group in range(groups)}
    for _ in range(groups * count):
        opcode, text = client.receive()
        assert opcode == TEXT, text
        group, number, _ = text.decode().split()
        heard[group].append(int(number))
        lasts(pause)
    assert all(numbers == list(range(count)) for numbers in heard.values())


@pytest.mark.parametrize("groups, count", [(1, 60), (12, 5)], ids=["one channel", "many channels"])
def test_who_was_behind_gets_a_big_repair_as_fast_as_it_reads(redis, start_on, groups, count):
    nodes = start_on(redis, 2)
    # 10 MB/s at most, with little room on the way.
    with member(nodes[1], groups, receive_buffer=64 << 10) as client:
        missed(redis, nodes, groups, count)
        hear(client, groups, count, pause=0.01)
        assert publish(nodes[0], "@groups/big-0", f"0 0 {LARGE}")[0] == 200
        hear(client, 1, 1)
    assert metric(nodes[1], "gatecast_messages_repaired_total") >= groups * count
    assert not metric(nodes[1], "gatecast_slow_consumer_disconnects_total")
    assert not metric(nodes[1], "gatecast_messages_lost_total")


def test_who_does_not_read_holds_a_repair_up_for_a_short_time_only(redis, start_on):
    nodes = start_on(redis, 2)
    with member(nodes[1], 1, receive_buffer=2_048), member(nodes[1], 1) as reader:
        missed(redis, nodes, 1, 60)
        began = time.monotonic()
        hear(reader, 1, 60)
        assert time.monotonic() - began < 6, "2 s for who does not read, and what a busy machine needs"
        eventually(lambda: metric(nodes[1], "gatecast_slow_consumer_disconnects_total") == 1)
        assert publish(nodes[0], "@groups/big-0", f"0 0 {LARGE}")[0] == 200
        hear(reader, 1, 1)
