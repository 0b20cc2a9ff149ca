"""Every close code arrives, and the TCP stream ends without a reset, directly and through both load balancers, while the
client is still sending."""

import json
import subprocess
import threading
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from edge import LOOPBACK, HaProxy, Nginx
from gatecast import clean_environment, eventually, request
from terminal import NODE_MODULES
from wire import BINARY, CLOSE, TEXT, Socket, close_payload, frame

RUNS = 20
BIG = 5_000_000
WAYS = {"direct": None, "HAProxy": HaProxy, "nginx": Nginx}
CHUNK = frame(TEXT, b"x" * 30_000)
MUCH = CHUNK * (BIG // len(CHUNK))


@pytest.fixture
def node(start):
    """A route that does nothing, so that what a client sends is in nobody's way."""
    return start('[routes."$default"]\nintegration = "mock"\n[routes.disconnect]\nintegration = "close"\n', **LOOPBACK)


@pytest.fixture(params=WAYS)
def way(request, node, start_balancer):
    """What clients connect to."""
    kind = WAYS[request.param]
    return node if kind is None else start_balancer(kind, [node] * 3)


class Sender:
    """A client that reads while it sends, as the protocol's rules have it: it answers a close frame once it can."""

    def __init__(self, address):
        self.socket = Socket(address).upgrade()
        self.fault = None

    def run(self, data):
        """Sends all; returns the code and the reason that came, and whether the stream ended as it should."""
        sending = threading.Thread(target=self._send, args=(data,))
        sending.start()
        code, reason, _ = self.socket.receive_close()
        sending.join(timeout=20)
        assert self.fault is None, f"after the close frame {code}: {self.fault}"
        self.socket.send(frame(CLOSE, close_payload(code)))
        assert self.socket.raw.recv(1 << 16) == b"", "the server closes first (RFC 6455 §7.1.1)"
        self.socket.raw.close()
        return code, reason

    def _send(self, data):
        try:
            self.socket.send(data)
        except OSError as error:
            self.fault = error


def huge(opcode, flaw=0, masked=True):
    """A frame of 5 MB, with reserved bits set."""
    return frame(opcode, b"x" * BIG, masked=masked, reserved=flaw)


VIOLATIONS = {
    "1009 by one frame": (1009, huge(TEXT)),
    "1009 by many frames behind": (1009, frame(TEXT, b"x" * 40_000) + MUCH),
    "1003 by one frame": (1003, huge(BINARY)),
    "1003 by many frames behind": (1003, frame(BINARY, b"x") + MUCH),
    "1007 and many frames behind": (1007, frame(TEXT, b"\xff") + MUCH),
    "1002 by one frame": (1002, huge(TEXT, flaw=4)),
    "1002 by one frame without a mask": (1002, huge(TEXT, masked=False)),
    "1002 and many frames behind": (1002, frame(0x3, b"x") + MUCH),
    "1000 and many frames behind": (1000, frame(TEXT, b'{"action":"disconnect"}') + MUCH),
}


def test_the_code_of_a_violation_arrives_while_the_client_still_sends(node, way):
    for name, (code, data) in VIOLATIONS.items():
        for _ in range(4):
            assert Sender(way.address).run(data)[0] == code, name
    answered = lambda: node.metric("gatecast_close_handshakes_total", outcome="answered")
    eventually(lambda: answered() == 4 * len(VIOLATIONS))
    assert node.metric("gatecast_close_handshakes_total") == answered()
    assert node.metric("gatecast_thrown_away_bytes_total") > len(VIOLATIONS) * BIG
    assert not node.metric("gatecast_messages_dropped_total")


def test_websockets_sees_the_code_in_every_run(way):
    for _ in range(RUNS):
        with way.connect() as client:
            with pytest.raises(ConnectionClosed) as closed:
                client.send("x" * BIG)
                client.recv(timeout=10)
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1009, "Message too big")
            assert closed.value.sent.code == 1009


def test_clients_in_javascript_see_the_code_in_every_run(way):
    environment = clean_environment({"NODE_PATH": str(NODE_MODULES)})
    script = Path(__file__).with_name("closes.cjs")
    line = ["node", "--experimental-websocket", script, f"ws://{way.address[0]}:{way.address[1]}/beta", str(RUNS)]
    done = subprocess.run(line, env=environment, capture_output=True, timeout=25, check=True)
    closes = json.loads(done.stdout)
    assert [one["client"] for one in closes] == ["ws"] * RUNS + ["node"] * RUNS
    for one in closes:
        assert (one["code"], one["reason"], one["wasClean"]) == (1009, "Message too big", True), one


def only_connection(node):
    """The id of the one connection that there is."""
    response, body = request(node.address, "GET", "/beta/@connections")
    assert response.status == 200
    (row,) = json.loads(body)["connections"]
    return row["connectionId"]


def nothing(node):
    """The clock does it."""


def delete(node):
    assert request(node.address, "DELETE", f"/beta/@connections/{only_connection(node)}")[0].status == 204


def flood(node):
    """Broadcasts until the client, which reads nothing, is taken for slow."""
    only_connection(node)
    while not node.metric("gatecast_slow_consumer_disconnects_total"):
        assert request(node.address, "POST", "/beta/@broadcast", b"." * 100_000)[0].status == 200


SERVER = {
    (1000, ""): (delete, ""),
    (1001, "Going away"): (nothing, 'max_lifetime = "1s"'),
    (1008, "slow consumer"): (flood, 'outbox_bytes = "131072"'),
    (1011, "ping timeout"): (nothing, 'ping_interval = "200ms"\npong_timeout = "200ms"'),
}


@pytest.mark.parametrize("close", SERVER, ids=lambda close: str(close[0]))
@pytest.mark.parametrize("kind", WAYS.values(), ids=WAYS)
def test_the_codes_of_the_server_arrive_and_what_the_client_still_sends_does_no_harm(start, start_balancer, kind, close):
    act, limits = SERVER[close]
    node = start(f"[limits]\n{limits}\n", **LOOPBACK)
    way = node if kind is None else start_balancer(kind, [node] * 3)
    with Socket(way.address).upgrade() as client:
        act(node)
        assert client.receive_close()[:2] == close
        # As one whose messages wait in a queue, in front of the answer.
        client.send(MUCH + frame(CLOSE, close_payload(close[0])))
        assert client.raw.recv(1 << 16) == b"", "the server closes first"
    eventually(lambda: node.metric("gatecast_close_handshakes_total", outcome="answered") == 1)
    assert node.metric("gatecast_close_handshakes_total") == 1
    assert node.metric("gatecast_connections_closed_total", code=str(close[0]), initiator="server") == 1


def test_nobody_sends_for_ever_instead_of_an_answer(start):
    node = start()
    with Socket(node.address).upgrade() as client:
        client.send(frame(BINARY, b"x"))
        assert client.receive_close()[0] == 1003
        with pytest.raises(OSError):
            for _ in range(10):
                client.send(MUCH)
    eventually(lambda: node.metric("gatecast_close_handshakes_total", outcome="flood") == 1)
    assert 16 << 20 < node.metric("gatecast_thrown_away_bytes_total") < 17 << 20
    node.serves()


def test_a_drip_instead_of_an_answer_ends_in_time(start):
    """Bytes that come at less than `outbox_bytes` in `outbox_age` do not keep a connection."""
    node = start('[limits]\nclose_timeout = "300ms"')
    with Socket(node.address).upgrade() as client:
        client.send(frame(0x3))
        assert client.receive_close()[0] == 1002
        assert client.dribble(frame(TEXT, b"x" * 10_000), every=0.05)[0] < 5
    eventually(lambda: node.metric("gatecast_close_handshakes_total", outcome="timeout") == 1)
    assert node.metric("gatecast_connections") == 0


def test_many_who_are_closed_and_send_on_do_not_hold_up_others(start):
    node = start('[limits]\nclose_timeout = "2s"', GATECAST_SHARDS="1")
    with node.connect() as innocent:
        closed = [Socket(node.address).upgrade().send(frame(0x3)) for _ in range(50)]
        sending = [threading.Thread(target=send_until_cut, args=(client,)) for client in closed]
        for thread in sending:
            thread.start()
        while any(thread.is_alive() for thread in sending):
            innocent.send("still there?")
            assert innocent.recv(timeout=5) == "still there?"
    for thread in sending:
        thread.join()
    handshakes = lambda: node.metric("gatecast_close_handshakes_total", outcome="flood")
    eventually(lambda: handshakes() == len(closed))


def send_until_cut(client):
    try:
        while True:
            client.send(MUCH)
    except OSError:
        client.raw.close()
