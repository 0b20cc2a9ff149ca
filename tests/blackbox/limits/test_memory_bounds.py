"""What one client can make the node hold: each queue counts what it really costs."""

import re
from pathlib import Path

from gatecast import eventually
from wire import PING, PONG, TEXT, Socket, frame

MIB = 1 << 20


def resident(node):
    """Memory of the process, in bytes."""
    return int(re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{node.process.pid}/status").read_text(), re.M)[1]) << 10


def test_pings_whose_pongs_are_not_read_cost_a_client_little(start):
    """Only the latest ping needs an answer, RFC 6455 section 5.5.3."""
    node = start('[limits]\nping_interval = "off"')
    clients = [Socket(node.address, receive_buffer=4096).upgrade() for _ in range(8)]
    before = resident(node)
    pings = b"".join(frame(PING, b"") for _ in range(10_000))
    for _ in range(8):
        for client in clients:
            client.send(pings)
    expected = 8 * 80_000 * 6
    eventually(lambda: node.metric("gatecast_received_bytes_total") >= expected, within=30)
    assert node.metric("gatecast_outbox_bytes") <= len(clients) * (16 << 10) + len(clients) * 512
    assert resident(node) - before < len(clients) * 64 * 1024 + 4 * MIB
    assert node.metric("gatecast_connections") == len(clients), "nobody is closed for it"
    for client in clients:
        client.raw.close()
    eventually(lambda: node.metric("gatecast_outbox_bytes") == 0)


def test_a_client_that_reads_gets_a_pong_for_each_of_many_pings(start):
    node = start()
    with Socket(node.address).upgrade() as client:
        client.send(b"".join(frame(PING, b"%d" % number) for number in range(1_000)))
        for number in range(1_000):
            assert client.receive() == (PONG, b"%d" % number)


def test_a_pong_passes_what_waits_and_is_the_latest(start):
    node = start('[limits]\nping_interval = "off"')
    with Socket(node.address, receive_buffer=4096).upgrade() as client:
        own = client.connection_id()
        while node.metric("gatecast_outbox_bytes") < 100_000:
            assert node.post(own, b"." * 30_000) == 200
        before = node.metric("gatecast_messages_sent_total")
        client.send(b"".join(frame(PING, b"%d" % number) for number in range(100)))
        eventually(lambda: node.metric("gatecast_messages_sent_total") >= before + 100)
        waiting = node.metric("gatecast_outbox_bytes")
        got = []
        while not got or got[-1] != (PONG, b"99"):
            got.append(client.receive())
        pongs = [payload for opcode, payload in got if opcode == PONG]
        assert pongs == [b"99"]
        assert all(payload == b"." * 30_000 for opcode, payload in got if opcode == TEXT)
        assert sum(len(payload) for _, payload in got) < waiting + 300_000


def test_small_messages_that_are_not_read_count_with_what_they_need(start):
    """A reply of some 130 bytes costs about as much again in the queue."""
    node = start('[limits]\nping_interval = "off"\noutbox_age = "1h"')
    clients = [Socket(node.address, receive_buffer=4096).upgrade() for _ in range(4)]
    before = resident(node)
    part = memoryview(frame(TEXT, b"{}") * 1_000)
    rest = {client: part for client in clients}

    def is_half_full():
        for client in clients:
            client.raw.setblocking(False)
            try:
                rest[client] = rest[client][client.raw.send(rest[client]) :] or part
            except (BlockingIOError, OSError):
                pass
        closed = node.metric("gatecast_connections_closed_total", reason="slow_consumer")
        return node.metric("gatecast_outbox_bytes") >= (4 - closed) * MIB / 2

    eventually(is_half_full, within=30)
    assert resident(node) - before < len(clients) * 1.25 * MIB + 4 * MIB
    for client in clients:
        client.raw.close()
    eventually(lambda: node.metric("gatecast_outbox_bytes") == 0)
