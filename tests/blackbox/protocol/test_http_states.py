"""Every state of an HTTP connection has a deadline, and when all places are taken whoever does nothing gives way: the public port
and the admin port serve others, whatever a few hold."""

import contextlib
import json
import socket
import time

import pytest

from gatecast import eventually, request
from wire import Socket

PORTS = ["address", "admin_address"]
SHORT = '[limits]\nhandshake_timeout = "400ms"\nkeep_alive_timeout = "1s"'
# Long deadlines: what is served meanwhile is served because somebody gave way.
EIGHT = '[limits]\nmax_http_connections = 8\nhandshake_timeout = "60s"\nkeep_alive_timeout = "1h"'
POST = b"POST /beta/@broadcast HTTP/1.1\r\nHost: localhost\r\n"


def get(path="/x", host="localhost"):
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def short(start_shared):
    return start_shared(SHORT)


def cut(node, state, cause):
    return node.metric("gatecast_http_connections_cut_total", state=state, cause=cause)


# The deadlines


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("half", [b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n", get()[:-1], b"\r\n\r\n"], ids=repr)
def test_half_a_head_is_told_that_its_time_is_up(short, port, half):
    before = cut(short, "head", "timeout")
    with Socket(getattr(short, port)) as client:
        said = client.send(half).rest(5)
    assert said.startswith(b"HTTP/1.1 408 ") and b'"message"' in said
    assert cut(short, "head", "timeout") == before + 1


@pytest.mark.parametrize("port", PORTS)
def test_a_trickle_does_not_restart_the_time_of_a_head(short, port):
    with Socket(getattr(short, port)) as client:
        took, said = client.dribble(b"GET / HTTP/1.1\r\nX: " + b"x" * 400, every=0.05)
    assert took < 5 and b" 200 " not in said


def test_a_trickle_behind_an_answer_does_not_either(short):
    with Socket(short.admin_address) as client:
        assert client.send(get("/live")).response()[0] == 200
        took, _ = client.dribble(b"GET / HTTP/1.1\r\nX: " + b"x" * 400, every=0.05)
    assert took < 5


BODIES = {
    "none of it": b"Content-Length: 5\r\n\r\n",
    "half of it": b"Content-Length: 5\r\n\r\nhe",
    "half a chunk": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
    "half a chunk's length": b"Transfer-Encoding: chunked\r\n\r\n5",
    "no last chunk": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "half a trailer": b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y",
    "none of it, after asking": b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_half_a_body_is_told_that_its_time_is_up(short, body):
    before = cut(short, "body", "timeout")
    with Socket(short.address) as client:
        said = client.send(POST + body).rest(5)
    assert b"HTTP/1.1 408 " in said and b"connection: close" in said
    assert cut(short, "body", "timeout") == before + 1


@pytest.mark.parametrize("piece", [b"1\r\nx\r\n", b"1;" + b"e" * 100 + b"\r\nx\r\n"], ids=["chunks", "extensions"])
def test_a_body_without_end_ends(short, piece):
    with Socket(short.address) as client:
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        took, said = client.dribble(piece * 2_000, every=0.01)
    assert took < 5
    assert b" 408 " in said or b" 400 " in said


def test_trailers_without_end_end(short):
    with Socket(short.address) as client:
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        with contextlib.suppress(OSError):
            for number in range(20_000):
                client.send(b"X-%d: y\r\n" % number)
        client.rest(5)


@pytest.mark.parametrize("port", PORTS)
def test_an_answer_that_is_not_taken_is_not_kept(start, port):
    node = start(SHORT)
    with Socket(getattr(node, port), receive_buffer=2_048) as client:
        client.raw.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while True:
                client.send(get("/openapi.json" if port == "admin_address" else "/beta/@openapi") * 50)
        eventually(lambda: cut(node, "answer", "timeout") == 1)
    node.serves()


def test_an_idle_connection_is_kept_for_as_long_as_it_was_told(start):
    node = start('[limits]\nhandshake_timeout = "100ms"\nkeep_alive_timeout = "2s"')
    with Socket(node.admin_address) as client:
        headers = client.send(get("/live")).response()[1]
        assert (headers["keep-alive"], headers["connection"]) == ("timeout=2", "keep-alive")
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            client.raw.settimeout(1.5)
            client.raw.recv(1)
        client.raw.settimeout(10)
        assert client.send(get("/live")).response()[0] == 200, "longer than a head may take"
        assert client.rest(10) == b""
        assert time.monotonic() - began > 3
    assert cut(node, "idle", "timeout") == 1


def test_by_default_it_is_kept_longer_than_load_balancers_keep_theirs(node):
    with Socket(node.address) as client:
        assert client.send(get()).response()[1]["keep-alive"] == "timeout=75"


def test_a_last_answer_says_so(short):
    for data in (b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"GET /live HTTP/1.0\r\n\r\n"):
        with Socket(short.admin_address) as client:
            _, headers, _ = client.send(data).response()
            assert "keep-alive" not in headers
            assert client.rest(5) == b""


# Half-closed connections, and what comes behind


@pytest.mark.parametrize("port", PORTS)
def test_who_has_said_everything_is_answered(short, port):
    with Socket(getattr(short, port)) as client:
        client.send(get("/beta/@counts"))
        client.raw.shutdown(socket.SHUT_WR)
        assert client.response()[0] == 200
        assert client.rest(5) == b""


def test_who_stops_in_the_middle_of_a_body_is_told(short):
    with Socket(short.address) as client:
        client.send(POST + b"Content-Length: 5\r\n\r\nhe")
        client.raw.shutdown(socket.SHUT_WR)
        assert client.response()[0] == 400


def test_pipelined_requests_are_answered_in_order(short):
    paths = ["/live", "/nothing", "/ready", "/beta/@counts"] * 25
    with Socket(short.admin_address) as client:
        client.send(b"".join(map(get, paths)))
        assert [client.response()[0] for _ in paths] == [200, 404, 200, 200] * 25


def test_an_answer_comes_before_what_is_wrong_behind_it(short):
    with Socket(short.admin_address) as client:
        client.send(get("/live") + b"\x16\x03\x01 this is no request\r\n\r\n")
        assert client.response()[0] == 200
        status, headers, body = client.response()
        assert (status, headers["connection"]) == (400, "close")
        assert "HTTP" in json.loads(body)["message"]
        assert client.rest(5) == b""


# Those who wait come in


def half_heads(node, port, count):
    return [Socket(getattr(node, port)).send(b"GET / HTTP/1.1\r\nHost: localhost\r\n") for _ in range(count)]


def ask_until_full(client):
    """Sends requests until the kernel takes no more, or the connection is cut; returns whether it took any."""
    took = False
    with contextlib.suppress(OSError):
        while client.raw.send(get("/beta/@openapi") * 50):
            took = True
    return took


def never_readers(node, port, count):
    """Clients whose answers are stuck: the node has gone on meanwhile, and has read no more of their requests."""
    clients = []
    for _ in range(count):
        client = Socket(getattr(node, port), receive_buffer=2_048)
        # Otherwise the kernel takes megabytes of each.
        client.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2_048)
        client.raw.setblocking(False)
        ask_until_full(client)
        clients.append(client)
    # The other port has places of its own.
    other = getattr(node, PORTS[port == PORTS[0]])
    took = True
    while took:
        for _ in range(5):
            assert request(other, "GET", "/beta/@counts")[0].status == 200
        took = any([ask_until_full(client) for client in clients])
    return clients


def half_bodies(node, port, count):
    return [Socket(getattr(node, port)).send(POST + b"Content-Length: 5\r\n\r\nhe") for _ in range(count)]


def idlers(node, port, count):
    clients = []
    for _ in range(count):
        clients.append(Socket(getattr(node, port)))
        assert clients[-1].send(get("/beta/@counts")).response()[0] == 200
    return clients


HOLDERS = {"head": half_heads, "answer": never_readers, "body": half_bodies, "idle": idlers}


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_whoever_holds_a_place_for_nothing_gives_way(start, port, hold):
    """Their deadlines are a minute and an hour; nobody may have to wait for those."""
    node = start(EIGHT)
    # Those who come when others wait already may get an answer that is their last, and leave on their own.
    held = hold(node, port, 8) + hold(node, port, 12)
    if port == "address":
        for _ in range(3):
            node.serves()
    assert request(getattr(node, port), "GET", "/beta/@counts")[0].status == 200
    for _ in range(3):
        assert node.page("/live")[0] == 200
    cuts = sum(cut(node, state, "crowded") for state in ("head", "body", "answer", "idle"))
    assert cuts > 0 and sum(cut(node, state, "timeout") for state in ("head", "body", "answer", "idle")) == 0
    for client in held:
        client.raw.close()


@pytest.mark.parametrize("hold", [half_heads, never_readers, idlers])
def test_1100_holders_do_not_keep_others_out_at_the_default_bounds(start, hold):
    node = start()
    held = hold(node, "address", 1_100)
    began = time.monotonic()
    node.serves()
    assert node.page("/ready")[0] == 200
    assert time.monotonic() - began < 8, "less than any deadline"
    for client in held:
        client.raw.close()


def test_pooled_connections_give_way_to_handshakes_and_are_told(start):
    """A pool of 8 that is always in use, where 8 places are all there are."""
    node = start(EIGHT)
    pool = idlers(node, "address", 8)
    for number in range(8):
        node.serves()
        client = pool[number]
        with contextlib.suppress(OSError, EOFError):
            client.send(get("/beta/@counts")).response()
    for client in pool:
        client.raw.close()


def test_a_connection_that_others_wait_for_is_told_that_its_answer_was_the_last(start):
    node = start('[limits]\nmax_http_connections = 1\nhandshake_timeout = "60s"')
    with Socket(node.address) as first:
        first.send(POST + b"Content-Length: 5\r\n\r\nhell")
        second = Socket(node.address).send(get("/beta/@counts"))
        # Before its second is over, while the other waits.
        eventually(lambda: node.metric("gatecast_http_connections_accepted_total", port="public") == 2)
        first.send(b"o")
        status, headers, _ = first.response()
        assert status == 200
        assert headers["connection"] == "close"
        assert second.response()[0] == 200
        second.raw.close()


def test_a_node_that_drains_says_that_answers_are_the_last(start):
    node = start('[drain]\nnotice = "5s"')
    with Socket(node.address) as client:
        assert client.send(get("/beta/@counts")).response()[1]["connection"] == "keep-alive"
        node.is_ended_by_test = True
        node.signal(15)
        eventually(lambda: node.page("/ready")[0] == 503)
        client.send(get("/beta/@counts") * 2)
        status, headers, _ = client.response()
        assert (status, headers["connection"]) == (200, "close")
        assert client.rest(5) == b""
        node.signal(15)
