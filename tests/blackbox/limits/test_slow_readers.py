"""Clients that read slowly but steadily get everything, their pings count, and the close frame comes last; those that do not are
cut in time, and what they miss is counted."""

import re
import signal
import struct
import threading
import time

import pytest

from gatecast import eventually, lasts
from wire import CLOSE, CONTINUATION, PING, PONG, TEXT, Socket, frame

MESSAGE = 20_000

# An outbox is filled well within it, on a busy machine too: one that is stuck for longer is given up as a slow consumer's.
AGE = "3s"


class SlowReader(Socket):
    """A client that never reads faster than so many bytes a second, once it begins."""

    def __init__(self, address, rate):
        super().__init__(address, receive_buffer=16_384, within=20)
        self.rate, self.began, self.count = rate, None, 0
        self.turn = threading.Lock()

    def send(self, data):
        with self.turn:
            return super().send(data)

    def _fill(self):
        if self.began is not None:
            due = self.began + self.count / self.rate
            lasts(max(0, due - time.monotonic()))
        data = self.raw.recv(8_192)
        if not data:
            raise EOFError(f"closed by the server after {self.pending[:50]!r}")
        self.count += len(data)
        self.pending += data

    def read_slowly(self, most=None):
        """Reads so many messages, or up to the end, and answers pings and the close frame: returns the messages, and the code
        of the close frame if there was one."""
        self.began, self.count = self.began or time.monotonic(), self.count if self.began else 0
        texts = []
        while len(texts) != most:
            try:
                opcode, payload = self.receive()
            except (EOFError, ConnectionResetError):
                return texts, None
            if opcode == PING:
                self.send(frame(PONG, payload))
            elif opcode == CLOSE:
                self.send(frame(CLOSE, payload[:2]))
                assert self.raw.recv(1) == b"", "the server closes first"
                return texts, struct.unpack("!H", payload[:2])[0]
            else:
                texts.append(payload.decode())
        return texts, None


def fill(node, client):
    """Posts to a client that does not read until its outbox is full; returns what was accepted."""
    own, accepted = client.connection_id(), []
    while True:
        body = f"{len(accepted):06}" + "." * MESSAGE
        if node.post(own, body.encode()) != 200:
            assert node.metric("gatecast_outbox_bytes") > 10 * MESSAGE, "the kernel alone holds everything"
            return own, accepted
        accepted.append(body)


def closes(node, **labels):
    return node.metric("gatecast_connections_closed_total", **labels)


def farewells(node, outcome):
    return node.metric("gatecast_close_handshakes_total", outcome=outcome)


def cut(node):
    return node.metric("gatecast_messages_dropped_total", reason="cut")


def test_a_ping_behind_much_is_answered_in_time(start):
    """What waits takes the client some three seconds, and a pong may take one."""
    node = start('[limits]\noutbox_bytes = "262144"\nping_interval = "400ms"\npong_timeout = "1s"')
    with SlowReader(node.address, rate=120_000).upgrade() as client:
        own, accepted = fill(node, client)
        assert client.read_slowly(len(accepted)) == (accepted, None)
        pongs = lambda: node.metric("gatecast_ping_rtt_seconds_count")
        while not pongs():
            assert node.post(own, b"more") == 200
            assert client.read_slowly(1) == (["more"], None)
    eventually(lambda: closes(node) == 1)
    assert closes(node, reason="lost") == 1


def test_what_was_accepted_arrives_before_the_close_frame_of_a_delete(start):
    node = start('[limits]\nclose_timeout = "200ms"')
    with SlowReader(node.address, rate=600_000).upgrade() as client:
        own, accepted = fill(node, client)
        assert node.delete(own) == 204
        assert node.post(own, b"too late") == 410
        assert client.read_slowly() == (accepted, 1000)
    eventually(lambda: farewells(node, "answered") == 1)
    assert (closes(node, reason="deleted"), cut(node)) == (1, 0)


def test_what_was_accepted_arrives_before_the_close_frame_of_the_longest_life(start):
    node = start('[limits]\nmax_lifetime = "1s"\nclose_timeout = "200ms"')
    with SlowReader(node.address, rate=600_000).upgrade() as client:
        accepted = fill(node, client)[1]
        assert client.read_slowly() == (accepted, 1001)
    eventually(lambda: closes(node, reason="max_lifetime") == 1)
    assert cut(node) == 0


def test_what_was_accepted_arrives_before_the_node_ends(start):
    node = start('[limits]\nclose_timeout = "200ms"')
    node.is_ended_by_test = True
    with SlowReader(node.address, rate=600_000).upgrade() as client:
        accepted = fill(node, client)[1]
        node.signal(signal.SIGTERM)
        assert client.read_slowly() == (accepted, 1001)
    assert node.wait() == 0


def test_what_a_client_does_not_take_is_counted(start):
    node = start(f'[limits]\noutbox_age = "{AGE}"\nping_interval = "off"')
    with SlowReader(node.address, rate=1 << 30).upgrade() as client:
        own, accepted = fill(node, client)
        assert node.delete(own) == 204
        eventually(lambda: farewells(node, "stuck") == 1)
        assert closes(node, code="1000", reason="deleted") == 1
        texts, code = client.read_slowly()
    assert code is None
    assert texts == accepted[: len(texts)]
    assert cut(node) == len(accepted) - len(texts) > 0
    assert node.metric("gatecast_outbox_bytes") == 0


def losses(node):
    """What the node says at its end: connections and messages."""
    log = re.sub(r"\x1b\[[0-9;]*m", "", node.log())
    return tuple(map(int, re.search(r"connections were cut connections=(\d+) messages=(\d+)", log).groups()))


@pytest.mark.parametrize(
    "config",
    [f'limits.outbox_age = "{AGE}"', 'drain.window = "0s"\ndrain.grace = "300ms"'],
    ids=["no progress", "the drain is over"],
)
def test_a_node_that_ends_before_a_client_has_everything_says_so(start, config):
    node = start(config)
    node.is_ended_by_test = True
    with SlowReader(node.address, rate=1 << 30).upgrade() as client:
        accepted = fill(node, client)[1]
        node.signal(signal.SIGTERM)
        assert node.wait() == 1
        texts, code = client.read_slowly()
    assert code is None
    assert texts == accepted[: len(texts)]
    assert losses(node) == (1, len(accepted) - len(texts))


def test_a_little_now_and_then_does_not_keep_a_connection_that_is_closed(start):
    """At less than `outbox_bytes` in `outbox_age`, progress or not."""
    limits = f'message_bytes = "32768"\noutbox_bytes = "262144"\noutbox_age = "{AGE}"'
    node = start(f"[limits]\n{limits}")
    with SlowReader(node.address, rate=40_000).upgrade() as client:
        own, accepted = fill(node, client)
        assert node.delete(own) == 204
        reading = threading.Thread(target=client.read_slowly)
        reading.start()
        began = time.monotonic()
        eventually(lambda: farewells(node, "stuck") == 1)
        assert time.monotonic() - began < len(accepted) * MESSAGE / client.rate, "it would have taken longer"
        assert 0 < cut(node) < len(accepted)
        client.rate = 1 << 30
        reading.join()


def test_a_client_that_sends_more_than_it_reads_is_not_taken_for_dead(start):
    """Its pongs are behind what the node does not read while the client does not take what waits for it."""
    limits = '[limits]\noutbox_bytes = "262144"\nping_interval = "200ms"\npong_timeout = "400ms"\n'
    node = start(limits + '[routes."$default"]\nintegration = "reply"\nreply = "$request.body"\n')
    messages = [f"{number:06}" + "." * MESSAGE for number in range(60)]
    with SlowReader(node.address, rate=400_000).upgrade() as client:
        sending = threading.Thread(target=send_all, args=(client, messages))
        sending.start()
        assert client.read_slowly(len(messages)) == (messages, None)
        sending.join()
    eventually(lambda: closes(node) == 1)
    assert closes(node, reason="lost") == 1


def send_all(client, messages):
    """Sends messages one after the other; pongs have to wait until one is sent."""
    for message in messages:
        with client.turn:
            client.raw.sendall(frame(TEXT, message.encode()))


def test_a_message_that_comes_slowly_is_no_idleness(start):
    node = start('[limits]\nidle_timeout = "1s"')
    with Socket(node.address).upgrade() as client:
        client.send(frame(TEXT, b"slow", fin=False))
        end = time.monotonic() + 2
        while time.monotonic() < end:
            client.send(frame(CONTINUATION, b".", fin=False))
            lasts(0.05)
        client.send(frame(CONTINUATION, b"!"))
        opcode, text = client.receive()
        assert (opcode, text[:5], text[-1:]) == (TEXT, b"slow.", b"!")
        assert client.receive_close()[:2] == (1001, "Going away")
