"""A part of a node that dies or stands still never leaves a whole that looks well: logs nobody reads, shards, signals."""

import json
import os
import signal
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import gatecast
from gatecast import Node, connection_id, drain_frames, eventually, request
from threads import HeldThread

LOST = "gatecast_log_lines_lost_total"
# Each refusal is a line.
NOISY = {"RUST_LOG": "debug"}


class Unread:
    """A pipe whose reader has stopped reading."""

    def __enter__(self):
        self.read_end, self.write_end = os.pipe()
        return self.write_end

    def __exit__(self, *_):
        os.close(self.read_end)
        os.close(self.write_end)


class Gone(Unread):
    """A pipe whose reader has gone."""

    def __enter__(self):
        super().__enter__()
        os.close(self.read_end)
        return self.write_end

    def __exit__(self, *_):
        os.close(self.write_end)


LOGS = {"a pipe that nobody reads": Unread, "a pipe without a reader": Gone, "a full disk": lambda: open("/dev/full", "wb")}


@contextmanager
def node_logging_to(log, monkeypatch, directory, **environment):
    """A node whose standard error is `log`; ended with the block."""
    real = subprocess.Popen

    def start(line, **options):
        return real(line, **(options | {"stderr": log}))

    with monkeypatch.context() as patched:
        patched.setattr(gatecast.subprocess, "Popen", start)
        node = Node(directory, environment=NOISY | environment)
    yield node
    node.kill()


def lines_until_lost(node):
    """Refusals, until lines of the log are lost; each is answered."""
    while node.metric(LOST) == 0:
        for _ in range(200):
            assert request(node.address, "GET", "/nowhere")[0].status in (404, 426, 403)


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("format", ["text", "json"])
def test_a_log_that_takes_nothing_costs_lines_and_nothing_else(log, format, monkeypatch, tmp_path):
    with LOGS[log]() as end, node_logging_to(end, monkeypatch, tmp_path, GATECAST_LOG_FORMAT=format) as node:
        lines_until_lost(node)
        node.serves()
        assert node.page("/live")[0] == node.page("/ready")[0] == 200
        reason = "queue_full" if LOGS[log] is Unread else "write_failed"
        assert node.metric(LOST, reason=reason) > 0
        node.signal(signal.SIGTERM)
        assert node.wait() == 0


def test_what_was_lost_is_said_once_the_log_is_read_again(monkeypatch, tmp_path):
    read_end, write_end = os.pipe()
    with node_logging_to(write_end, monkeypatch, tmp_path) as node:
        os.close(write_end)
        lines_until_lost(node)
        with open(read_end, errors="replace") as log:
            assert next(line for line in log if "log lines were lost" in line)
            threading.Thread(target=log.read, daemon=True).start()
            node.signal(signal.SIGTERM)
            assert node.wait() == 0


def test_a_start_that_fails_does_not_wait_for_whoever_reads_the_log(tmp_path):
    with Unread() as end:
        os.set_blocking(end, False)
        try:
            while True:
                os.write(end, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(end, True)
        line = [gatecast.GATECAST, "--listen", "192.0.2.1:80", "--admin-listen", "127.0.0.1:0"]
        environment = gatecast.clean_environment({"GATECAST_MANAGEMENT_AUTH": "none"})
        process = subprocess.Popen([str(word) for word in line], stderr=end, stdout=end, env=environment)
        assert process.wait(timeout=20) == 69


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_a_signal_that_asks_for_nothing_is_ignored_and_said(node, name):
    with node.connect() as client:
        node.signal(getattr(signal, name))
        eventually(lambda: f'signal="{name}"' in node.log() and "ignored" in node.log())
        assert connection_id(client)
        node.serves()


def test_a_shard_that_stands_still_fails_live_until_it_moves(start):
    node = start()
    with HeldThread(node.process, "shard-1"):
        status, body = eventually(lambda: (page := node.page("/live"))[0] != 200 and page, within=25)
        assert (status, json.loads(body)) == (503, {"status": "stuck", "parts": ["shard-1"]})
    eventually(lambda: node.page("/live")[0] == 200)
    node.serves()
    assert 'stuck: it has not moved' in node.log() and "moves again" in node.log()


def test_a_node_whose_shard_stands_still_can_be_ended(start):
    node = start(GATECAST_DRAIN_WINDOW="100ms", GATECAST_DRAIN_GRACE="200ms")
    with ExitStack() as clients:
        for _ in range(4):
            clients.enter_context(node.connect())
        with HeldThread(node.process, "shard-0"):
            node.is_ended_by_test = True
            node.signal(signal.SIGTERM)
            # Ended, and not yet to be waited for: whoever holds a thread comes first.
            eventually(lambda: state(node.process) == "Z", within=20)
        assert node.wait() == 1


def state(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")")[1].split()[0]


def test_a_shard_that_ends_ends_the_node_which_says_so(start):
    node = start()
    node.is_ended_by_test = True
    with ExitStack() as stack:
        clients = [stack.enter_context(node.connect()) for _ in range(8)]
        with HeldThread(node.process, "shard-0") as shard:
            shard.break_event_loop()
        assert node.wait() == 70
        closes = [drain_frames(client)[1] for client in clients]
    # Those of the other shard are told.
    assert {close for close in closes if close} == {(1001, "Going away")}
    assert 'part="shard-0"' in node.log()
