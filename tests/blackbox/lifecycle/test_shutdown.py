"""How a node ends: nothing that was acknowledged is lost, and nobody waits for ever."""

import re
import signal
import time

import pytest

from gatecast import connection_id, drain_frames, eventually, request
from wire import Socket

MESSAGE = b"." * 100_000


def draining(node):
    return node.page("/ready")[0] == 503


def test_sigterm_closes_everybody_with_1001_and_ends_with_0(start):
    node = start()
    clients = [node.connect() for _ in range(5)]
    node.is_ended_by_test = True
    began = time.monotonic()
    node.signal(signal.SIGTERM)
    for client in clients:
        assert drain_frames(client) == ([], (1001, "Going away"))
    assert node.wait() == 0
    assert time.monotonic() - began < 5, "a small node does not need the whole window"


def test_a_node_without_clients_ends_at_once(start):
    node = start()
    node.is_ended_by_test = True
    node.signal(signal.SIGINT)
    assert node.wait(within=5) == 0


def test_what_was_acknowledged_is_delivered_before_the_close_frame(start):
    node = start()
    node.is_ended_by_test = True
    with Socket(node.address, receive_buffer=4096).upgrade() as slow:
        path = f"/beta/@connections/{slow.connection_id()}"
        accepted = []
        for number in range(400):
            body = b"%06d" % number + MESSAGE
            if request(node.address, "POST", path, body)[0].status != 200:
                break
            accepted.append(body.decode())
        assert node.metric("gatecast_outbox_bytes") > len(MESSAGE), "the kernel alone held everything"
        node.signal(signal.SIGTERM)
        eventually(lambda: draining(node))
        code, reason, texts = slow.receive_close()
    assert (code, reason) == (1001, "Going away")
    assert texts == accepted
    assert node.wait() == 0


def test_broadcasts_sent_before_sigterm_reach_everybody(start):
    node = start()
    node.is_ended_by_test = True
    clients = [node.connect() for _ in range(20)]
    sender = clients[0]
    expected = [f"message {number}" for number in range(50)]
    for text in expected:
        sender.send(text)
    # The sender is a member, too: once it has the last one, the node has accepted all.
    while sender.recv(timeout=10) != expected[-1]:
        pass
    node.signal(signal.SIGTERM)
    for client in clients[1:]:
        assert drain_frames(client) == (expected, (1001, "Going away"))
    assert node.wait() == 0


def test_those_who_wait_for_their_turn_still_receive(start):
    node = start('[drain]\nmin_rate = 2\n[routes."$disconnect"]\nintegration = "broadcast"\ndata = "left"\n')
    node.is_ended_by_test = True
    clients = [node.connect() for _ in range(8)]
    node.signal(signal.SIGTERM)
    received = [drain_frames(client)[0] for client in clients]
    assert any("left" in messages for messages in received)
    assert node.wait() == 0


def test_a_second_signal_exits_at_once_and_says_how_many_were_cut(start):
    node = start('[limits]\nclose_timeout = "60s"\n[drain]\nwindow = "60s"')
    node.is_ended_by_test = True
    silent = [Socket(node.address).upgrade() for _ in range(3)]
    node.signal(signal.SIGTERM)
    for client in silent:
        assert client.receive_close()[:2] == (1001, "Going away")
    assert draining(node)
    began = time.monotonic()
    node.signal(signal.SIGTERM)
    assert node.wait(within=10) == 1
    assert time.monotonic() - began < 5
    log = re.sub(r"\x1b\[[0-9;]*m", "", node.log())
    assert "connections were cut connections=3" in log


def test_a_client_that_never_answers_does_not_hold_the_node(start):
    node = start('[limits]\nclose_timeout = "200ms"')
    node.is_ended_by_test = True
    with Socket(node.address).upgrade() as silent:
        node.signal(signal.SIGTERM)
        assert silent.receive_close()[0] == 1001
        assert node.wait(within=10) == 0


def test_the_deadline_ends_the_node_and_says_how_many_were_cut(start):
    node = start('[limits]\nclose_timeout = "60s"\n[drain]\nwindow = "0s"\ngrace = "300ms"')
    node.is_ended_by_test = True
    with Socket(node.address).upgrade() as silent:
        node.signal(signal.SIGTERM)
        assert silent.receive_close()[0] == 1001
        assert node.wait(within=10) == 1
    assert "connections were cut" in node.log()


def test_during_the_notice_the_node_is_not_ready_and_still_takes_clients(start):
    node = start('drain.notice = "60s"')
    node.is_ended_by_test = True
    with node.connect() as client:
        assert node.page("/ready") == (200, '{"status":"ready"}')
        node.signal(signal.SIGTERM)
        eventually(lambda: draining(node))
        assert node.page("/ready") == (503, '{"status":"draining"}')
        assert node.page("/live")[0] == 200
        assert node.metric("gatecast_draining") == 1
        client.ping().wait(timeout=10)
        # Load balancers that have not noticed yet still send clients here.
        with node.connect() as late:
            assert connection_id(late)
            assert node.post(connection_id(client), b"hello") == 200
        node.signal(signal.SIGTERM)
        assert node.wait() == 1


def test_after_the_notice_nobody_new_comes_in(start):
    node = start('drain.notice = "200ms"\n[limits]\nclose_timeout = "60s"')
    node.is_ended_by_test = True
    with Socket(node.address).upgrade() as silent:
        node.signal(signal.SIGTERM)
        assert silent.receive_close()[:2] == (1001, "Going away")
        with pytest.raises(OSError):
            Socket(node.address, within=2).upgrade()
        assert node.page("/live")[0] == 200
        assert draining(node)
        eventually(lambda: node.metric("gatecast_drain_remaining_connections") == 1)
        node.signal(signal.SIGTERM)
        assert node.wait() == 1
