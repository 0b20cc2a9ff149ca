"""`Idempotency-Key`: a caller's retry is not published again, whatever happened to the first try."""

import json
import signal

import pytest

from cluster import JOIN_MOON, clients_of, metric, received_until_now
from doubts import hold_up
from gatecast import ask, eventually, request

PATHS = ["@broadcast", "@groups/moon", "@users/tom"]
SUBMIT = """
[routes.submit]
integration = "broadcast"
data = "$request.body.data"
idempotency_key = "$request.body.id"
"""

USERS = 'trusted_proxies = ["127.0.0.1"]\nauth.user_header = "x-user"\n'


def publish_once(node, key, text, path="@broadcast"):
    """Returns the status and the answer."""
    response, body = request(node.address, "POST", f"/beta/{path}", text.encode(), {"Idempotency-Key": key})
    return response.status, json.loads(body)


def accepted_once(node, key, text, path):
    status, answer = publish_once(node, key, text, path)
    return answer if status == 200 else None


@pytest.fixture(params=["alone", "with Redis"])
def any_node(request, start):
    """A node of either kind."""
    if request.param == "alone":
        return start(USERS)
    return request.getfixturevalue("start_on")(request.getfixturevalue("redis"), 1, USERS)[0]


@pytest.mark.parametrize("path", PATHS)
def test_a_key_is_published_once_on_each_channel(any_node, path):
    with any_node.connect(additional_headers={"x-user": "tom"}) as client:
        assert ask(client, JOIN_MOON) == "joined moon"
        status, first = publish_once(any_node, "order 1", "first", path)
        assert status == 200 and set(first) == {"offset"}
        assert publish_once(any_node, "order 2", "second", path) == (200, {"offset": first["offset"] + 1})
        for _ in range(2):
            assert publish_once(any_node, "order 1", "again", path) == (200, first | {"duplicate": True})
        status, elsewhere = publish_once(any_node, "order 1", "elsewhere", "@groups/nobody")
        assert status == 200 and "duplicate" not in elsewhere
        assert [client.recv(timeout=10) for _ in range(2)] == ["first", "second"]
        assert publish_once(any_node, "order 3", "last", path)[0] == 200
        assert client.recv(timeout=10) == "last"
        assert metric(any_node, "gatecast_messages_duplicate_total") == 2
        assert metric(any_node, "gatecast_messages_published_total") == 4


def test_without_a_key_the_same_message_is_published_again(any_node):
    with any_node.connect() as client:
        for _ in range(2):
            assert request(any_node.address, "POST", "/beta/@broadcast", b"same")[0].status == 200
        assert [client.recv(timeout=10) for _ in range(2)] == ["same", "same"]


@pytest.mark.parametrize("key", ["", "x" * 65, "café", "tab\there"])
def test_a_bad_key_is_refused_with_a_clear_text(any_node, key):
    # As bytes: the client's own library would encode them its way.
    response, body = request(any_node.address, "POST", "/beta/@broadcast", b"x", {"Idempotency-Key": key.encode()})
    assert response.status == 400 and response.headers["x-amzn-errortype"] == "BadRequestException"
    assert json.loads(body) == {"message": "Idempotency-Key must have 1 to 64 printable ASCII characters"}
    assert metric(any_node, "gatecast_messages_published_total") == 0


@pytest.mark.parametrize("key", ["x", "x" * 64, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "a}:key:b%7D ~"])
def test_a_key_may_have_all_printable_characters(any_node, key):
    assert publish_once(any_node, key, "x")[0] == 200
    assert publish_once(any_node, key, "x")[1]["duplicate"]


def test_a_key_is_forgotten_after_its_age(start, redis, start_on):
    short = {"GATECAST_LIMITS_IDEMPOTENCY_AGE": "1s"}
    for node in [start(**short), *start_on(redis, 1, **short)]:
        assert publish_once(node, "order", "x")[0] == 200
        assert publish_once(node, "order", "x")[1]["duplicate"]
        eventually(lambda: "duplicate" not in publish_once(node, "order", "x")[1])


def test_all_nodes_know_a_key(redis, start_on):
    nodes = start_on(redis, 3)
    with clients_of(nodes) as clients:
        answers = [publish_once(node, "order", "once")[1] for node in nodes]
        assert answers == [answers[0], *[answers[0] | {"duplicate": True}] * 2]
        assert received_until_now(clients, nodes[0]) == [["once"]] * 3


@pytest.mark.parametrize("path", ["@broadcast", "@groups/moon"])
@pytest.mark.parametrize("way", ["the answer is lost", "Redis stalls"])
def test_a_retry_after_a_try_in_doubt_arrives_once(redis, doubtful, start_on, way, path):
    """The caller is told 503 and Redis has the message: a retry finds it there, whichever node it comes through."""
    (other,) = start_on(redis, 1)
    (node,) = start_on(doubtful, 1)
    with clients_of([node, other]) as clients:
        for client in clients:
            assert ask(client, JOIN_MOON) == "joined moon"
        for number in range(3):
            text = f"order {number}"
            way_of_it = doubtful.lose_answer if way == "the answer is lost" else hold_up(redis.process)
            doubtful.leave_in_doubt(text, way_of_it)
            assert publish_once(node, f"key {number}", text, path)[0] == 503
            assert doubtful.marker is None
            redis.process.send_signal(signal.SIGCONT)
            retry = eventually(lambda: accepted_once(other, f"key {number}", text, path))
            assert retry["duplicate"], "it was there already"
        expected = [f"order {number}" for number in range(3)]
        assert received_until_now(clients, other, ("@broadcast", "@groups/moon")) == [expected] * 2


def test_a_retry_after_redis_was_killed_arrives_once(start_redis, start_on):
    server = start_redis(is_persistent=True)
    nodes = start_on(server, 2)
    with clients_of(nodes) as clients:
        assert publish_once(nodes[0], "taken", "taken")[0] == 200
        server.kill()
        assert publish_once(nodes[0], "taken", "taken")[0] == 503
        assert publish_once(nodes[0], "refused", "refused")[0] == 503
        assert server.start()
        for key in ("taken", "refused"):
            eventually(lambda: publish_once(nodes[1], key, key)[0] == 200)
        assert received_until_now(clients, nodes[0]) == [["taken", "refused"]] * 2


def test_a_route_may_name_a_key(start, redis, start_on):
    for node in [start(SUBMIT), *start_on(redis, 1, SUBMIT)]:
        with node.connect() as client:
            for identity, data in (("1", "one"), ("1", "one"), ("2", "two")):
                client.send(json.dumps({"action": "submit", "id": identity, "data": data}))
            assert [client.recv(timeout=10) for _ in range(2)] == ["one", "two"]
            for body in ({"data": "no key"}, {"id": "x" * 65, "data": "too long"}):
                assert '"message" : "Bad request body"' in ask(client, json.dumps({"action": "submit", **body}))
