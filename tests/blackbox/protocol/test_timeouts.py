"""What the node does when nobody speaks: it closes, pings, and notices the dead."""

import socket
import time

import pytest
from websockets.exceptions import ConnectionClosed

from gatecast import connection_id, drain_frames, eventually, request
from wire import CLOSE, PING, PONG, TEXT, Socket, close_payload, frame

GOING_AWAY = (1001, "Going away")


def test_an_idle_connection_is_closed_with_going_away(start):
    node = start('[limits]\nidle_timeout = "300ms"')
    began = time.monotonic()
    with node.connect() as client:
        assert drain_frames(client) == ([], GOING_AWAY)
    assert 0.29 < time.monotonic() - began < 5
    eventually(lambda: node.metric("gatecast_connections") == 0)
    assert node.metric("gatecast_connections_closed_total", code="1001", initiator="server", reason="idle") == 1


def stays_open_for(seconds, client, act):
    """Does something again and again; asserts that the connection outlives it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        act()
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.05)


def test_messages_from_the_client_keep_its_connection_open(start):
    node = start('[limits]\nidle_timeout = "1s"\n[routes."$default"]\nintegration = "mock"')
    with node.connect() as client:
        stays_open_for(1.5, client, lambda: client.send("still here"))
        assert drain_frames(client) == ([], GOING_AWAY)


def test_messages_to_the_client_keep_its_connection_open(start):
    node = start('[limits]\nidle_timeout = "1s"')
    with node.connect() as client:
        path = f"/beta/@connections/{connection_id(client)}"
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert request(node.address, "POST", path, b"hello")[0].status == 200
            assert client.recv(timeout=10) == "hello"
        assert drain_frames(client) == ([], GOING_AWAY)


def test_pings_do_not_keep_an_idle_connection_open(start):
    """They prove that a client lives, not that anybody uses it; README, differences from Amazon's service."""
    node = start('[limits]\nidle_timeout = "500ms"\nping_interval = "50ms"')
    with node.connect() as client:
        assert drain_frames(client) == ([], GOING_AWAY)


def test_a_connection_ends_after_its_longest_life_however_busy(start):
    node = start('[limits]\nmax_lifetime = "500ms"\n[routes."$default"]\nintegration = "reply"\nreply = "yes"')
    with node.connect() as client:
        deadline = time.monotonic() + 10
        while client.close_code is None and time.monotonic() < deadline:
            try:
                client.send("busy")
                client.recv(timeout=1)
            except ConnectionClosed:
                break
        assert (client.close_code, client.close_reason) == GOING_AWAY
    eventually(lambda: node.metric("gatecast_connections") == 0)
    assert node.metric("gatecast_connections_closed_total", code="1001", reason="max_lifetime") == 1


def test_the_server_pings_again_and_again(start):
    node = start('[limits]\nping_interval = "50ms"\npong_timeout = "10s"')
    with Socket(node.address).upgrade() as client:
        for _ in range(3):
            opcode, payload = client.receive()
            assert opcode == PING
            client.send(frame(PONG, payload))
        eventually(lambda: node.metric("gatecast_ping_rtt_seconds_count") >= 3)


def test_no_pings_are_sent_when_they_are_off(start):
    node = start('[limits]\nping_interval = "off"\nidle_timeout = "500ms"')
    with Socket(node.address).upgrade() as client:
        assert client.receive()[0] == CLOSE


@pytest.mark.parametrize("interval, timeout", [(300, 100), (100, 300)])
def test_a_client_that_ignores_pings_is_closed(start, interval, timeout):
    """Whichever is longer: the next ping must not make the node forget that the last one was not answered."""
    times = f'ping_interval = "{interval}ms"\npong_timeout = "{timeout}ms"\nclose_timeout = "200ms"'
    node = start(f"[limits]\n{times}")
    with Socket(node.address).upgrade() as client:
        assert client.receive()[0] == PING
        code, reason, _ = client.receive_close()
        assert (code, reason) == (1011, "ping timeout")
        assert client.is_ended_by_server()
    eventually(lambda: node.metric("gatecast_connections") == 0)
    assert node.metric("gatecast_connections_closed_total", reason="ping_timeout", initiator="server") == 1


def test_a_client_that_answers_pings_stays(start):
    node = start('[limits]\nping_interval = "50ms"\npong_timeout = "500ms"')
    with node.connect() as client:
        eventually(lambda: node.metric("gatecast_ping_rtt_seconds_count") >= 15)
        assert connection_id(client)


def test_a_client_that_speaks_but_sends_no_pongs_is_not_dead(start):
    node = start(
        '[limits]\nping_interval = "50ms"\npong_timeout = "500ms"\n[routes."$default"]\nintegration = "mock"'
    )
    with Socket(node.address).upgrade() as client:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            client.send(frame(TEXT, b"here"))
            assert client.receive()[0] == PING


def test_a_client_that_does_not_close_its_side_is_cut(start):
    node = start('[limits]\nidle_timeout = "100ms"\nclose_timeout = "200ms"')
    with Socket(node.address).upgrade() as client:
        assert client.receive_close()[:2] == GOING_AWAY
        assert client.is_ended_by_server()
    eventually(lambda: node.metric("gatecast_connections") == 0)


def test_a_close_is_answered_with_the_same_code_and_then_the_stream_ends(node):
    with Socket(node.address).upgrade() as client:
        client.send(frame(CLOSE, close_payload(3042, b"so long")))
        assert client.receive_close() == (3042, "", [])
        assert client.is_ended_by_server()


def test_half_a_connection_is_over(node):
    """A client that shuts its side down without a close frame will not speak again."""
    with Socket(node.address).upgrade() as client:
        client.raw.shutdown(socket.SHUT_WR)
        assert client.is_ended_by_server()
    eventually(lambda: node.metric("gatecast_connections") == 0)


def test_a_slow_consumer_is_closed_and_nobody_else_notices(start):
    node = start('[limits]\noutbox_bytes = "262144"\nclose_timeout = "500ms"')
    with Socket(node.address, receive_buffer=4096).upgrade() as slow, node.connect() as fast:
        slow.connection_id()
        expected = []
        for number in range(1_000):
            expected.append(f"{number:06}" + "." * 30_000)
            fast.send(expected[-1])
            assert fast.recv(timeout=10) == expected[-1]
            if node.metric("gatecast_slow_consumer_disconnects_total", policy="disconnect"):
                break
        code, reason, texts = slow.receive_close()
        assert (code, reason) == (1008, "slow consumer")
        assert texts == expected[: len(texts)], "what it did get is in order and whole"
        assert len(texts) < len(expected)
        # Those sent after its close were not for it any more.
        dropped = node.metric("gatecast_messages_dropped_total", reason="slow_consumer")
        assert 0 < dropped <= len(expected) - len(texts)
    eventually(lambda: node.metric("gatecast_connections") == 0)
    eventually(lambda: node.metric("gatecast_outbox_bytes") == 0)


def test_a_client_that_takes_nothing_is_closed_after_the_outbox_age(start):
    node = start('[limits]\noutbox_age = "300ms"\nclose_timeout = "200ms"\nping_interval = "off"')
    with Socket(node.address, receive_buffer=4096).upgrade() as slow:
        own = slow.connection_id()
        while node.post(own, b"." * 100_000) == 200:
            pass
        closed = lambda: node.metric("gatecast_connections_closed_total", code="1008", reason="slow_consumer")
        eventually(lambda: closed() == 1)
        eventually(lambda: node.metric("gatecast_connections") == 0)
