"""The PROXY protocol as a node meets it: good headers in any pieces, bad ones, slow ones, and none."""

import struct
import time
from contextlib import ExitStack

import pytest

from edge import CLIENT, PROXY_PROTOCOL, source_ip
from gatecast import eventually
from wire import TEXT, Socket, frame, handshake

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes([203, 0, 113, 9, 10, 0, 0, 1]) + struct.pack("!HH", 4711, 443)
V6 = bytes.fromhex("20010db8000000000000000000000009" "20010db8000000000000000000000001") + struct.pack("!HH", 4711, 443)


def v2(block, command=0x21, family=0x11, length=None):
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(block) if length is None else length) + block


GOOD = {
    "v1": (b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n", "203.0.113.9"),
    "v1-ipv6": (b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n", "2001:db8::9"),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v1-longest": (b"PROXY UNKNOWN " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n", "127.0.0.1"),
    "v2": (v2(V4), "203.0.113.9"),
    "v2-ipv6": (v2(V6, family=0x21), "2001:db8::9"),
    "v2-local": (v2(b"", command=0x20, family=0), "127.0.0.1"),
    "v2-local-with-addresses": (v2(V4, command=0x20), "127.0.0.1"),
    "v2-unspecified": (v2(b"", family=0), "127.0.0.1"),
    "v2-extras": (v2(V4 + b"\x04" + struct.pack("!H", 500) + bytes(500)), "203.0.113.9"),
}
MALFORMED = {
    "none": handshake(),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "v1-lower-case": b"proxy TCP4 203.0.113.9 10.0.0.1 4711 443\r\n",
    "v1-other-protocol": b"PROXY UDP4 203.0.113.9 10.0.0.1 4711 443\r\n",
    "v1-address": b"PROXY TCP4 203.0.113.256 10.0.0.1 4711 443\r\n",
    "v1-family": b"PROXY TCP6 203.0.113.9 10.0.0.1 4711 443\r\n",
    "v1-port": b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 443\r\n",
    "v1-missing": b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
    "v1-line-end": b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\n",
    "v1-bytes": b"PROXY TCP4 \xff\x00 10.0.0.1 4711 443\r\n",
    "v1-too-long": b"PROXY UNKNOWN " + b"x" * 93,
    "v2-version": v2(V4, command=0x11),
    "v2-command": v2(V4, command=0x2F),
    "v2-family": v2(V4, family=0x51),
    "v2-short": v2(V4[:11]),
    "v2-family-and-length": v2(V4, family=0x21),
    "v2-too-long": v2(V4, length=0xFFFF),
}
INCOMPLETE = {name: header[:-1] for name, (header, _) in GOOD.items()} | {"nothing": b""}


@pytest.fixture(scope="module")
def node(start_shared):
    return start_shared(**PROXY_PROTOCOL)


@pytest.fixture(autouse=True)
def node_goes_on(node):
    yield
    with Socket(node.address) as sound:
        assert sound.send(GOOD["v1"][0]).upgrade().connection_id()


def refused(node):
    return {s.labels["reason"]: s.value for s in node.samples() if s.name == "gatecast_proxy_headers_refused_total"}


def is_counted(node, before, reason):
    eventually(lambda: refused(node)[reason] == before[reason] + 1)
    assert {**refused(node), reason: 0} == {**before, reason: 0}
    return True


@pytest.mark.parametrize("name", GOOD)
def test_a_good_header_names_the_client_and_no_byte_behind_it_is_lost(node, name):
    header, expected = GOOD[name]
    early = frame(TEXT, b"first") + frame(TEXT, b"second")
    with Socket(node.address) as client:
        # Header, handshake and messages in one piece.
        client.send(header + handshake() + early)
        assert client.response(has_body=False)[0] == 101
        assert [client.receive()[1] for _ in range(2)] == [b"first", b"second"]
        assert source_ip(node, client.connection_id()) == expected


@pytest.mark.parametrize("name", ["v1", "v1-longest", "v2", "v2-local"])
def test_a_header_may_come_a_byte_at_a_time(node, name):
    header, expected = GOOD[name]
    with Socket(node.address) as client:
        for byte in header:
            client.send(bytes([byte]))
        assert source_ip(node, client.upgrade().connection_id()) == expected


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_header_and_handshake_in_any_two_pieces_are_answered_all_at_once(start, name):
    node = start(**PROXY_PROTOCOL, GATECAST_LIMITS_HANDSHAKE_RATE_PER_ADDRESS="off")
    header, expected = GOOD[name]
    data = header + handshake()
    with ExitStack() as stack:
        clients = [stack.enter_context(Socket(node.address)) for _ in data[1:]]
        for pieces in (lambda at: data[:at], lambda at: data[at:]):
            for at, client in enumerate(clients, 1):
                client.send(pieces(at))
        for client in clients:
            assert client.response(has_body=False)[0] == 101
        assert source_ip(node, clients[-1].connection_id()) == expected


def test_requests_on_a_connection_have_one_header_for_all(node):
    with Socket(node.address) as caller:
        caller.send(GOOD["v2"][0])
        for _ in range(3):
            caller.send(b"POST /beta/@broadcast HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nhi")
            assert caller.response()[0] == 200


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_header_is_closed_and_counted(node, name):
    before = refused(node)
    with Socket(node.address) as client:
        assert client.send(MALFORMED[name]).is_ended_by_server()
    assert is_counted(node, before, "malformed")


@pytest.mark.parametrize("name", INCOMPLETE)
def test_a_header_that_ends_early_is_counted(node, name):
    before = refused(node)
    with Socket(node.address) as client:
        client.send(INCOMPLETE[name])
    assert is_counted(node, before, "incomplete")


def test_a_slow_header_is_closed_when_time_is_up(start):
    node = start(**PROXY_PROTOCOL, GATECAST_LIMITS_HANDSHAKE_TIMEOUT="500ms")
    for name in ("v1-longest", "v2-extras"):
        before = refused(node)
        with Socket(node.address) as client:
            took, answer = client.dribble(GOOD[name][0], every=0.2)
        assert answer == b"" and 0.4 < took < 10
        assert is_counted(node, before, "incomplete")


def test_silence_before_a_header_does_not_hold_up_the_end_of_a_node(start):
    node = start(**PROXY_PROTOCOL, GATECAST_LIMITS_HANDSHAKE_TIMEOUT="60s")
    node.is_ended_by_test = True
    with Socket(node.address) as silent:
        eventually(lambda: node.metric("gatecast_http_connections_accepted_total", port="public") == 1)
        began = time.monotonic()
        node.process.terminate()
        assert node.wait() == 0 and time.monotonic() - began < 5
        assert silent.is_ended_by_server()


def test_a_peer_that_is_not_trusted_is_closed_and_counted(node):
    before = refused(node)
    with Socket(node.address, source=CLIENT) as stranger:
        assert stranger.send(GOOD["v2"][0] + handshake()).is_ended_by_server()
    assert is_counted(node, before, "untrusted")


def test_the_admin_port_knows_no_headers(node):
    assert node.page("/ready")[0] == 200
