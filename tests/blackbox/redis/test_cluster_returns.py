"""Redis goes on from an older copy of its data, and then from the one it had left: nobody has anything twice, or in another order."""

import shutil

import pytest

from cluster import JOIN_MOON, clients_of, metric, publish
from gatecast import ask, eventually

PATHS = ("@broadcast", "@groups/moon")


def keep(server, name):
    """Takes a copy of the data as they are."""
    assert server.ask("SAVE") == "OK"
    shutil.copy(server.directory / "dump.rdb", server.directory / name)


def return_to(server, name):
    server.kill()
    shutil.copy(server.directory / name, server.directory / "dump.rdb")
    assert server.start()


def say(node, *texts):
    for text in texts:
        for path in PATHS:
            eventually(lambda: publish(node, path, f"{path} {text}")[0] == 200)


def hear(clients, last):
    """Waits until all clients have a text on each channel; what has come is kept with them."""
    for client in clients:
        while not {f"{path} {last}" for path in PATHS} <= set(client.texts):
            client.texts.append(client.recv(timeout=10))


def received(client):
    """What has come on each channel."""
    return [[text.split()[1] for text in client.texts if text.startswith(path)] for path in PATHS]


def are_up(nodes):
    return eventually(lambda: all(metric(node, "gatecast_redis_up") == 1 for node in nodes))


def joined(clients):
    for client in clients:
        assert ask(client, JOIN_MOON) == "joined moon"
        client.texts = []


@pytest.mark.parametrize("times", [1, 3])
def test_a_history_that_returns_comes_once(redis, start_on, times):
    nodes = start_on(redis, 2)
    with clients_of(nodes) as clients:
        joined(clients)
        expected = ["1", "2", "3", "4", "5", "6"]
        say(nodes[0], *expected[:3])
        keep(redis, "older")
        say(nodes[0], *expected[3:])
        hear(clients, "6")
        keep(redis, "newer")
        for number in range(times):
            for name in ("older", "newer"):
                return_to(redis, name)
                are_up(nodes)
                texts = [f"{name}-{number}-{each}" for each in range(2)]
                say(nodes[number % 2], *texts)
                # Or Redis would forget what has not left it.
                hear(clients, texts[-1])
                expected += texts
        say(nodes[1], "end")
        hear(clients, "end")
        assert [received(client) for client in clients] == [[[*expected, "end"]] * 2] * 2
        for node in nodes:
            assert metric(node, "gatecast_messages_lost_total") == 0, "everybody has everything"
            assert metric(node, "gatecast_recoveries_total", result="lost") >= 2, "Redis has forgotten some"


def test_who_was_away_gets_nothing_behind_what_came_later_and_it_is_counted(redis, proxy, start_on):
    (near,) = start_on(redis, 1)
    (lonely,) = start_on(proxy, 1)
    with clients_of([near, lonely]) as clients:
        joined(clients)
        say(near, "1", "2", "3")
        keep(redis, "older")
        hear(clients, "3")
        proxy.refuse()
        eventually(lambda: metric(lonely, "gatecast_redis_up") == 0)
        say(near, "4", "5", "6")
        hear(clients[:1], "6")
        keep(redis, "newer")
        return_to(redis, "older")
        proxy.heal()
        are_up([near, lonely])
        say(near, "7", "8")
        hear(clients, "8")
        return_to(redis, "newer")
        are_up([near, lonely])
        say(near, "9", "end")
        hear(clients, "end")
        assert received(clients[0]) == [["1", "2", "3", "4", "5", "6", "7", "8", "9", "end"]] * 2
        assert received(clients[1]) == [["1", "2", "3", "7", "8", "9", "end"]] * 2
        # Three of each channel.
        assert metric(lonely, "gatecast_messages_lost_total") == 6 and metric(near, "gatecast_messages_lost_total") == 0
