"""What one client asks for in one piece: each request is answered once, and in its order."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster import paused
from gatecast import eventually, request
from listing import call
from wire import CLOSE, TEXT, Socket, frame

QUICK = '[limits]\nmessage_rate = 1_000_000\nnew_channels_rate = 10_000\ngroups_per_connection = 1_000\n'
JOIN, LEAVE = '{"action":"joinGroup","group":"%s"}', '{"action":"leaveGroup","group":"%s"}'
SEND, NONSENSE, QUIT = '{"action":"sendToGroup","group":"%s","data":"data"}', '{"action":"none"}', '{"action":"disconnect"}'


@pytest.fixture(params=["alone", "with Redis"])
def any_node(request, start):
    if request.param == "alone":
        return start(QUICK)
    return request.getfixturevalue("start_on")(request.getfixturevalue("redis"), 1, QUICK)[0]


@pytest.fixture
def lone(redis, start_on):
    return start_on(redis, 1, QUICK)[0]


def send(client, *texts):
    return client.send(b"".join(frame(TEXT, text.encode()) for text in texts))


def answers(client, count):
    """So many answers; what groups are sent is none."""
    got = []
    while len(got) < count:
        opcode, payload = client.receive()
        got.append(payload.decode() if opcode == TEXT else opcode)
        if got[-1] == "data":
            got.pop()
    return got


def is_refused(answer):
    return "Internal server error" in answer


def test_joins_and_leaves_in_one_piece_are_all_answered(any_node):
    pairs = [(JOIN % number, LEAVE % number) for number in range(100)]
    with Socket(any_node.address).upgrade() as client:
        send(client, *(text for pair in pairs for text in pair))
        assert answers(client, 200) == [text for number in range(100) for text in (f"joined {number}", f"left {number}")]
        send(client, *([JOIN % "moon", LEAVE % "moon"] * 100))
        assert answers(client, 200) == ["joined moon", "left moon"] * 100


def test_any_requests_in_one_piece_are_answered_in_their_order(any_node):
    chance = random.Random(7)
    for number in range(40):
        requests, expected = [], []
        for _ in range(chance.randrange(1, 80)):
            group = f"{number}-{chance.randrange(4)}"
            text, answer = chance.choice([(JOIN, "joined %s")] * 4 + [(LEAVE, "left %s")] * 3 + [(SEND, None), (NONSENSE, "Forbidden")])
            requests.append(text % group if "%s" in text else text)
            expected += [answer % group if "%s" in answer else answer] if answer else []
        is_closed = chance.random() < 0.5
        with Socket(any_node.address).upgrade() as client:
            send(client, *requests, *([QUIT] if is_closed else []))
            expected += ["bye!", CLOSE] if is_closed else []
            got = answers(client, len(expected))
            assert ["Forbidden" if "Forbidden" in str(each) else each for each in got] == expected


def test_what_waits_for_redis_is_answered_before_what_was_asked_later(redis, lone):
    with Socket(lone.address).upgrade() as client, Socket(lone.address).upgrade() as other:
        with paused(redis.process):
            send(client, JOIN % "moon", NONSENSE, LEAVE % "moon", JOIN % "mars", NONSENSE)
            got = answers(client, 3)
            assert got[0] == "joined moon" and "Forbidden" in got[1] and got[2] == "left moon"
            send(other, JOIN % "mars", JOIN % "moon", QUIT)
            assert answers(other, 4) == ["joined mars", "joined moon", "bye!", CLOSE]
        got = answers(client, 2)
        assert (got[0] == "joined mars" or is_refused(got[0])) and "Forbidden" in got[1]


def test_without_redis_joins_are_refused_before_what_was_asked_later(redis, lone):
    with Socket(lone.address).upgrade() as client:
        redis.kill()
        send(client, JOIN % "moon", NONSENSE, JOIN % "moon", LEAVE % "moon", JOIN % "mars", NONSENSE)
        got = answers(client, 6)
        assert all(each == "joined moon" or is_refused(each) for each in (got[0], got[2]))
        assert "Forbidden" in got[1] and got[3] == "left moon" and is_refused(got[4]) and "Forbidden" in got[5]


def test_callers_who_join_and_leave_at_once_are_all_answered(redis, lone):
    with Socket(lone.address).upgrade() as client, ThreadPoolExecutor(8) as threads:
        path = f"/beta/@connections/{client.connection_id()}/groups/".replace("=", "%3D")

        def ask(method, number):
            return request(lone.address, method, f"{path}{number}")[0].status

        asked = [(method, threads.submit(ask, method, number)) for number in range(50) for method in ("PUT", "DELETE")]
        assert {(method, status.result()) for method, status in asked} == {("PUT", 200), ("DELETE", 204)}
        with paused(redis.process):
            joins = [threads.submit(ask, "PUT", "late") for _ in range(3)]
            eventually(lambda: "late" in call(lone, "GET", path.removeprefix("/beta/").rstrip("/"))["groups"])
            assert ask("DELETE", "late") == 204
            assert {join.result() for join in joins} == {200}
