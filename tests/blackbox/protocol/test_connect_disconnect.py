"""`$connect` decides who comes in; `$disconnect` runs once for each who did, whatever ended it."""

import re

import pytest

from gatecast import eventually, request
from wire import BINARY, CLOSE, TEXT, Socket, close_payload, frame, handshake

LEFT = 'data = "${context.connectionId} left"'
ANNOUNCED = f"""
[routes."$disconnect"]
integration = "broadcast"
{LEFT}
[routes.whoami]
integration = "reply"
reply = "$context.connectionId"
[routes.leave]
integration = "close"
[routes."$default"]
integration = "mock"
"""
WHO_AM_I = b'{"action":"whoami"}'


@pytest.mark.parametrize("status", [300, 301, 400, 401, 403, 404, 429, 501, 502])
def test_a_status_that_is_not_2xx_is_the_handshakes(start, status):
    node = start(f'[routes."$connect"]\nintegration = "mock"\nstatus = {status}')
    with Socket(node.address) as client:
        client.send(handshake())
        assert client.response()[0] == status
    assert node.metric("gatecast_handshakes_rejected_total", reason="connect") == 1
    assert node.metric("gatecast_connections_opened_total") == node.metric("gatecast_connections") == 0


@pytest.mark.parametrize("status", [200, 201, 299])
def test_any_2xx_lets_the_client_in(start, status):
    node = start(f'[routes."$connect"]\nintegration = "mock"\nstatus = {status}')
    with Socket(node.address).upgrade():
        assert node.metric("gatecast_route_requests_total", route="$connect", outcome="ok") == 1


def test_a_subprotocol_is_not_echoed_by_itself(node):
    with Socket(node.address) as client:
        client.send(handshake(Sec_WebSocket_Protocol="chat, superchat"))
        status, headers, _ = client.response(has_body=False)
        assert status == 101
        assert "sec-websocket-protocol" not in headers


def test_compression_is_not_agreed_to(node):
    with node.connect(compression="deflate") as client:
        assert client.protocol.extensions == []


def test_a_new_connection_is_announced_to_those_who_are_there(start):
    config = '[routes."$connect"]\nintegration = "broadcast"\ndata = "${context.connectionId} came"\n'
    node = start(config + "[routes.x]\nintegration = \"mock\"")
    with node.connect() as first, node.connect():
        assert re.fullmatch(r"[\w-]{15}= came", first.recv(timeout=10))


class Ways:
    """How a connection ends. Each takes the node, the client's socket and its id."""

    def client_close(self, node, client, own):
        client.send(frame(CLOSE, close_payload(1000)))

    def client_close_without_a_code(self, node, client, own):
        client.send(frame(CLOSE))

    def end_of_stream(self, node, client, own):
        client.raw.close()

    def reset(self, node, client, own):
        client.reset()

    def reset_in_the_middle_of_a_frame(self, node, client, own):
        client.send(frame(TEXT, b"half a message")[:8])
        client.reset()

    def delete(self, node, client, own):
        assert request(node.address, "DELETE", f"/beta/@connections/{own}")[0].status == 204

    def route(self, node, client, own):
        client.send(frame(TEXT, b'{"action":"leave"}'))

    def idle(self, node, client, own):
        pass

    def protocol_error(self, node, client, own):
        client.send(frame(0x3, b""))

    def too_big(self, node, client, own):
        client.send(frame(TEXT, b"x" * 40_000))

    def binary(self, node, client, own):
        client.send(frame(BINARY, b"\x00"))

    def invalid_utf8(self, node, client, own):
        client.send(frame(TEXT, b"\xff"))

    def ping_timeout(self, node, client, own):
        pass

    def slow_consumer(self, node, client, own):
        for _ in range(400):
            if node.post(own, b"x" * 100_000) != 200:
                return
        pytest.fail("never full")


OUTCOMES = {
    "client_close": ("1000", "client", "client"),
    "client_close_without_a_code": ("1005", "client", "client"),
    "end_of_stream": ("1006", "client", "lost"),
    "reset": ("1006", "client", "lost"),
    "reset_in_the_middle_of_a_frame": ("1006", "client", "lost"),
    "delete": ("1000", "server", "deleted"),
    "route": ("1000", "server", "route"),
    "idle": ("1001", "server", "idle"),
    "protocol_error": ("1002", "server", "protocol_error"),
    "too_big": ("1009", "server", "too_big"),
    "binary": ("1003", "server", "binary_refused"),
    "invalid_utf8": ("1007", "server", "invalid_utf8"),
    "ping_timeout": ("1011", "server", "ping_timeout"),
    "slow_consumer": ("1008", "server", "slow_consumer"),
}
LIMITS = {
    "idle": 'idle_timeout = "700ms"',
    "ping_timeout": 'ping_interval = "300ms"\npong_timeout = "100ms"',
    "slow_consumer": 'outbox_age = "300ms"',
}


def wait_for(watcher, text):
    """Waits for a message, and speaks meanwhile so as not to be idle oneself."""

    def came():
        watcher.send("still here")
        try:
            return watcher.recv(timeout=0.05)
        except TimeoutError:
            return None

    assert eventually(came) == text


@pytest.mark.parametrize("way", OUTCOMES)
def test_disconnect_runs_once_however_the_connection_ends(start, way):
    limits = f'[limits]\nclose_timeout = "300ms"\n{LIMITS.get(way, "")}\n'
    node = start(limits + ANNOUNCED)
    with node.connect() as watcher, Socket(node.address, receive_buffer=4096).upgrade() as client:
        client.send(frame(TEXT, WHO_AM_I))
        while (got := client.receive())[0] != TEXT:
            pass
        own = got[1].decode()
        getattr(Ways(), way)(node, client, own)
        wait_for(watcher, f"{own} left")
        assert node.metric("gatecast_route_requests_total", route="$disconnect", outcome="ok") == 1
        assert node.metric("gatecast_connections_closed_total") == 1, "counted before it is announced"
        code, initiator, reason = OUTCOMES[way]
        labels = {"code": code, "initiator": initiator, "reason": reason}
        assert node.metric("gatecast_connections_closed_total", **labels) == 1
        assert request(node.address, "GET", f"/beta/@connections/{own}")[0].status == 410


def test_a_handshake_that_was_refused_has_no_disconnect(start):
    node = start('[routes."$connect"]\nintegration = "mock"\nstatus = 401\n' + ANNOUNCED)
    with Socket(node.address) as client:
        client.send(handshake())
        assert client.response()[0] == 401
    assert node.metric("gatecast_route_requests_total", route="$disconnect") == 0


def test_a_client_that_leaves_before_its_answer_is_not_forgotten(start):
    """Whoever was let in is counted out again, even if the socket was gone before the first byte."""
    node = start(ANNOUNCED)
    for _ in range(50):
        Socket(node.address).send(handshake()).reset()
    with node.connect():
        pass

    def counts():
        """Of those that were let in, which may still become more, and of those that ended."""
        names = ("gatecast_connections_opened_total", "gatecast_connections_closed_total")
        return [*map(node.metric, names), node.metric("gatecast_route_requests_total", route="$disconnect")]

    eventually(lambda: node.metric("gatecast_connections") == 0 and len(set(counts())) == 1)
    assert counts()[0] >= 1
