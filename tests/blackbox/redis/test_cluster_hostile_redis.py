"""Others write into the same Redis: what is not a node's is an error of its channel alone, and never reaches a socket."""

import json
import struct
import threading

import pytest

from cluster import clients_of, is_internal_error, metric, publish
from crowd import crowd_of, hear, say
from gatecast import ask, eventually

STREAM, META = "gatecast:{group:moon}:stream", "gatecast:{group:moon}:meta"
JOIN = '{"action":"joinGroup","group":"%s"}'
# Ways to spoil a channel of which nothing is known yet, as Redis is told them.
SPOILT = {
    "meta_is_text": [("SET", META, "x")],
    "meta_is_a_list": [("RPUSH", META, "x")],
    "offset_is_text": [("HSET", META, "epoch", "deadbeef", "offset", "many")],
    "offset_is_missing": [("HSET", META, "epoch", "deadbeef")],
    "offset_is_huge": [("HSET", META, "epoch", "deadbeef", "offset", "9" * 30)],
    "offset_is_negative": [("HSET", META, "epoch", "deadbeef", "offset", "-7")],
    "epoch_is_long": [("HSET", META, "epoch", "e" * 100_000, "offset", "3")],
    "epoch_has_spaces": [("HSET", META, "epoch", "a b c d ", "offset", "3")],
    "epochs_are_long": [("HSET", META, "epoch", "deadbeef", "offset", "3", "epochs", "e@1 " * 5_000)],
}


@pytest.fixture
def nodes(redis, start_on):
    return start_on(redis, 2)


def others_go_on(nodes, clients):
    for client in clients:
        assert ask(client, JOIN % "sun") == "joined sun"
    for node in nodes:
        assert publish(node, "@groups/sun", "hello")[0] == 200
        assert [client.recv(timeout=10) for client in clients] == ["hello"] * len(clients)


@pytest.mark.parametrize("commands", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_channel_is_an_error_of_its_own_and_heals(redis, nodes, commands):
    for words in commands:
        redis.ask(*words)
    with clients_of(nodes) as clients:
        assert is_internal_error(ask(clients[0], JOIN % "moon")), "answered"
        assert publish(nodes[1], "@groups/moon", "x")[0] == 503
        assert is_internal_error(ask(clients[1], '{"action":"sendToGroup","group":"moon","data":"x"}'))
        assert all(metric(node, "gatecast_redis_command_errors_total") > 0 for node in nodes)
        others_go_on(nodes, clients)
        redis.ask("DEL", META, STREAM)
        for client in clients:
            eventually(lambda: ask(client, JOIN % "moon") == "joined moon")
        assert publish(nodes[0], "@groups/moon", "well again") == (200, 1)
        assert [client.recv(timeout=10) for client in clients] == ["well again"] * 2


# What is in the way of a message: found before, or only while it is added.
SPOILT_FOR_SENDING = {"meta": ("SET", META, "x"), "a_later_entry": ("XADD", STREAM, "999-0", "f", "x"), "stream": ("SET", STREAM, "x")}


@pytest.mark.parametrize("on_outage", ["buffer", "local"])
@pytest.mark.parametrize("words", SPOILT_FOR_SENDING.values(), ids=SPOILT_FOR_SENDING)
def test_a_spoilt_channel_is_no_outage(redis, start_on, on_outage, words):
    """It is refused at once, and neither waits nor stays on this node; all others go on."""
    nodes = start_on(redis, 2, GATECAST_REDIS_ON_OUTAGE=on_outage, GATECAST_REDIS_BUFFER_AGE="60s")
    with clients_of(nodes) as clients:
        assert [ask(client, JOIN % "moon") for client in clients] == ["joined moon"] * 2
        assert publish(nodes[0], "@groups/moon", "before") == (200, 1)
        assert [client.recv(timeout=10) for client in clients] == ["before"] * 2
        redis.ask("DEL", words[1])
        redis.ask(*words)
        for _ in range(3):
            assert publish(nodes[0], "@groups/moon", "refused")[0] == 503
            assert is_internal_error(ask(clients[0], '{"action":"sendToGroup","group":"moon","data":"x"}'))
            others_go_on(nodes, clients)
        assert metric(nodes[0], "gatecast_redis_refusals_total", **{"class": "wrongtype"}) >= 6
        assert metric(nodes[0], "gatecast_messages_published_local_total") == 0
        assert metric(nodes[0], "gatecast_redis_up") == 1
        redis.ask("DEL", META, STREAM)
        assert publish(nodes[0], "@groups/moon", "after")[0] == 200
        assert [client.recv(timeout=10) for client in clients] == ["after"] * 2


def test_a_channel_that_is_spoilt_while_it_is_used_is_confined_too(redis, nodes):
    with clients_of(nodes) as clients:
        assert [ask(client, JOIN % "moon") for client in clients] == ["joined moon"] * 2
        assert publish(nodes[0], "@groups/moon", "before") == (200, 1)
        assert [client.recv(timeout=10) for client in clients] == ["before"] * 2
        redis.ask("SET", META, "x")
        redis.ask("SET", STREAM, "x")
        assert redis.cut_subscribers() >= 2
        assert publish(nodes[0], "@groups/moon", "refused")[0] == 503
        eventually(lambda: len(redis.ask("CLIENT", "LIST", "TYPE", "pubsub").splitlines()) >= 2)
        others_go_on(nodes, clients)
        redis.ask("DEL", META)
        eventually(lambda: publish(nodes[1], "@groups/moon", "after")[0] == 200)
        assert [client.recv(timeout=10) for client in clients] == ["after"] * 2


def frame(opcode, payload, first=0x80, mask=0):
    """A frame as bytes, right or wrong."""
    length = len(payload)
    head = struct.pack("!B", length | mask) if length < 126 else struct.pack("!BH", 126 | mask, length)
    return bytes([first | opcode]) + head + payload


GARBAGE = {
    "empty": b"", "half_a_header": b"\x81", "shorter_than_it_says": b"\x81\x05abc", "longer_than_it_says": b"\x81\x01abc",
    "masked": frame(1, b"\0\0\0\0abc", mask=0x80), "close": frame(8, b"\x03\xe8"), "ping": frame(9, b"x"), "pong": frame(10, b"x"),
    "a_fragment": frame(1, b"x", first=0), "continuation": frame(0, b"x"), "reserved_bit": frame(1, b"x", first=0xC0),
    "reserved_opcode": frame(3, b"x"), "not_utf8": frame(1, b"\xff\xfe"), "long_form_of_a_short_length": b"\x81\x7e\x00\x01x",
    "two_frames": frame(1, b"a") + frame(1, b"b"), "too_long": b"\x81\x7f" + struct.pack("!Q", 300_000) + b"x" * 300_000,
    "http": b"HTTP/1.1 200 OK\r\n\r\n",
}


def ask_raw(redis, *words):
    """As `ask`, for words that are no text."""
    import socket

    with socket.create_connection(("127.0.0.1", redis.port), timeout=10) as raw:
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        raw.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        answer = raw.recv(4096)
        assert not answer.startswith(b"-"), answer
        return answer


def test_what_others_publish_is_dropped_and_counted(redis, nodes):
    with clients_of(nodes) as clients:
        assert [ask(client, JOIN % "moon") for client in clients] == ["joined moon"] * 2
        assert publish(nodes[0], "@groups/moon", "first") == (200, 1)
        assert [client.recv(timeout=10) for client in clients] == ["first"] * 2
        epoch = redis.ask("HGET", META, "epoch")
        payloads = [f"{epoch} 2 ".encode() + garbage for garbage in GARBAGE.values()]
        payloads += [b"", b" ", b"x", b"- 0 ", b"  " + frame(1, b"x"), b"- -1 " + frame(1, b"x"), b"\xff\xff 2 " + frame(1, b"x"),
                     b"e" * 1000 + b" 2 " + frame(1, b"x"), epoch.encode() + b" 99999999999999999999999 " + frame(1, b"x")]
        for channel in ("gatecast:{group:moon}", "gatecast:{all}"):
            for payload in payloads:
                ask_raw(redis, "PUBLISH", channel, payload)
        for node in nodes:
            eventually(lambda: metric(node, "gatecast_redis_foreign_total", kind="message") == 2 * len(payloads))
        # A place that nobody has counted to is looked for once, and the stream knows better.
        for offset in (7, 2**63, 2**64 - 1):
            ask_raw(redis, "PUBLISH", "gatecast:{group:moon}", f"{epoch} {offset} ".encode() + frame(1, b"forged"))
        ask_raw(redis, "PUBLISH", "gatecast:{group:moon}", b"deadbeef 5 " + frame(1, b"forged"))
        for number in range(2, 5):
            assert publish(nodes[number % 2], "@groups/moon", f"{number}") == (200, number)
            assert [client.recv(timeout=10) for client in clients] == [f"{number}"] * 2
        others_go_on(nodes, clients)


def test_what_others_write_into_a_stream_is_lost_and_counted(redis, nodes):
    with clients_of(nodes) as clients:
        assert [ask(client, JOIN % "moon") for client in clients] == ["joined moon"] * 2
        assert publish(nodes[0], "@groups/moon", "first") == (200, 1)
        assert [client.recv(timeout=10) for client in clients] == ["first"] * 2
        number = 2
        for garbage in GARBAGE.values():
            ask_raw(redis, "XADD", STREAM, f"{number}-0", "f", garbage)
            number += 1
        for fields in (("other", "x"), ("f", frame(1, b"x"), "g", "x"), ("f", b"x" * 5_000_000)):
            ask_raw(redis, "XADD", STREAM, f"{number}-0", *fields)
            ask_raw(redis, "XADD", STREAM, f"{number}-5", *fields)
            number += 1
        redis.ask("HSET", META, "offset", str(number - 1))
        assert publish(nodes[0], "@groups/moon", "last") == (200, number)
        assert [client.recv(timeout=10) for client in clients] == ["last"] * 2
        for node in nodes:
            assert metric(node, "gatecast_messages_lost_total") == number - 2
            assert metric(node, "gatecast_redis_foreign_total", kind="entry") >= number - 2
        assert ask(clients[0], JOIN % "sun") == "joined sun"


def test_a_join_beside_a_big_channel_reads_nothing_of_it(redis, start_on):
    nodes = start_on(redis, 2)
    body = "x" * 128_000
    for group in range(8):
        for _ in range(16):
            assert publish(nodes[0], f"@groups/big-{group}", body)[0] == 200
    redis.ask("CONFIG", "RESETSTAT")
    with crowd_of(nodes, 8) as clients:
        for number, client in enumerate(clients):
            say(client, JOIN % f"big-{number % 8}", JOIN % f"small-{number}")
        for client in clients:
            assert sorted(text[7:10] for text in hear(client, 2)) == ["big", "sma"]
    stats = redis.ask("INFO", "stats")
    sent = int(next(line.split(":")[1] for line in stats.splitlines() if line.startswith("total_net_output_bytes:")))
    assert sent < 1_000_000, "what the channels hold, 16 MB, is not read"
    assert "cmdstat_xrange" not in redis.ask("INFO", "commandstats")


def test_a_big_repair_is_read_in_pages_and_joins_do_not_wait_for_it(redis, start_on):
    nodes = start_on(redis, 2)
    with clients_of(nodes) as clients:
        assert ask(clients[1], JOIN % "big") == "joined big"
        seen = []

        def publish_all():
            for number in range(60):
                assert publish(nodes[0], "@groups/big", f"{number} " + "x" * 100_000)[0] == 200
                if number % 10 == 5:
                    redis.cut_subscribers()

        thread = threading.Thread(target=publish_all)
        thread.start()
        joined = ask(clients[0], JOIN % "small")
        while len(seen) < 60:
            seen.append(int(clients[1].recv(timeout=20).split()[0]))
        thread.join()
        assert seen == list(range(60))
        # While a subscription ends, a join may be refused, but it is answered.
        assert joined == "joined small" or is_internal_error(joined)


def letter(head, frame=b""):
    return struct.pack("!II", len(head), len(frame)) + head + frame


def test_letters_that_no_node_has_written_are_dropped_and_counted(redis, nodes):
    with clients_of(nodes) as clients:
        own = next(name for name in redis.ask("PUBSUB", "CHANNELS", "gatecast:{node:*").splitlines()
                   if clients[0].id in json.dumps(redis.ask("HKEYS", f"{name}:connections")))
        asked = lambda operation: json.dumps({"Request": {"from": "AAAA", "call": 1, "operation": operation, "id": clients[0].id}}).encode()
        letters = [b"x", b"\0" * 8 + b"x", struct.pack("!II", 2**32 - 1, 2**32 - 1), letter(b""), letter(b"[" * 5_000), letter(b"{}"),
                   letter(b"\xff" * 100), letter(asked("Nothing")), letter(asked({"Join": "a\nb"})), letter(asked({"Join": "x" * 1_000})),
                   letter(asked("Post").replace(clients[0].id.encode(), b"nobody"), frame(1, b"x"))]
        letters += [letter(asked("Post"), garbage) for garbage in GARBAGE.values()]
        for each in letters:
            ask_raw(redis, "PUBLISH", own, each)
        eventually(lambda: metric(nodes[0], "gatecast_redis_foreign_total", kind="letter") >= len(letters))
        assert nodes[1].post(clients[0].id, b"from another node") == 200
        assert clients[0].recv(timeout=10) == "from another node", "and nothing before it"
