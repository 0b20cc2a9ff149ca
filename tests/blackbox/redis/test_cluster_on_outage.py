"""`on_outage`: what waits for Redis goes out in order and once; what is served without it is said to be so."""

import itertools
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from cluster import (JOIN_MOON, LateNode, Publisher, clients_of, handshake_status, is_internal_error, listening_ports,
                     metric, paused, publish, received_until_now, throughout)
from doubts import hold_up
from gatecast import ask, connection_id, eventually, request

BUFFER = {"GATECAST_REDIS_ON_OUTAGE": "buffer", "GATECAST_REDIS_BUFFER_AGE": "20s"}
LOCAL = {"GATECAST_REDIS_ON_OUTAGE": "local"}
JOIN = '{"action":"joinGroup","group":"GROUP"}'


def answer_of(node, path, text):
    response, body = request(node.address, "POST", f"/beta/{path}", text.encode())
    return response.status, json.loads(body)


def say(client, text):
    client.send(json.dumps({"action": "sendMessage", "data": text}))


def buffered(node):
    return metric(node, "gatecast_buffer_messages")


def dropped(node, reason):
    return metric(node, "gatecast_messages_dropped_total", reason=reason)


@pytest.mark.parametrize("way", ["killed and persistent", "killed and empty", "paused"])
def test_what_waits_goes_out_in_order_and_once(start_redis, start_on, way):
    server = start_redis(is_persistent=way == "killed and persistent")
    nodes = start_on(server, 2, **BUFFER)
    with clients_of(nodes) as clients, ThreadPoolExecutor() as threads:
        expected = [f"message {number}" for number in range(300)]

        def while_away():
            for text in expected:
                say(clients[0], text)
            eventually(lambda: buffered(nodes[0]) == 300)
            assert metric(nodes[0], "gatecast_buffer_bytes") > 300 * len("message 1")
            # A caller waits for its answer, behind the others.
            caller = threads.submit(publish, nodes[0], "@broadcast", "the last")
            eventually(lambda: buffered(nodes[0]) == 301)
            # What cannot wait is refused as ever.
            assert is_internal_error(ask(clients[1], '{"action":"joinGroup","group":"refused"}'))
            assert handshake_status(nodes[0].address) == 503
            return caller

        if way == "paused":
            with paused(server.process):
                caller = while_away()
        else:
            server.kill()
            caller = while_away()
            assert server.start()
        assert caller.result()[0] == 200
        assert received_until_now(clients, nodes[1]) == [[*expected, "the last"]] * 2
        assert buffered(nodes[0]) == metric(nodes[0], "gatecast_buffer_bytes") == 0
        assert metric(nodes[0], "gatecast_messages_dropped_total") == 0


@pytest.mark.parametrize("way", ["the answer is lost", "Redis stalls"])
def test_what_waits_in_doubt_arrives_once_and_before_what_came_later(redis, doubtful, start_on, way):
    (other,) = start_on(redis, 1, **BUFFER)
    (node,) = start_on(doubtful, 1, **BUFFER)
    with clients_of([node, other]) as clients, ThreadPoolExecutor() as threads:
        expected = []
        for number in range(3):
            text = f"in doubt {number}"
            doubtful.leave_in_doubt(text, doubtful.lose_answer if way == "the answer is lost" else hold_up(redis.process))
            caller = threads.submit(answer_of, node, "@broadcast", text)
            eventually(lambda: doubtful.marker is None)
            say(clients[0], f"later {number}")
            if way == "Redis stalls":
                eventually(lambda: buffered(node) == 2)
                redis.process.send_signal(signal.SIGCONT)
            status, answer = caller.result()
            assert status == 200 and set(answer) == {"offset"}, "its sender said it once"
            expected += [text, f"later {number}"]
        assert received_until_now(clients, other) == [expected] * 2
        assert metric(node, "gatecast_messages_dropped_total") == 0


def test_callers_and_clients_lose_nothing_in_many_outages(start_redis, start_on):
    server = start_redis(is_persistent=True)
    nodes = start_on(server, 2, **BUFFER)
    with clients_of(nodes) as clients:
        with Publisher(nodes[:1], name="one") as one, Publisher(nodes[1:], name="two") as two:
            for _ in range(3):
                one.more(20)
                two.more(20)
                server.kill()
                eventually(lambda: all(buffered(node) for node in nodes))
                assert server.start()
            one.more(20)
            two.more(20)
        received = received_until_now(clients, nodes[0])
        for publisher in (one, two):
            assert {status for _, status, _ in publisher.answers} == {200}
            for number, texts in enumerate(received):
                publisher.check(texts, f"client {number}")


def test_what_does_not_fit_is_refused_and_the_rest_arrives(redis, start_on):
    (node,) = start_on(redis, 1, **(BUFFER | {"GATECAST_REDIS_BUFFER_BYTES": "8192"}))
    with clients_of([node]) as (client,):
        redis.kill()
        say(client, "0")
        eventually(lambda: buffered(node) == 1)
        for number in range(1, 100):
            say(client, str(number))
        eventually(lambda: buffered(node) + dropped(node, "buffer_full") == 100)
        kept = int(buffered(node))
        assert 8 < kept < 64 and metric(node, "gatecast_buffer_bytes") <= 8192
        assert all(is_internal_error(client.recv(timeout=10)) for _ in range(100 - kept))
        assert publish(node, "@broadcast", "x" * 4096)[0] == 503
        assert redis.start()
        assert received_until_now([client], node) == [[str(number) for number in range(kept)]]


def test_what_waits_too_long_is_refused_and_does_not_arrive(redis, start_on):
    (node,) = start_on(redis, 1, **(BUFFER | {"GATECAST_REDIS_BUFFER_AGE": "500ms"}))
    with clients_of([node]) as (client,):
        redis.kill()
        for number in range(10):
            say(client, str(number))
        assert all(is_internal_error(client.recv(timeout=10)) for _ in range(10))
        assert publish(node, "@broadcast", "refused")[0] == 503
        assert dropped(node, "buffer_age") == 11 and buffered(node) == 0
        assert redis.start()
        assert received_until_now([client], node) == [[]]


def test_messages_of_groups_without_replay_do_not_wait(redis, start_on):
    (node,) = start_on(redis, 1, '[[groups]]\npattern = "ticks-*"\nreplay = "off"\n', **BUFFER)
    redis.kill()
    assert publish(node, "@groups/ticks-eur", "stale")[0] == 503
    assert dropped(node, "unavailable") == 1


def test_a_node_that_ends_answers_for_what_waits(redis, start_on):
    (node,) = start_on(redis, 1, "[drain]\nwindow = \"0s\"\n", **BUFFER)
    redis.kill()
    with ThreadPoolExecutor() as threads:
        caller = threads.submit(publish, node, "@broadcast", "refused")
        eventually(lambda: buffered(node) == 1)
        node.is_ended_by_test = True
        node.signal(signal.SIGTERM)
        assert caller.result()[0] == 503
    assert node.wait() == 0


def test_a_node_that_ends_takes_its_last_messages_to_redis(start_redis, start_on):
    """The last word of a client, said by `$disconnect`, is on its way when everything else is over."""
    server = start_redis(is_persistent=True)
    farewell = '[drain]\nwindow = "0s"\n[routes."$disconnect"]\nintegration = "broadcast"\ndata = "somebody left"\n'
    leaving, staying = start_on(server, 2, farewell)
    with staying.connect() as watcher:
        with leaving.connect(), leaving.connect():
            leaving.is_ended_by_test = True
            leaving.signal(signal.SIGTERM)
            assert leaving.wait() == 0
        assert [watcher.recv(timeout=10) for _ in range(2)] == ["somebody left"] * 2


@pytest.mark.parametrize("way", ["killed and persistent", "killed and empty", "paused"])
def test_alone_a_node_serves_its_own_members_and_says_so(start_redis, start_on, way):
    server = start_redis(is_persistent=way == "killed and persistent")
    nodes = start_on(server, 2, **LOCAL)
    not_again = set()
    with clients_of(nodes) as (near, far), ExitStack() as stack:
        assert ask(near, JOIN_MOON) == ask(far, JOIN_MOON) == "joined moon"

        # Those on the way when Redis went are in doubt and refused; Redis may carry them out when it is back.
        tries = (f"try {number}" for number in itertools.count())

        def while_away():
            taken = eventually(lambda: publish_locally(nodes[0], "@broadcast", text := next(tries)) and text)
            assert near.recv(timeout=10) == taken
            not_again.add(taken)
            late = stack.enter_context(nodes[0].connect())
            for group in ("moon", "mars"):
                assert ask(late, json.dumps({"action": "joinGroup", "group": group})) == f"joined {group}"
            assert publish_locally(nodes[0], "@groups/moon", "to the moon")
            assert near.recv(timeout=10) == late.recv(timeout=10) == "to the moon"
            assert publish_locally(nodes[0], "@groups/mars", "to mars") and late.recv(timeout=10) == "to mars"
            say(late, "from a client")
            assert near.recv(timeout=10) == late.recv(timeout=10) == "from a client"
            late_id = connection_id(late)
            assert nodes[0].post(late_id, b"direct") == 200 and late.recv(timeout=10) == "direct"
            assert nodes[1].post(late_id, b"refused") == 503
            # Past the time in which other nodes would no longer be ready.
            throughout(1.5, lambda: all(node.page("/ready")[0] == 200 for node in nodes))
            return late, late_id

        if way == "paused":
            with paused(server.process):
                late, late_id = while_away()
        else:
            server.kill()
            late, late_id = while_away()
            assert server.start()
        eventually(lambda: all(metric(node, "gatecast_redis_up") == 1 for node in nodes))
        eventually(lambda: nodes[1].post(late_id, b"from the other node") == 200)
        eventually(lambda: server.mentions(late_id))
        eventually(lambda: answer_of(nodes[1], "@groups/mars", "again")[0] == 200)
        # Nobody has anything twice, and the other node's clients have nothing of what was said alone.
        received = received_until_now([near, far, late], nodes[1])
        assert all(len(texts) == len(set(texts)) and not_again.isdisjoint(texts) for texts in received)
        expected = [[], [], ["again", "from the other node"]]
        assert [sorted(text for text in texts if not text.startswith("try ")) for texts in received] == expected
        assert metric(nodes[0], "gatecast_messages_published_local_total") >= 4
        late.close()
        eventually(lambda: nodes[1].post(late_id, b"hello") == 410)
        eventually(lambda: not server.mentions(late_id))


def publish_locally(node, path, text):
    status, answer = answer_of(node, path, text)
    if status == 503:
        return False
    assert (status, answer) == (202, {"offset": None, "scope": "node"})
    return True


@pytest.mark.parametrize("way", ["the answer is lost", "Redis stalls"])
def test_alone_a_message_in_doubt_is_refused_and_comes_at_most_once(redis, doubtful, start_on, way):
    (node,) = start_on(doubtful, 1, **LOCAL)
    with clients_of([node]) as (client,):
        doubtful.leave_in_doubt("doubtful", doubtful.lose_answer if way == "the answer is lost" else hold_up(redis.process))
        assert publish(node, "@broadcast", "doubtful")[0] == 503
        assert doubtful.marker is None and dropped(node, "unavailable") == 1
        redis.process.send_signal(signal.SIGCONT)
        assert received_until_now([client], node) == [["doubtful"]]


def with_key(node, key, text, path="@broadcast"):
    return request(node.address, "POST", f"/beta/{path}", text.encode(), {"Idempotency-Key": key})[0].status


@pytest.mark.parametrize("way", ["refuse", "silence"])
def test_alone_what_has_a_key_is_refused_and_comes_once(redis, proxy, start_on, way):
    """Another node may have been given the same, and its members here would have it twice."""
    keyed = '[routes.once]\nintegration = "broadcast"\ndata = "$request.body.data"\nidempotency_key = "$request.body.id"\n'
    (near,) = start_on(redis, 1, keyed, **LOCAL)
    (alone,) = start_on(proxy, 1, keyed, **LOCAL)
    with clients_of([near, alone]) as clients:
        getattr(proxy, way)()
        # What was on the way is in doubt, and may come later.
        tries = (f"try {number}" for number in itertools.count())
        taken = eventually(lambda: publish_locally(alone, "@broadcast", text := next(tries)) and text)
        assert clients[1].recv(timeout=10) == taken
        assert [with_key(alone, "order", "once") for _ in range(3)] == [503] * 3
        clients[1].send(json.dumps({"action": "once", "id": "order", "data": "once"}))
        assert is_internal_error(clients[1].recv(timeout=10))
        assert with_key(near, "order", "once") == 200
        proxy.heal()
        eventually(lambda: metric(alone, "gatecast_redis_up") == 1)
        eventually(lambda: with_key(alone, "order", "once") == 200)
        received = received_until_now(clients, near)
        assert [[text for text in texts if not text.startswith("try ")] for texts in received] == [["once"]] * 2


def test_what_waits_with_a_key_comes_once_though_it_came_elsewhere_meanwhile(redis, proxy, start_on):
    (near,) = start_on(redis, 1, **BUFFER)
    (alone,) = start_on(proxy, 1, **BUFFER)
    with clients_of([near, alone]) as clients, ThreadPoolExecutor() as threads:
        proxy.refuse()
        waiting = [threads.submit(with_key, alone, "order", "once") for _ in range(3)]
        eventually(lambda: buffered(alone) == 3)
        assert with_key(near, "order", "once") == 200
        proxy.heal()
        assert [each.result() for each in waiting] == [200] * 3
        assert received_until_now(clients, near) == [["once"]] * 2


def lost(node):
    return metric(node, "gatecast_recoveries_total", result="lost")


def test_who_joins_alone_has_what_was_accepted_since_or_it_is_counted(redis, proxy, start_on):
    users = 'trusted_proxies = ["127.0.0.1"]\nauth.user_header = "x-user"\n'
    (near,) = start_on(redis, 1, users, **LOCAL)
    (alone,) = start_on(proxy, 1, users, **LOCAL)
    paths = ("@groups/known", "@groups/strange", "@users/tom")
    with clients_of([alone]) as (member,), ExitStack() as stack:
        assert ask(member, JOIN.replace("GROUP", "known")) == "joined known"
        for path in paths:
            assert publish(near, path, "before")[0] == 200
        assert member.recv(timeout=10) == "before"
        proxy.refuse()
        eventually(lambda: publish_locally(alone, "@groups/nobody", "alone"))
        late = stack.enter_context(alone.connect(additional_headers={"x-user": "tom"}))
        for group in ("known", "strange", "unused"):
            assert ask(late, JOIN.replace("GROUP", group)) == f"joined {group}"
        for path in paths:
            for number in range(50):
                assert publish(near, path, f"{path} {number}")[0] == 200
        counted = lost(alone)
        proxy.heal()
        eventually(lambda: metric(alone, "gatecast_redis_up") == 1)
        # Where nobody knew the channel's place, nobody knows what was missed: once for the group, once for the user.
        eventually(lambda: lost(alone) == counted + 2)
        (known,) = received_until_now([late], near, paths)
        assert [text for text in known if text.startswith("@groups/known")] == [f"@groups/known {number}" for number in range(50)]
        assert lost(alone) == counted + 2, "and none of a group that was sent nothing"


def test_a_node_that_starts_without_redis_never_serves_alone(tmp_path, redis):
    redis.kill()

    def while_starting(node):
        eventually(lambda: node.page("/ready")[0] == 503 and "redis" in node.log().lower())
        # One port is for clients, the other knows no handshakes.
        addresses = [("127.0.0.1", port) for port in listening_ports(node.process.pid)]
        assert sorted(handshake_status(address) for address in addresses) == [404, 503]
        assert redis.start()

    (tmp_path / "late").mkdir()
    node = LateNode(tmp_path / "late", while_starting, GATECAST_REDIS_URL=redis.url, **LOCAL)
    try:
        eventually(lambda: node.page("/ready")[0] == 200)
        node.serves()
    finally:
        node.kill()
