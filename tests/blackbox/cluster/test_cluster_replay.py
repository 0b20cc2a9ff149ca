"""Groups without replay: one PUBLISH a message, nothing counted, nothing kept, nothing read."""

import json
import re

import pytest

from cluster import clients_of, metric
from gatecast import ask, eventually, request

TICKS = '[[groups]]\npattern = "ticks-*"\nreplay = "off"\n'


def join(client, group):
    assert ask(client, json.dumps({"action": "joinGroup", "group": group})) == f"joined {group}"


def publish(node, group, text, **headers):
    response, body = request(node.address, "POST", f"/beta/@groups/{group}", text.encode(), headers)
    return response.status, json.loads(body)


def calls(server, command):
    """How often Redis has carried out a command."""
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", server.ask("INFO", "commandstats"))
    return int(found[1]) if found else 0


def test_messages_arrive_in_order_everywhere_and_redis_keeps_nothing(redis, start_on):
    nodes = start_on(redis, 2, TICKS)
    with clients_of(nodes, each=2) as clients:
        for client in clients:
            join(client, "ticks-eur")
        before = {command: calls(redis, command) for command in ("xadd", "hincrby", "publish")}
        for number in range(100):
            assert publish(nodes[0], "ticks-eur", f"tick {number}") == (200, {"offset": None})
        for client in clients:
            assert [client.recv(timeout=10) for _ in range(100)] == [f"tick {number}" for number in range(100)]
        assert calls(redis, "xadd") == before["xadd"] and calls(redis, "hincrby") == before["hincrby"]
        # Heartbeats are published, too.
        assert calls(redis, "publish") >= before["publish"] + 100
        assert not redis.ask("KEYS", "*ticks*")
        assert metric(nodes[0], "gatecast_messages_published_total") == 100
        clients[0].send(json.dumps({"action": "sendToGroup", "group": "ticks-eur", "data": "from a client"}))
        assert [client.recv(timeout=10) for client in clients] == ["from a client"] * 4


def test_joining_asks_for_no_place_and_other_groups_do(redis, start_on):
    (node,) = start_on(redis, 1, TICKS)
    with node.connect() as client:
        before = {command: calls(redis, command) for command in ("hmget", "xrange")}
        join(client, "ticks-eur")
        assert calls(redis, "hmget") == before["hmget"]
        join(client, "moon")
        assert calls(redis, "hmget") > before["hmget"] and calls(redis, "xrange") == before["xrange"], "nothing more"
        assert [publish(node, "moon", "x")[1]["offset"] for _ in range(2)] == [1, 2]


def test_a_new_connection_to_redis_does_not_repeat_anything(redis, start_on):
    (node, other) = start_on(redis, 2, TICKS)
    with node.connect() as client:
        join(client, "ticks-eur")
        assert publish(other, "ticks-eur", "before")[0] == 200
        assert client.recv(timeout=10) == "before"
        for number in range(3):
            reconnects = metric(node, "gatecast_redis_reconnects_total")
            assert redis.cut_subscribers() >= 1
            eventually(lambda: metric(node, "gatecast_redis_reconnects_total") > reconnects)
            eventually(lambda: metric(node, "gatecast_redis_up") == 1)
            assert publish(other, "ticks-eur", f"after {number}")[0] == 200
            assert client.recv(timeout=10) == f"after {number}"
        assert metric(node, "gatecast_messages_repaired_total") == 0


@pytest.mark.parametrize("kind", ["alone", "with Redis"])
def test_a_key_is_refused_since_nothing_is_remembered(start, redis, start_on, kind):
    node = start(TICKS) if kind == "alone" else start_on(redis, 1, TICKS)[0]
    assert publish(node, "ticks-eur", "x") == (200, {"offset": None})
    status, answer = publish(node, "ticks-eur", "x", **{"Idempotency-Key": "order"})
    assert status == 400 and 'replay = "off"' in answer["message"]
    assert publish(node, "moon", "x", **{"Idempotency-Key": "order"})[0] == 200
