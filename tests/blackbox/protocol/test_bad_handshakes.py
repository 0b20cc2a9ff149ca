"""What strangers send instead of a handshake: each gets its answer in time, and the node stays up."""

import time

import pytest

from gatecast import eventually, lasts, request
from wire import KEY, TEXT, Socket, answer, frame, handshake

TIMEOUT = 0.5


@pytest.fixture(scope="module")
def node(start_shared):
    return start_shared(f'[limits]\nhandshake_timeout = "{int(TIMEOUT * 1000)}ms"\nkeep_alive_timeout = "1s"')


@pytest.fixture(autouse=True)
def serves_on(node):
    yield
    node.serves()


@pytest.mark.parametrize("path", ["/", "/prod", "/betas", "/bet", "/beta/x", "/BETA", "/favicon.ico"])
@pytest.mark.parametrize("upgrade", ["websocket", None])
def test_another_path_is_forbidden(node, path, upgrade):
    status, headers, body = answer(node.address, handshake(path, Upgrade=upgrade))
    assert (status, headers["x-amzn-errortype"], body) == (403, "ForbiddenException", b'{"message":"Forbidden"}')
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/beta", "/beta/", "/beta?token=abc", "/beta/?a=b&c"])
def test_the_stage_is_found_with_a_slash_or_a_query(node, path):
    with Socket(node.address) as client:
        client.send(handshake(path))
        status, headers, _ = client.response(has_body=False)
    assert (status, headers["sec-websocket-accept"]) == (101, "ICX+Yqv66kxgM0FcWaLWlFLwTAI=")
    assert (headers["upgrade"].lower(), headers["connection"].lower()) == ("websocket", "upgrade")


def test_a_plain_get_needs_an_upgrade(node):
    response, _ = request(node.address, "GET", "/beta")
    assert response.status == 426
    assert response.headers["upgrade"].lower() == "websocket"


@pytest.mark.parametrize("changes", [{"Connection": "keep-alive"}, {"Upgrade": "h2c"}, {"Connection": None}])
def test_half_an_upgrade_needs_a_whole_one(node, changes):
    assert answer(node.address, handshake(**changes))[0] == 426


@pytest.mark.parametrize("version", ["8", "12", "14", "thirteen", "", None])
def test_another_version_needs_version_13(node, version):
    status, headers, _ = answer(node.address, handshake(Sec_WebSocket_Version=version))
    assert (status, headers["sec-websocket-version"]) == (426, "13")


@pytest.mark.parametrize("key", [None, "", "short", KEY[:-4], KEY + "AAAA", "!" * 22 + "=="])
def test_a_bad_key_is_a_bad_request(node, key):
    assert answer(node.address, handshake(Sec_WebSocket_Key=key))[0] == 400


def test_header_names_and_tokens_may_be_in_any_case(node):
    data = handshake(Connection="keep-alive, UPGRADE", Upgrade="WebSocket").replace(b"Sec-WebSocket", b"SEC-WEBSOCKET")
    with Socket(node.address) as client:
        assert client.send(data).response(has_body=False)[0] == 101


def in_pieces(client, data):
    """Sends a head so that a server that reads what has come sees that there is more to come."""
    client.send(data[:40])
    lasts(0.05)
    return client.send(data[40:])


REFUSED = {
    "path": handshake("/prod"),
    "path and query": handshake("/prod?a=b"),
    "upgrade": handshake(Upgrade="h2c"),
    "version": handshake(Sec_WebSocket_Version="12"),
    "key": handshake(Sec_WebSocket_Key="short"),
    "management": handshake("/beta/@connections/L0SM9cOFvHcCIhw="),
    "body": handshake(Sec_WebSocket_Key="short", Content_Length="0"),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_a_refusal_does_not_depend_on_how_the_handshake_comes(node, data):
    answers = []
    for send in (Socket.send, in_pieces):
        with Socket(node.address) as client:
            status, headers, body = send(client, data).response()
            assert status >= 400
            changing = {"date", "x-amzn-requestid", "x-amz-apigw-id", "x-amzn-trace-id"}
            answers.append((status, {name: headers[name] for name in headers.keys() - changing}, body))
            # HTTP goes on: the connection is still there for a better handshake.
            assert send(client, handshake()).response(has_body=False)[0] == 101
            client.send(frame(TEXT, b'{"action":"no such action"}'))
            assert b"Forbidden" in client.receive()[1]
    assert answers[0] == answers[1]


def test_a_second_handshake_right_behind_a_refused_one_is_answered(node):
    with Socket(node.address) as client:
        client.send(handshake("/prod") + handshake() + frame(TEXT, b'{"action":"no such action"}'))
        assert client.response()[0] == 403
        assert client.response(has_body=False)[0] == 101
        assert b"Forbidden" in client.receive()[1]


def test_a_connection_that_was_opened_ahead_is_served(start):
    """Some load balancers connect before they have anything to send."""
    node = start("")
    with Socket(node.address) as client:
        eventually(lambda: node.metric("gatecast_http_connections_accepted_total", port="public") == 1)
        assert client.send(handshake()).response(has_body=False)[0] == 101


GARBAGE = {
    "no HTTP at all": b"hello, is it me you're looking for?\r\n\r\n",
    "zeros": bytes(64) + b"\r\n\r\n",
    "a TLS greeting": bytes.fromhex("1603010200010001fc0303") + bytes(range(64)),
    "a method of brackets": b"[] / HTTP/1.1\r\n\r\n",
    "a header without a colon": b"GET /beta HTTP/1.1\r\nHost localhost\r\n\r\n",
    "a header name with a space": b"GET /beta HTTP/1.1\r\nHo st: localhost\r\n\r\n",
    "a header value with a zero": b"GET /beta HTTP/1.1\r\nHost: local\0host\r\n\r\n",
    "a version that is none": b"GET /beta HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "two lengths that differ": b"POST /beta HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length that is no number": b"POST /beta HTTP/1.1\r\nHost: x\r\nContent-Length: two\r\n\r\nab",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_a_bad_request_and_the_end(node, data):
    with Socket(node.address) as client:
        client.send(data)
        assert client.response()[0] == 400
        assert client.is_ended_by_server()


HEADS = {
    "a header of 20 KiB": (handshake(X_Large="x" * 20_000), {431}),
    "a header of 1 MiB": (handshake(X_Large="x" * (1 << 20)), {431}),
    "200 headers": (handshake(**{f"X_{number}": "x" for number in range(200)}), {431}),
    "a path of 20 KiB": (handshake("/beta?" + "x" * 20_000), {414, 431}),
}


@pytest.mark.parametrize("data, statuses", HEADS.values(), ids=HEADS)
def test_an_oversized_head_is_refused(node, data, statuses):
    with Socket(node.address) as client:
        try:
            client.send(data)
        except OSError:
            pass  # The answer may come before we have said all.
        assert client.response()[0] in statuses


def test_a_head_of_10_kib_passes(node):
    with Socket(node.address) as client:
        assert client.send(handshake(X_Large="x" * 10_240)).response(has_body=False)[0] == 101


@pytest.mark.parametrize("port", ["address", "admin_address"])
def test_a_client_that_says_nothing_is_closed_in_time(node, port):
    began = time.monotonic()
    with Socket(getattr(node, port)) as client:
        assert client.is_ended_by_server()
    assert TIMEOUT * 0.9 < time.monotonic() - began < 5


def test_a_client_that_stops_in_the_middle_is_closed_in_time(node):
    began = time.monotonic()
    with Socket(node.address) as client:
        client.send(handshake()[:-2])
        assert client.is_ended_by_server()
    assert TIMEOUT * 0.9 < time.monotonic() - began < 5


def test_a_handshake_of_a_byte_at_a_time_is_closed_in_time(node):
    data = handshake(X_Padding="x" * 400)
    with Socket(node.address) as client:
        took, got = client.dribble(data, every=0.02)
    assert took < 5
    assert b"101" not in got


def test_a_body_that_never_comes_does_not_hold_a_connection_for_ever(node):
    with Socket(node.address) as client:
        client.send(b"POST /beta/@connections/L0SM9cOFvHcCIhw= HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        assert client.is_ended_by_server()


def test_a_kept_alive_connection_without_a_request_is_closed_in_time(node):
    with Socket(node.address) as client:
        client.send(b"GET /beta HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.response()[0] == 426
        assert client.is_ended_by_server()


def test_many_silent_strangers_do_not_keep_others_out(start):
    node = start('[limits]\nhandshake_timeout = "300ms"\nmax_http_connections = 8')
    strangers = [Socket(node.address) for _ in range(64)]
    node.serves()
    for stranger in strangers:
        stranger.raw.close()


def test_silent_strangers_on_the_public_port_do_not_keep_probes_out_of_the_admin_port(start):
    node = start('[limits]\nhandshake_timeout = "8s"\nmax_http_connections = 8')
    strangers = [Socket(node.address) for _ in range(16)]
    for _ in range(10):
        began = time.monotonic()
        assert node.page("/live")[0] == 200
        assert time.monotonic() - began < 2, "a prober would have killed the node"
    for stranger in strangers:
        stranger.raw.close()


def test_more_clients_than_allowed_are_told_503(start):
    node = start("limits.max_connections = 2")
    with node.connect(), node.connect() as second:
        status, headers, _ = answer(node.address, handshake())
        assert (status, headers["retry-after"].isdigit()) == (503, True)
        second.close()
        eventually(lambda: node.metric("gatecast_connections") == 1)
        with node.connect():
            assert node.metric("gatecast_handshakes_rejected_total", reason="capacity") == 1


def test_refusals_are_counted_by_reason(start):
    node = start('auth.allowed_origins = ["https://good.example"]')
    assert answer(node.address, handshake("/prod"))[0] == 403
    assert answer(node.address, handshake(Sec_WebSocket_Key=None))[0] == 400
    assert answer(node.address, handshake(Origin="https://evil.example"))[0] == 403
    with Socket(node.address).upgrade(Origin="https://good.example"):
        counts = {s.labels["reason"]: s.value for s in node.samples() if s.name == "gatecast_handshakes_rejected_total"}
    assert counts == {"path": 1, "malformed": 1, "origin": 1, "connect": 0, "capacity": 0, "draining": 0, "unavailable": 0,
                      "rate": 0, "address_rate": 0, "address_connections": 0, "not_local": 0, "user": 0,
                      "memory": 0, "redis_refused": 0}
