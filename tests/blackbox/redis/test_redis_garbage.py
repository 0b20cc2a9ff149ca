"""What answers at Redis's address is no Redis, or not any more: no node dies, hangs, grows or looks well, and it says why."""

import contextlib
import itertools
import os
import re
from pathlib import Path

import pytest

from cluster import (LONG_LEASE, SHORT_LEASE, clients_of, handshake_status, is_internal_error, metric, publish, ready,
                     refusals, warnings)
from gatecast import ask, eventually
from impostor import commands_in

MIB = 1 << 20
# Of what a connection may bring, twice while it is copied, for the connection for commands and the one for messages.
ROOM = 160 * MIB


def forever(*parts):
    return itertools.chain(parts[:-1], itertools.repeat(parts[-1]))


# What is said instead of a reply, in parts.
GARBAGE = {
    "http": lambda: [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"],
    "http_page": lambda: forever(b"HTTP/1.1 200 OK\r\n\r\n", b"<p>hello</p>" * 1000),
    "ssh": lambda: [b"SSH-2.0-OpenSSH_9.2\r\n"],
    "tls": lambda: [bytes.fromhex("15030100020246")],
    "random": lambda: forever(os.urandom(1 << 16)),
    "nulls": lambda: forever(b"\0" * (1 << 16)),
    "a_huge_string": lambda: forever(b"$9999999999\r\n", b"x" * (1 << 16)),
    "a_string_of_the_longest_length": lambda: [b"$9223372036854775807\r\n"],
    "a_string_of_no_length": lambda: [b"$x\r\nabc\r\n"],
    "a_negative_length": lambda: [b"$-7\r\n", b"*-7\r\n"],
    "a_string_that_is_longer": lambda: [b"$3\r\nabcdef\r\n"],
    "an_endless_line": lambda: forever(b"+", b"x" * (1 << 16)),
    "an_endless_error": lambda: forever(b"-ERR ", b"x" * (1 << 16)),
    "an_endless_number": lambda: forever(b":", b"1" * (1 << 16)),
    "a_huge_list": lambda: forever(b"*1000000000\r\n", b":1\r\n" * 10_000),
    "a_huge_map": lambda: [b"%4611686018427387903\r\n"],
    "a_huge_attribute": lambda: [b"|9223372036854775807\r\n"],
    "lists_in_lists": lambda: forever(b"*1\r\n" * 10_000),
    "wide_lists_in_lists": lambda: forever(b"*4000\r\n" * 1_000),
    "lists_of_lists": lambda: forever(b"*300000\r\n", b"*0\r\n" * 10_000),
    "maps_in_maps": lambda: forever(b"%1\r\n+x\r\n" * 10_000),
    "replies_without_end": lambda: forever(b"+OK\r\n" * 10_000),
    "messages_without_end": lambda: forever(b">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\nx\r\n" * 1_000),
    "confirmations_without_end": lambda: forever(b"".join(b">3\r\n+subscribe\r\n+%d\r\n:1\r\n" % number for number in range(1_000))),
    "an_empty_push": lambda: [b">0\r\n"],
    "a_push_of_no_kind": lambda: [b">2\r\n:1\r\n:2\r\n"],
    "no_utf8": lambda: [b"+\xff\xfe\r\n"],
    "a_number_that_is_none": lambda: [b":\r\n"],
    "a_truth_that_is_none": lambda: [b"#maybe\r\n"],
    "streamed": lambda: [b"$?\r\n;4\r\nabcd\r\n;0\r\n"],
    "line_ends_alone": lambda: [b"+OK\n+OK\n"],
}
# As it should be, but for what it says: nobody is asked for more than they answer.
WRONG = {
    "a_word": b"+HELLO\r\n", "a_number": b":7\r\n", "a_string": b"$3\r\nabc\r\n", "nothing": b"_\r\n", "a_list": b"*1\r\n:1\r\n",
    "a_map": b"%1\r\n+a\r\n:1\r\n", "a_truth": b"#t\r\n", "an_attribute": b"|1\r\n+a\r\n:1\r\n:1\r\n", "a_verbatim_text": b"=5\r\ntxt:x\r\n",
}
# What is broken off in the middle, or never goes on: nobody has answered, or it was only late.
SILENT = {
    "silence": lambda: [], "half_a_line": lambda: [b"+O"], "half_a_string": lambda: [b"$100\r\nabc"], "half_a_list": lambda: [b"*2\r\n:1\r\n"],
}


def resident(node):
    return int(re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{node.process.pid}/status").read_text(), re.M)[1]) << 10


def is_told_once(node, impostor):
    [line] = warnings(node, "Redis refuses what it is asked")
    assert impostor.address in line and "advice=" in line and "does not speak as Redis does" in line and "Redis is away" not in node.log()


def comes_back(node, impostor, redis):
    impostor.mend(redis.port)
    eventually(lambda: ready(node) == (200, {"status": "ready"}), within=20)
    assert metric(node, "gatecast_redis_up") == 1
    node.serves()


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_who_is_no_redis_is_none_to_start_with(impostor, redis, start, garbage):
    impostor.turn(lambda _: garbage())
    node = start(GATECAST_REDIS_URL=impostor.url, **SHORT_LEASE)
    before = resident(node)
    eventually(lambda: refusals(node, "broken") > 1)
    status, body = ready(node)
    assert status == 503 and "its reply cannot be read" in body["reason"], body
    assert handshake_status(node.address) == 503 and node.page("/live")[0] == 200 and metric(node, "gatecast_redis_up") == 0
    is_told_once(node, impostor)
    count = impostor.count
    comes_back(node, impostor, redis)
    assert resident(node) - before < ROOM and count < 200, count


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_redis_that_begins_to_say_anything_costs_no_socket(impostor, redis, start, garbage):
    node = start(GATECAST_REDIS_URL=impostor.url, **SHORT_LEASE)
    eventually(lambda: ready(node)[0] == 200)
    with clients_of([node], each=2) as (near, far):
        assert publish(node, "@broadcast", "before")[0] == 200
        assert near.recv(timeout=10) == far.recv(timeout=10) == "before"
        before = resident(node)
        impostor.turn(lambda _: garbage())
        eventually(lambda: metric(node, "gatecast_redis_up") == 0 and refusals(node, "broken") > 0)
        assert is_internal_error(ask(near, "hello"))
        assert publish(node, "@broadcast", "lost")[0] == 503
        assert node.post(near.id, b"near") == 200 and near.recv(timeout=10) == "near"
        eventually(lambda: ready(node)[0] == 503)
        assert "its reply cannot be read" in ready(node)[1]["reason"] and node.page("/live")[0] == 200
        is_told_once(node, impostor)
        comes_back(node, impostor, redis)
        assert resident(node) - before < ROOM
        eventually(lambda: publish(node, "@broadcast", "after")[0] == 200)
        assert near.recv(timeout=10) == far.recv(timeout=10) == "after"


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_answers_of_a_wrong_kind_are_not_taken_for_right_ones(impostor, redis, start, wrong):
    impostor.turn(lambda data: [wrong * commands_in(data)])
    node = start(GATECAST_REDIS_URL=impostor.url, **SHORT_LEASE)
    eventually(lambda: refusals(node, "broken") > 1)
    assert ready(node)[0] == 503 and node.page("/live")[0] == 200 and metric(node, "gatecast_redis_up") == 0
    is_told_once(node, impostor)
    comes_back(node, impostor, redis)


@pytest.mark.parametrize("ends", [False, True], ids=["waits", "ends"])
@pytest.mark.parametrize("silent", SILENT.values(), ids=SILENT)
def test_who_begins_and_does_not_go_on_is_away(impostor, redis, start, silent, ends):
    impostor.turn(lambda _: silent(), ends)
    node = start(GATECAST_REDIS_URL=impostor.url, **SHORT_LEASE)
    eventually(lambda: metric(node, "gatecast_redis_command_errors_total") > 2)
    assert ready(node)[0] == 503 and "away" in ready(node)[1]["reason"] and node.page("/live")[0] == 200
    count, errors = impostor.count, metric(node, "gatecast_redis_command_errors_total")
    comes_back(node, impostor, redis)
    assert count < 200 and errors < 500


def test_an_answer_more_than_was_asked_for_is_the_last_of_its_connection(impostor, redis, start):
    """Else each answer from then on would be taken for that to the question after."""
    node = start(GATECAST_REDIS_URL=impostor.url, **LONG_LEASE)
    eventually(lambda: ready(node)[0] == 200)
    before, broken = impostor.count, refusals(node, "broken")
    for each in list(impostor.sockets):
        with contextlib.suppress(OSError):
            if each.getsockname()[1] == impostor.listener.getsockname()[1]:
                each.sendall(b"+OK\r\n")
    eventually(lambda: refusals(node, "broken") > broken and impostor.count >= before + 2)
    eventually(lambda: metric(node, "gatecast_redis_up") == 1)
    assert publish(node, "@broadcast", "hello")[0] == 200
    assert any("nobody has asked for" in line for line in warnings(node, "Redis refuses what it is asked"))
    node.serves()
