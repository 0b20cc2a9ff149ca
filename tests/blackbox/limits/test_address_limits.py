"""What one address may have of the way in, and that others do not feel it."""

import threading

import pytest

from gatecast import eventually
from wire import Socket, handshake

FLOODER, OTHER = "127.0.0.7", "127.0.0.8"
RATE = "[limits]\nhandshake_rate_per_address = 1\n"
CONNECTIONS = "[limits]\nconnections_per_address = 2\n"
BURST = 4


def refused(node, reason):
    return node.metric("gatecast_handshakes_rejected_total", reason=reason)


def knock(node, source=None, early=b"", **headers):
    """One handshake: its status, headers and body."""
    with Socket(node.address, source=source) as socket:
        socket.send(early + handshake(**headers))
        status, told, _ = response = socket.response(has_body=False)
        return response if status == 101 else (status, told, socket.take(int(told["content-length"])))


def let_in(node, tries, **options):
    return [knock(node, **options)[0] for _ in range(tries)].count(101)


def proxy_header(source):
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {source} 4711 8080\r\n".encode()


def warnings(node):
    return [line for line in node.log().splitlines() if " WARN " in line and "trusted_proxies" in line]


def test_over_the_rate_of_its_address_a_client_is_told_to_wait(start):
    node = start(RATE)
    answers = [knock(node, FLOODER) for _ in range(60)]
    statuses = [status for status, *_ in answers]
    # The burst, and a few more for the time that has passed.
    assert BURST <= statuses.count(101) < 40 and set(statuses) == {101, 429}
    for status, headers, body in answers:
        if status == 429:
            assert 1 <= int(headers["retry-after"]) <= 5 and headers["connection"] == "close"
            assert headers["x-amzn-errortype"] == "TooManyRequestsException"
            assert body == b'{"message":"Too many handshakes from your address; try again later"}'
    assert refused(node, "address_rate") == statuses.count(429)
    assert knock(node, OTHER)[0] == 101
    eventually(lambda: knock(node, FLOODER)[0] == 101)


def test_a_flood_of_one_address_leaves_the_nodes_rate_to_the_others(start):
    node = start("[limits]\nhandshake_rate = 60\nhandshake_rate_per_address = 1\n")
    done = threading.Event()

    def flood(source):
        while not done.is_set():
            knock(node, source)

    flooders = [threading.Thread(target=flood, args=(f"127.0.0.{n}",)) for n in (5, 6, 7, 7)]
    try:
        for flooder in flooders:
            flooder.start()
        eventually(lambda: refused(node, "address_rate") > 200)
        assert [let_in(node, 2, source=f"127.0.1.{n}") for n in range(1, 9)] == [2] * 8
        assert refused(node, "rate") == 0
    finally:
        done.set()
        for flooder in flooders:
            flooder.join()


def test_what_is_no_handshake_counts_too(start):
    node = start(RATE)
    assert {knock(node, FLOODER, path="/nowhere")[0] for _ in range(60)} == {403, 429}
    assert {knock(node, OTHER, Sec_WebSocket_Key="short")[0] for _ in range(60)} == {400, 429}


def test_an_address_has_so_many_connections_at_a_time(start):
    node = start(CONNECTIONS)
    first, second = (Socket(node.address, source=FLOODER).upgrade() for _ in range(2))
    status, headers, body = knock(node, FLOODER)
    assert (status, headers["connection"]) == (429, "close") and "retry-after" in headers
    assert b"Too many connections from your address" in body
    with Socket(node.address, source=OTHER).upgrade() as other:
        assert other.connection_id()
        first.reset()
        eventually(lambda: knock(node, FLOODER)[0] == 101)
    second.reset()
    assert refused(node, "address_connections") >= 1
    # Those that are refused or gone count no more.
    eventually(lambda: node.metric("gatecast_connections") == 0)
    assert let_in(node, 1, source=FLOODER) == 1


@pytest.mark.parametrize("way", ["X-Forwarded-For", "PROXY"])
def test_behind_a_load_balancer_the_clients_address_counts(start, way):
    settings = 'trusted_proxies = ["127.0.0.1"]\n' + ("proxy_protocol = true\n" if way == "PROXY" else "")
    node = start(settings + RATE)

    def of(address, tries=40):
        told = {"early": proxy_header(address)} if way == "PROXY" else {"X-Forwarded-For": address}
        return let_in(node, tries, **told)

    assert BURST <= of("192.0.2.1") < 30
    assert of("192.0.2.2", 4) == 4
    # IPv6 by /64: the addresses of one home are one.
    assert BURST <= sum(of(f"2001:db8:0:1::{n:x}", 1) for n in range(1, 41)) < 30
    # And by /48: the homes of one site are sixteen.
    assert BURST * 16 <= sum(of(f"2001:db8:5:{n:x}::1", 1) for n in range(1, 201)) < 190
    assert of("2001:db8:6:1::1", 4) == 4
    assert refused(node, "rate") == 0


def test_a_load_balancer_itself_is_not_limited(start):
    node = start('trusted_proxies = ["127.0.0.1"]\n' + RATE)
    assert let_in(node, 40) == 40, "a health check, or clients that it does not name"


def test_behind_load_balancers_the_limits_are_on(start):
    node = start('trusted_proxies = ["127.0.0.1"]\n')
    assert "PerAddress { handshake_rate: Some(50), connections: Some(1000)" in node.log()
    assert let_in(node, 100, X_Forwarded_For="192.0.2.1") == 100, "a burst of four seconds'"
    assert warnings(node) == []


def test_without_anything_set_there_are_none_on_loopback(node):
    assert let_in(node, 300, source=FLOODER) == 300
    assert warnings(node) == []


def test_beyond_loopback_a_node_without_limits_says_so(start):
    open_api = '[management]\nauth = "none"\n'
    node = start(open_api, listen="0.0.0.0:0")
    (line,) = warnings(node)
    assert "limits.handshake_rate_per_address" in line and "trusted_proxies" in line
    for decided in (RATE, '[limits]\nconnections_per_address = "off"\n'):
        assert warnings(start(decided + open_api, listen="0.0.0.0:0")) == []


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_who_speaks_for_others_and_is_not_trusted_is_named_once(start, header):
    node = start('trusted_proxies = ["10.0.0.0/8"]\n')
    for _ in range(3):
        with Socket(node.address, source=FLOODER).upgrade(**{header: "192.0.2.1"}) as socket:
            assert socket.connection_id()
    (line,) = warnings(node)
    assert FLOODER in line and "trusted_proxies" in line
