"""What a group was sent, read back through any node."""

import base64

import pytest

from cluster import metric, publish
from gatecast import eventually, request
from listing import call, fits

STREAM = "gatecast:{group:moon}:stream"


@pytest.fixture
def nodes(redis, start_on):
    return start_on(redis, count=2)


def history(node, after=0, limit=100):
    page = call(node, "GET", f"@groups/moon/history?after={after}&limit={limit}")
    fits(node, "History", page)
    return page


def read_all(node, limit):
    after, messages = 0, []
    while after is not None:
        page = history(node, after, limit)
        assert len(page["messages"]) <= limit and page["missed"] == 0
        messages += page["messages"]
        after = page["next"]
    return messages


def test_every_message_is_read_back_in_order_as_it_was(nodes):
    assert history(nodes[0]) == {"epoch": "", "last": 0, "missed": 0, "next": None, "messages": []}
    sent = ["", "hello", '{"a": "b"}', "Grüße 🚀", "x" * 126, "y" * 100_000, *(f"message {number}" for number in range(30))]
    offsets = [publish(nodes[number % 2], "@groups/moon", text)[1] for number, text in enumerate(sent)]
    for node in nodes:
        for limit in (1, 7, 16, 17, 36, 100):
            got = read_all(node, limit)
            assert [message["data"] for message in got] == sent
            assert [message["offset"] for message in got] == offsets
            assert not any(message["isBase64Encoded"] for message in got)
    page = history(nodes[1], after=offsets[-3])
    assert [message["data"] for message in page["messages"]] == sent[-2:]
    assert (page["last"], page["next"]) == (offsets[-1], None)
    assert len(page["epoch"]) == 8
    assert history(nodes[0], after=offsets[-1] + 1000)["messages"] == []


def test_a_binary_message_is_encoded(nodes):
    data = b"\xff\x00\xfe"
    assert request(nodes[0].address, "POST", "/beta/@groups/moon", data)[0].status == 200
    [message] = history(nodes[1])["messages"]
    assert (base64.b64decode(message["data"]), message["isBase64Encoded"]) == (data, True)


def test_a_page_of_long_messages_is_cut(nodes):
    for _ in range(20):
        publish(nodes[0], "@groups/moon", "z" * 120_000)
    page = history(nodes[1])
    assert len(page["messages"]) == 9 and page["next"] == page["messages"][-1]["offset"]
    assert len(read_all(nodes[1], 100)) == 20


def test_what_redis_holds_no_more_is_said_to_be_missed(redis, nodes):
    for number in range(10):
        publish(nodes[0], "@groups/moon", f"{number}")
    assert redis.ask("XTRIM", STREAM, "MAXLEN", "=", "4") == "6"
    page = history(nodes[1], after=2)
    assert [message["data"] for message in page["messages"]] == ["6", "7", "8", "9"]
    assert (page["missed"], page["next"]) == (4, None)
    redis.ask("DEL", STREAM)
    assert history(nodes[1], after=2) == page | {"messages": [], "missed": 8}


def test_without_redis_there_is_no_history_for_now(redis, nodes):
    redis.kill()
    eventually(lambda: metric(nodes[0], "gatecast_redis_up") == 0)
    call(nodes[0], "GET", "@groups/moon/history", 503, "ServiceUnavailableException")
