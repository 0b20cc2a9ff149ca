"""What an operation costs in commands to Redis, counted by Redis itself: bounds that do not depend on time."""

import json
import re
from contextlib import ExitStack, contextmanager

import pytest

from cluster import SHORT_LEASE, clients_of, metric, paused, publish
from crowd import crowd_of, hear, say
from gatecast import eventually
from wire import Socket

# So long that nothing happens by itself while commands are counted.
QUIET = {"GATECAST_REDIS_LEASE": "10m", "GATECAST_REDIS_HEARTBEAT": "60s"}
NOT_OURS = re.compile(r"info|config\|")
# Commands that a connection to Redis may cost by being used: checks, credentials, scripts.
UPKEEP = re.compile(r"ping|unwatch|hello|auth|select|client\||script\|")


def counted(server):
    """Calls by command since they were last reset."""
    rows = re.findall(r"^cmdstat_(\S+?):calls=(\d+)", server.ask("INFO", "commandstats"), re.M)
    return {name: int(calls) for name, calls in rows if not NOT_OURS.match(name)}


def at_rest(server):
    """Waits until nothing is under way any more: what is counted has not changed for a while."""
    last = []

    def is_at_rest():
        last.append(counted(server))
        return len(last) > 12 and last[-12:] == [last[-1]] * 12

    eventually(is_at_rest)
    return last[-1]


def leave(crowd, nodes):
    """All are gone before a node sees the first: a test that is slower than they are would end them one by one."""
    with ExitStack() as stack:
        for node in nodes:
            stack.enter_context(paused(node.process))
        crowd.__exit__(None, None, None)
    eventually(lambda: all(metric(node, "gatecast_connections") == 0 for node in nodes))


@pytest.fixture
def costs(redis, note):
    """Counts the commands of a block: `all`, `upkeep` and by name. They are told at the end of the run."""

    class Costs(dict):
        all = upkeep = 0

    @contextmanager
    def costs(what, operations):
        at_rest(redis)
        assert redis.ask("CONFIG", "RESETSTAT") == "OK"
        costs = Costs()
        yield costs
        costs |= at_rest(redis)
        costs.all = sum(costs.values())
        costs.upkeep = sum(calls for name, calls in costs.items() if UPKEEP.match(name))
        ordered = ", ".join(f"{name} {calls}" for name, calls in sorted(costs.items(), key=lambda item: -item[1]))
        note(f"costs: {what}: {costs.all / operations:.2f} commands each ({operations}: {ordered or 'none'})")

    return costs


def test_a_storm_of_connections_is_written_in_batches_and_removed_so(redis, start_on, costs):
    nodes, count = start_on(redis, **QUIET), 999
    crowd = crowd_of(nodes, count // 3)
    with costs("connect, 999 at once", count) as cost:
        crowd.__enter__()
    try:
        assert cost["hset"] <= count and cost.all - cost.upkeep == cost["hset"]
        assert cost.upkeep <= 10
    finally:
        with costs("disconnect, 999 at once", count) as cost:
            leave(crowd, nodes)
    assert cost["hdel"] <= count / 2 and cost.all - cost.upkeep == cost["hdel"]
    assert redis.ask("KEYS", "*:connections") == ""


def test_a_connection_that_comes_alone_costs_one_write_and_one_when_it_goes(redis, start_on, costs):
    (node,) = start_on(redis, 1, **QUIET)
    with costs("connect and disconnect, one by one", 20) as cost:
        for _ in range(20):
            with node.connect():
                pass
    assert (cost["hset"], cost["hdel"]) == (20, 20)
    assert cost.all - cost.upkeep == 40 and cost.upkeep <= 10


def test_an_end_that_is_published_costs_its_name_more_than_a_publish(redis, start_on, costs):
    config, count = '[routes."$disconnect"]\nintegration = "broadcast"\ndata = "somebody left"\n', 200
    nodes = start_on(redis, 2, config, **QUIET)
    assert publish(nodes[0], "@broadcast", "the first begins an epoch")[0] == 200
    crowd = crowd_of(nodes, count // 2)
    crowd.__enter__()
    with costs("$disconnect that publishes, 200 at once", count) as cost:
        leave(crowd, nodes)
    assert cost["xadd"] == cost["set"] == count
    assert cost["del"] <= count / 2, "names go in batches"
    assert "get" not in cost and cost.all - cost.upkeep <= 9 * count, "a publish of 7 and its name, and a share of two removals"
    assert ":end:" not in redis.ask("KEYS", "*")


def test_a_publish_is_one_script(redis, start_on, costs):
    nodes = start_on(redis, **QUIET)
    with clients_of(nodes) as clients:
        assert publish(nodes[0], "@broadcast", "the first begins an epoch")[0] == 200
        with costs("publish, one by one", 100) as cost:
            for _ in range(100):
                assert publish(nodes[0], "@broadcast", "hello")[0] == 200
        assert cost["evalsha"] + cost.get("eval", 0) == cost["publish"] + cost.get("spublish", 0) == cost["xadd"] == 100
        assert cost.all - cost.upkeep <= 8 * 100, "the script, and at most seven commands in it"
        assert cost.upkeep <= 10, "nothing is asked or loaded for each"
        with costs("publish, 500 at once", 500) as cost:
            for _ in range(500):
                clients[1].send("hello")
            for client in clients:
                for _ in range(601):
                    client.recv(timeout=10)
        assert cost["evalsha"] + cost.get("eval", 0) == cost["xadd"] == 500
        assert cost.all - cost.upkeep <= 8 * 500
        assert cost.upkeep <= 10


def test_only_the_first_member_of_a_node_subscribes_and_only_the_last_unsubscribes(redis, start_on, costs):
    (node, *_) = start_on(redis, 2, **QUIET)
    join, leave = ('{"action":"%s","group":"moon"}' % action for action in ("joinGroup", "leaveGroup"))
    with crowd_of([node], 21) as (first, *others):
        with costs("join, the first of a node", 1) as cost:
            say(first, join)
            assert hear(first) == ["joined moon"]
        assert cost.get("subscribe", 0) + cost.get("ssubscribe", 0) == 1
        assert cost.all - cost.upkeep <= 4, "the subscription, and where the stream is"
        with costs("join, 20 others of the same node", 20) as cost:
            for client in others:
                say(client, join)
                assert hear(client) == ["joined moon"]
        assert not cost
        with costs("leave, all but the last of a node", 20) as cost:
            for client in others:
                say(client, leave)
                assert hear(client) == ["left moon"]
        assert not cost
        with costs("leave, the last of a node", 1) as cost:
            say(first, leave)
            assert hear(first) == ["left moon"]
        assert cost.get("unsubscribe", 0) + cost.get("sunsubscribe", 0) == 1 == cost.all - cost.upkeep


def test_joins_of_many_groups_are_batched(redis, start_on, costs):
    (node,) = start_on(redis, 1, GATECAST_LIMITS_GROUPS_PER_CONNECTION="1000", **QUIET)
    with crowd_of([node], 1) as (client,):
        with costs("join, 1,000 new groups at once", 1_000) as cost:
            say(client, *(json.dumps({"action": "joinGroup", "group": f"group {number}"}) for number in range(1_000)))
            assert set(hear(client, 1_000)) == {f"joined group {number}" for number in range(1_000)}
        # One name each, so that each has its own answer; and where each stream is has to be asked, by one script of two calls.
        assert cost.get("subscribe", 0) + cost.get("ssubscribe", 0) <= 1_000
        assert cost.all - cost.upkeep <= 4 * 1_000 + 100
        assert cost.upkeep <= 10
        with costs("leave, 1,000 groups by closing", 1_000) as cost:
            client.raw.close()
        assert cost.get("unsubscribe", 0) + cost.get("sunsubscribe", 0) <= 1_000
        assert cost.all - cost.upkeep <= 1_001


def test_a_post_is_one_message_there_and_one_back_and_none_on_the_same_node(redis, start_on, costs):
    nodes = start_on(redis, 2, **QUIET)
    with clients_of(nodes) as clients:
        with costs("post to a connection of the same node", 50) as cost:
            assert {nodes[0].post(clients[0].id, b"hello") for _ in range(50)} == {200}
        assert not cost
        with costs("post to a connection of another node", 50) as cost:
            assert {nodes[0].post(clients[1].id, b"hello") for _ in range(50)} == {200}
        assert cost.get("publish", 0) + cost.get("spublish", 0) == 100 == cost.all - cost.upkeep
        assert cost.upkeep <= 10


def test_posts_to_another_node_at_once_share_their_trips(redis, start_on, costs):
    nodes, texts = start_on(redis, 2, **QUIET), [f"post {number:02}" for number in range(40)]
    with clients_of(nodes) as clients, ExitStack() as stack:
        head = f"POST /beta/@connections/{clients[1].id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\n"
        with costs("post to a connection of another node, 40 at once", len(texts)) as cost:
            # All have come before the node sees the first.
            with paused(nodes[0].process):
                callers = [stack.enter_context(Socket(nodes[0].address)) for _ in texts]
                for caller, text in zip(callers, texts):
                    caller.send(f"{head}{text}".encode())
            assert {caller.response()[0] for caller in callers} == {200}
        assert sorted(clients[1].recv(timeout=10) for _ in texts) == texts
        assert cost.get("publish", 0) + cost.get("spublish", 0) < len(texts)


def test_an_idle_connection_costs_nothing(redis, start_on, note):
    """Three nodes with leases of 6 s, and a heartbeat every 200 ms."""
    nodes, calls = start_on(redis, GATECAST_REDIS_LEASE="6s"), {}
    for connections in (0, 100, 1_000):
        with crowd_of(nodes, connections):
            records = lambda: sum(int(redis.ask("HLEN", key)) for key in redis.ask("KEYS", "*:connections").split())
            eventually(lambda: records() == 3 * connections, within=20)
            beats = 3 * 10
            assert redis.ask("CONFIG", "RESETSTAT") == "OK"
            eventually(lambda: counted(redis).get("publish", 0) + counted(redis).get("spublish", 0) >= beats)
            calls[connections] = counted(redis)
    totals = {connections: sum(each.values()) for connections, each in calls.items()}
    note(f"costs: 10 heartbeats of 3 nodes with so many idle connections each: {totals}; {calls[0]}")
    # A cost for each connection would show as at least one command for each of 3,000.
    assert max(totals.values()) <= min(totals.values()) + 100
    assert all(each.get("hset", 0) == each.get("hdel", 0) == 0 for each in calls.values())


@pytest.mark.parametrize("count", [2, 4])
def test_an_idle_node_costs_the_same_however_many_there_are(redis, start_on, note, count):
    start_on(redis, count, **SHORT_LEASE)
    beats = 10 * count
    assert redis.ask("CONFIG", "RESETSTAT") == "OK"
    eventually(lambda: counted(redis).get("publish", 0) + counted(redis).get("spublish", 0) >= beats)
    commands = sum(counted(redis).values())
    note(f"costs: idle, {count} nodes: {commands / beats:.2f} commands a heartbeat and node")
    # 5 heartbeats of 2 commands, and now and then a third, and 3 renewals of the lease and looks at the next node, a second: 4
    # commands each.
    assert commands / beats <= 8
