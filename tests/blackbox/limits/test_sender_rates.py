"""A client that sends faster than it may is slowed, and by its own rate alone: nobody is closed, and nothing is lost."""

import json
import selectors
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gatecast import eventually, request
from wire import CLOSE, CONTINUATION, PING, PONG, TEXT, Socket, close_payload, frame

FRAME = 32 << 10
LIMITS = ("message_rate", "receive_bytes_rate", "fanout_bytes_rate")
# A client that is not heard for longer than that is closed, if nobody knows why.
IMPATIENT = 'ping_interval = "100ms"\npong_timeout = "200ms"\nidle_timeout = "500ms"\n'


def said(number, size=0):
    return f"{number}:".ljust(size, "x")


def message(data):
    """A message, in as many frames as it needs."""
    payload = json.dumps({"action": "sendMessage", "data": data}).encode()
    parts = [payload[at : at + FRAME] for at in range(0, len(payload), FRAME)]
    opcodes = [TEXT] + [CONTINUATION] * (len(parts) - 1)
    frames = [frame(opcode, part, fin=False) for opcode, part in zip(opcodes[:-1], parts)]
    return b"".join([*frames, frame(opcodes[-1], parts[-1])])


def slowed(node, limit):
    return node.metric("gatecast_senders_slowed_total", limit=limit)


def texts(client, count):
    """So many messages; pings are answered meanwhile, as clients do."""
    received = []
    while len(received) < count:
        opcode, payload = client.receive()
        if opcode == PING:
            client.send(frame(PONG, payload))
        else:
            assert opcode == TEXT, (opcode, payload[:100])
            received.append(payload.decode())
    return received


def closed(node):
    return node.metric("gatecast_connections_closed_total")


class Flood:
    """Sends from a thread of its own, since the node may take long; what comes back is read here."""

    def __init__(self, client, messages):
        self.thread = threading.Thread(target=client.send, args=(b"".join(messages),))
        client.raw.settimeout(60)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thread.join()


# Each is reached long before the others: bytes by half an outbox at once, fan-out by five messages to eleven members.
@pytest.mark.parametrize(
    "limit, rate, count, size",
    [("message_rate", 100, 250, 1_000), ("receive_bytes_rate", 400_000, 15, 60_000), ("fanout_bytes_rate", 3_000_000, 15, 60_000)],
)
def test_a_flooder_is_slowed_and_nobody_is_closed(start, limit, rate, count, size):
    node = start(f"[limits]\n{limit} = {rate}\n")
    readers = [Socket(node.address).upgrade() for _ in range(9)]
    flooder, other = Socket(node.address).upgrade(), Socket(node.address).upgrade()
    stalled = readers[0]
    everything = [said(number, size) for number in range(count)]
    with ThreadPoolExecutor(16) as pool, Flood(flooder, map(message, everything)):
        reading = [pool.submit(texts, client, count + 1) for client in [*readers[1:], flooder, other]]
        eventually(lambda: slowed(node, limit))
        # Another sender is not slowed: what it says overtakes what the flooder has sent already.
        other.send(message("I am here"))
        for received in (future.result() for future in reading):
            assert received.index("I am here") < count
            received.remove("I am here")
            assert received == everything
    assert [slowed(node, one) > 0 for one in LIMITS] == [one == limit for one in LIMITS]
    assert node.metric("gatecast_senders_slowed_seconds_total", limit=limit) > 0.1
    # Who has not read at all meanwhile is owed nothing less.
    assert set(texts(stalled, count + 1)) == {*everything, "I am here"}
    assert closed(node) == 0 and node.metric("gatecast_slow_consumer_disconnects_total") == 0


def test_who_is_slowed_is_heard_again(start):
    node = start(f"[limits]\nmessage_rate = 50\n{IMPATIENT}")
    with Socket(node.address).upgrade() as client:
        for _ in range(3):
            client.send(message("x") * 75)
            assert texts(client, 75) == ["x"] * 75
    assert closed(node) == 0
    assert slowed(node, "message_rate") >= 3


def test_control_frames_are_messages_too(start):
    node = start(f"[limits]\nmessage_rate = 50\n{IMPATIENT}")
    with Socket(node.address).upgrade() as client:
        client.send(frame(PING) * 100 + message("after them"))
        while (got := client.receive()) != (TEXT, b"after them"):
            assert got[0] in (PING, PONG)
    assert slowed(node, "message_rate") == 1


@pytest.mark.parametrize("way", ["delete", "client", "gone"])
def test_who_is_slowed_can_be_closed(start, way):
    """A debt of half a minute does not hold up the end of a connection."""
    node = start("[limits]\nreceive_bytes_rate = 2000\nclose_timeout = \"2s\"\n")
    client = Socket(node.address).upgrade()
    own = client.connection_id()
    client.send(message("x" * 30_000) * 2)
    eventually(lambda: slowed(node, "receive_bytes_rate"))
    if way == "delete":
        assert request(node.address, "DELETE", f"/beta/@connections/{own}")[0].status == 204
        client.send(frame(CLOSE, close_payload(1000)))
        assert client.receive_close()[0] == 1000
        eventually(lambda: node.metric("gatecast_connections_closed_total", reason="deleted"), within=5)
    elif way == "client":
        # Behind what is left unread: closed by the node's own wish at the latest.
        client.send(frame(CLOSE, close_payload(1000)))
        assert node.metric("gatecast_connections") == 1
        node.signal(15)
        node.is_ended_by_test = True
        assert client.receive_close()[0] in (1000, 1001)
        client.raw.close()
        assert node.wait() in (0, 1)
        return
    else:
        client.reset()
    eventually(lambda: node.metric("gatecast_connections") == 0, within=40 if way == "gone" else 5)


@pytest.mark.alone
def test_the_defaults_let_readers_keep_up_with_one_that_sends_as_fast_as_it_can(node):
    """128 KiB a message to 50 readers that share a thread: without limits their outboxes overflow at once."""
    count, size = 60, 120_000
    readers = [Socket(node.address).upgrade() for _ in range(50)]
    flooder = Socket(node.address).upgrade()
    left, expected = {}, count * (size + 10)
    with selectors.DefaultSelector() as selector:
        for reader in [*readers, flooder]:
            left[reader] = expected
            selector.register(reader.raw, selectors.EVENT_READ, reader)
        with Flood(flooder, [message(said(number, size)) for number in range(count)]):
            while any(left.values()):
                ready = selector.select(timeout=30)
                assert ready, f"{sum(left.values())} bytes have not come"
                for key, _ in ready:
                    got = len(key.fileobj.recv(1 << 20))
                    assert got, "closed"
                    left[key.data] -= got
    assert closed(node) == 0 and node.metric("gatecast_slow_consumer_disconnects_total") == 0
    assert slowed(node, "receive_bytes_rate") + slowed(node, "fanout_bytes_rate") > 0
