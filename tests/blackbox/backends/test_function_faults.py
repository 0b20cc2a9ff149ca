"""Processes of functions that end, hang, flood or leave children behind, and nodes that die with them."""

import json
import os
import signal
from pathlib import Path

import pytest

from functions import SUPPORT, function, route
from gatecast import ask, eventually

CODE = SUPPORT / "runtimes"
INTERNAL = "Internal server error"


def tables():
    return function("harm", "python", "harm.handler", CODE, max_processes=1) + function(
        "exits", "command", "app.handler", CODE, command=["/bin/sh", "-c", "echo no luck >&2; exit 4"]
    )


@pytest.fixture
def node(start):
    return start(tables())


def call(client, wish=None):
    client.send(json.dumps({"action": "harm", "do": wish}))


def processes(client, wish=None):
    """The process that has answered, and its child."""
    call(client, wish)
    return [int(number) for number in client.recv(timeout=20).split()]


def is_error(client):
    return json.loads(client.recv(timeout=20))["message"] == INTERNAL


def is_alive(process):
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def restarts(node, reason, name="harm"):
    return node.metric("gatecast_function_restarts_total", function=name, reason=reason)


def test_what_a_process_does_harms_nobody_else(node):
    """One process after the other, in each state: in a call, idle, and before its first."""
    with node.connect() as client, node.connect() as other:
        first, _ = processes(client)
        # A message of 300 kB comes in a header of that size, too.
        call(client, "error")
        assert is_error(client)
        assert processes(client)[0] == first
        # Idle.
        os.kill(first, signal.SIGKILL)
        eventually(lambda: restarts(node, "exit") == 1)
        second, _ = processes(client)
        assert second != first
        # In a call, while another waits for its turn.
        call(client, "hang")
        eventually(lambda: "hangs" in node.log())
        call(other)
        os.kill(second, signal.SIGSEGV)
        assert is_error(client)
        third = int(other.recv(timeout=20).split()[0])
        assert third != second and restarts(node, "exit") == 2
        # Children go with whom they belong to.
        _, child = processes(client, "leak")
        _, hidden = processes(client, "hide")
        assert is_alive(child) and is_alive(hidden)
        call(client, "exit-with-child")
        assert is_error(client)
        eventually(lambda: not is_alive(child) and not is_alive(hidden))
        # Before it asks for work.
        for _ in range(2):
            assert json.loads(ask(client, '{"action":"exits"}'))["message"] == INTERNAL
        eventually(lambda: restarts(node, "init", "exits") >= 1)
        assert "exit status 4; it wrote last: no luck" in node.log()
        # More lines than the log takes.
        assert processes(client, "flood")
        eventually(lambda: node.metric("gatecast_function_log_lines_lost_total", function="harm") > 0)
    assert node.metric("gatecast_backend_calls_in_flight") == node.metric("gatecast_backend_calls_waiting") == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_node_that_ends_takes_all_processes_with_it(start, end):
    node = start(tables(), GATECAST_DRAIN_WINDOW="0s", GATECAST_DRAIN_GRACE="1s", GATECAST_LIMITS_CLOSE_TIMEOUT="1s")
    with node.connect() as client:
        process, child = processes(client, "hide")
        call(client, "hang")
        eventually(lambda: "hangs" in node.log())
        node.is_ended_by_test = True
        node.signal(end)
        node.wait()
        eventually(lambda: not is_alive(process) and not is_alive(child))


def test_functions_go_on_while_redis_is_away_and_nobody_new_comes_in(start_on, redis):
    config = tables() + route("$connect", "harm", two_way=False)
    (node,) = start_on(redis, count=1, config=config)
    with node.connect() as client:
        assert processes(client)
        redis.kill()
        assert processes(client)
        eventually(lambda: node.metric("gatecast_redis_up") == 0)
        with pytest.raises(Exception, match="503"):
            node.connect()
        assert processes(client)
    eventually(lambda: node.metric("gatecast_backend_calls_in_flight") == 0)
