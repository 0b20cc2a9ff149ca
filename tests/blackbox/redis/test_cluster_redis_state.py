"""What Redis holds of channels is bounded: names, messages, bytes, age; and what it refuses when it is full."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster import SHORT_LEASE, clients_of, metric, publish
from crowd import crowd_of, hear, say
from gatecast import ROOT, ask, eventually, lasts

SCRIPTS = sorted((ROOT / "src").rglob("*.lua"))
AGE = {"GATECAST_REDIS_STREAM_AGE": "1s"}
STREAM, META = "gatecast:{group:moon}:stream", "gatecast:{group:moon}:meta"


def keys(server, pattern="gatecast:{group:*"):
    return set(server.ask("KEYS", pattern).split("\n")) - {""}


def used(server):
    return int(re.search(r"^used_memory:(\d+)", server.ask("INFO", "memory"), re.M)[1])


def send_to(group, data="x"):
    return json.dumps({"action": "sendToGroup", "group": group, "data": data})


def test_names_that_nobody_listens_to_are_gone_with_their_messages(redis, start_on):
    nodes = start_on(redis, 2, **AGE)
    with crowd_of(nodes, 1) as clients:
        for number in range(40):
            say(clients[number % 2], send_to(f"name {number}"))
        eventually(lambda: len(keys(redis)) == 80)
        eventually(lambda: not keys(redis), within=5)


def test_a_channel_whose_last_member_has_left_is_gone_with_its_messages(redis, start_on):
    nodes = start_on(redis, 2, **AGE)
    join, leave = ('{"action":"%s","group":"moon"}' % action for action in ("joinGroup", "leaveGroup"))
    with clients_of(nodes) as clients:
        assert [ask(client, join) for client in clients] == ["joined moon"] * 2
        publish(nodes[0], "@groups/moon", "hello")
        assert [client.recv(timeout=10) for client in clients] == ["hello"] * 2
        eventually(lambda: STREAM not in keys(redis))
        assert META in keys(redis), "members remember its offset"
        assert ask(clients[0], leave) == "left moon"
        assert publish(nodes[0], "@groups/moon", "again") == (200, 2), "as long as anybody does"
        assert clients[1].recv(timeout=10) == "again"
        assert ask(clients[1], leave) == "left moon"
        eventually(lambda: not keys(redis), within=5)


def test_a_channel_that_redis_has_forgotten_begins_anew_and_nothing_is_lost(redis, start_on):
    nodes = start_on(redis, 2)
    with clients_of(nodes) as clients:
        assert [ask(client, '{"action":"joinGroup","group":"moon"}') for client in clients] == ["joined moon"] * 2
        for round in range(3):
            for number in range(1, 4):
                assert publish(nodes[number % 2], "@groups/moon", f"{round} {number}") == (200, number)
                assert [client.recv(timeout=10) for client in clients] == [f"{round} {number}"] * 2
            redis.ask("DEL", STREAM, META)
        assert all(metric(node, "gatecast_recoveries_total", result="lost") == 0 for node in nodes)
        assert all(metric(node, "gatecast_messages_lost_total") == 0 for node in nodes)


def test_a_stream_is_bounded_in_bytes(redis, start_on):
    (node,) = start_on(redis, 1, GATECAST_REDIS_STREAM_BYTES="1048576")
    for _ in range(60):
        assert publish(node, "@groups/moon", "x" * 100_000)[0] == 200
    # Redis gives a message of 100,000 bytes 114,688.
    assert 5 <= int(redis.ask("XLEN", STREAM)) <= 11
    assert int(redis.ask("MEMORY", "USAGE", STREAM)) < 1.3 * 1_048_576
    assert publish(node, "@groups/moon", "x" * 131_072)[0] == 200
    assert redis.ask("HGET", META, "offset") == "61"


def test_a_stream_is_bounded_in_age_while_more_come(redis, start_on):
    (node,) = start_on(redis, 1, **AGE)
    began, sent = time.monotonic(), {}
    while time.monotonic() < began + 4:
        status, offset = publish(node, "@groups/moon", "x")
        assert status == 200
        sent[offset] = time.monotonic()
        lasts(0.01)
    asked = time.monotonic()
    oldest = int(redis.ask("EVAL", "return redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]", "1", STREAM).split("-")[0])
    # A part is a quarter of the age, and the oldest goes when the next begins; more only where this machine was held up.
    assert sent[oldest] > asked - 1.6 - max(later - earlier for earlier, later in zip(sent.values(), list(sent.values())[1:]))


def test_a_stream_is_bounded_in_messages(redis, start_on):
    (node,) = start_on(redis, 1, GATECAST_REDIS_STREAM_ENTRIES="100")
    with crowd_of([node], 1) as (client,):
        say(client, *(send_to("moon", str(number)) for number in range(1_000)))
        eventually(lambda: redis.ask("HGET", META, "offset") == "1000")
    assert int(redis.ask("XLEN", STREAM)) < 300


def fill(server):
    """Leaves Redis no memory for more."""
    assert server.ask("CONFIG", "SET", "maxmemory", "1mb") == "OK"


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_no_script_writes_more_into_a_redis_that_is_full(redis, path):
    """Whether its keys are there already, or not."""
    arguments = {
        "publish": (("meta", "stream", "key"),
                    ("channel", "x" * 1000, "PUBLISH", "deadbeef", "1000", "1000000", "60000", "600000", "60000", "1", "")),
        "read": (("meta", "stream"), ("0", "100", "100000", "1000")),
        "leave": (("meta",), ("channel", "NUMSUB", "1000")),
        "claim": (("lease", "reaped"), ("", "", "survivor:1", "1000")),
        "look": (("lease", "reaped"), ("1000", "?survivor:1")),
        "reap": (("lease", "reaped", "records"), ("survivor:1", "survivor:2", "1000", "id")),
        "give_up": (("lease", "reaped"), ("1000",)),
        "renew": (("lease", "reaped", "records"), ("lease", "1000")),
    }
    names, values = arguments[path.stem]
    run = lambda prefix: redis.ask("--eval", str(path), *(prefix + name for name in names), ",", *values)
    assert not run("before:").startswith(("ERR", "OOM"))
    before = redis.ask("DBSIZE"), redis.ask("XLEN", "before:stream"), redis.ask("HGET", "before:meta", "offset")
    redis.ask("DEL", "before:key")
    fill(redis)
    assert "OOM" in redis.ask("SET", "any", "value")
    dirty = re.search(r"rdb_changes_since_last_save:(\d+)", redis.ask("INFO", "persistence"))[1]
    for prefix in ("before:", "after:"):
        answer = run(prefix)
        assert "OOM" in answer or path.stem in ("read", "leave", "claim", "look", "reap") or path.stem in ("renew", "give_up") and prefix == "before:", answer
    assert "after:" not in redis.ask("KEYS", "*")
    now = redis.ask("DBSIZE"), redis.ask("XLEN", "before:stream"), redis.ask("HGET", "before:meta", "offset")
    assert now[1:] == before[1:]
    if path.stem == "publish":
        changes = re.search(r"rdb_changes_since_last_save:(\d+)", redis.ask("INFO", "persistence"))[1]
        assert changes == dirty, "nothing at all was written"


def test_a_full_redis_takes_no_message_and_nobody_for_dead(redis, start_on):
    nodes = start_on(redis, 2, **SHORT_LEASE)
    with clients_of(nodes) as clients:
        assert [ask(client, '{"action":"joinGroup","group":"moon"}') for client in clients] == ["joined moon"] * 2
        assert publish(nodes[0], "@groups/moon", "before") == (200, 1)
        assert [client.recv(timeout=10) for client in clients] == ["before"] * 2
        fill(redis)
        size = used(redis)
        for number in range(200):
            assert publish(nodes[number % 2], f"@groups/{number}", "x" * 50_000)[0] == 503
        assert publish(nodes[0], "@groups/moon", "refused")[0] == 503
        assert used(redis) < size + 1_000_000
        # Longer than a lease.
        lasts(1.5)
        assert redis.ask("CONFIG", "SET", "maxmemory", "0") == "OK"
        eventually(lambda: publish(nodes[1], "@groups/moon", "after")[0] == 200)
        assert [client.recv(timeout=10) for client in clients] == ["after"] * 2
    assert all(node.process.poll() is None for node in nodes)


def test_streams_keep_less_when_redis_is_short_of_memory_and_messages_go_on(redis, start_on):
    """A hundred channels are sent almost twice what Redis may use; none of it is refused."""
    limit = 96 * 1_048_576
    assert redis.ask("CONFIG", "SET", "maxmemory", str(limit)) == "OK"
    nodes = start_on(redis, 2)
    highest, text = 0, "x" * 100_000
    looked_at = lambda: [metric(node, "gatecast_redis_memory_used_bytes") for node in nodes]
    with ThreadPoolExecutor(2) as threads:
        for number in range(900):
            both = [threads.submit(publish, node, f"@groups/{number % 100}", text) for node in nodes]
            assert {answer.result()[0] for answer in both} == {200}
            if number % 50 == 0:
                highest = max(highest, used(redis))
                # Nodes look at Redis each second: no more comes between two looks than it has room for.
                before = looked_at()
                eventually(lambda: all(now != then for now, then in zip(looked_at(), before)))
    assert highest < limit
    assert metric(nodes[0], "gatecast_redis_memory_limit_bytes") == limit
    eventually(lambda: 0 < metric(nodes[0], "gatecast_redis_memory_used_bytes") < limit)
    eventually(lambda: 1 <= metric(nodes[1], "gatecast_redis_stream_age_seconds") < 60)
    assert redis.ask("CONFIG", "SET", "maxmemory", "0") == "OK"
    eventually(lambda: metric(nodes[0], "gatecast_redis_stream_age_seconds") == 60)


def refused(text):
    return text.startswith('{"message": "Limit exceeded"')


@pytest.fixture
def limited(redis, start_on):
    """A node whose clients may name little that is new, and an address little more."""
    return start_on(redis, 1, GATECAST_LIMITS_NEW_CHANNELS_RATE="1", GATECAST_LIMITS_GROUPS_PER_CONNECTION="20",
                    GATECAST_LIMITS_NEW_CHANNELS_RATE_PER_ADDRESS="8")[0]


def test_a_client_that_invents_names_is_told_and_leaves_little_behind(redis, limited):
    node = limited
    with crowd_of([node], 1) as (client,):
        say(client, *(send_to(f"name {number}") for number in range(1_000)), '{"action":"no such action"}')
        answers = []
        while not answers or "Forbidden" not in answers[-1]:
            answers += hear(client)
        assert all(refused(text) for text in answers[:-1])
        assert 900 < len(answers) - 1 <= 980, "a burst of 20, and one a second"
        assert metric(node, "gatecast_new_channels_refused_total", by="connection") == len(answers) - 1
        eventually(lambda: len(keys(redis)) == 2 * (1_001 - len(answers)))
        # One a second, and less than so many seconds have gone by.
        say(client, *(f'{{"action":"joinGroup","group":"another {number}"}}' for number in range(18)))
        assert any(map(refused, hear(client, 18))), "joins count alike"
        # What is known may be sent to as before.
        with node.connect() as other:
            assert ask(other, '{"action":"joinGroup","group":"name 1"}') == "joined name 1"
            say(client, send_to("name 1", "hello"))
            assert other.recv(timeout=10) == "hello"


def test_an_address_has_a_bound_for_all_its_connections(redis, limited):
    node = limited
    with crowd_of([node], 4) as clients:
        for number, client in enumerate(clients):
            say(client, *(f'{{"action":"joinGroup","group":"{number} {name}"}}' for name in range(15)))
        answers = [text for client in clients for text in hear(client, 15)]
        joined = [text for text in answers if text.startswith("joined")]
        assert all(refused(text) or text in joined for text in answers)
        assert 32 <= len(joined) < 45, "a burst of 32, and 8 a second"
        assert metric(node, "gatecast_new_channels_refused_total", by="address") == 60 - len(joined)
    status, _ = publish(node, "@groups/of-a-back-end", "x")
    assert status == 200, "callers of the management API are trusted with names"
