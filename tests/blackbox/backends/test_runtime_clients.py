"""Clients of the Runtime API that are not ours: Amazon's for Python, and a bootstrap in bash with curl."""

import json
import re
import sys
import time

import pytest

from functions import SUPPORT, function, route
from gatecast import ask, eventually

CODE = SUPPORT / "runtimes"
CLIENTS = {
    "python": ("python", "app.handler", {}),
    # Amazon's client as a program among others.
    "awslambdaric": ("command", "app.handler", {"command": [sys.executable, "-m", "awslambdaric", "app.handler"]}),
    "bash": ("command", "app.handler", {}),
}
# Longest frame of a message.
FRAME = 32 << 10
BROKEN = {
    "python-broken": ("python", "ValueError"),
    "bash-broken": ("command", "Shell.Init"),
}


@pytest.fixture(scope="module")
def node(start_shared):
    tables = [
        function(name, runtime, handler, CODE, timeout="25s", max_processes=2, **more) + route(f"{name}-quiet", name, two_way=False)
        for name, (runtime, handler, more) in CLIENTS.items()
    ]
    # Apart from the others, whose runs may take their time on a busy machine.
    tables += [
        function(f"{name}-short", runtime, handler, CODE, timeout="2s", **more) for name, (runtime, handler, more) in CLIENTS.items()
    ]
    tables += [function(name, runtime, "broken.handler", CODE) for name, (runtime, _) in BROKEN.items()]
    return start_shared("\n".join(tables))


@pytest.fixture(params=CLIENTS)
def client(request, node):
    """A WebSocket client that calls one function."""
    with node.connect() as client:
        client.name = request.param
        yield client


def call(client, wish=None, more=""):
    text = json.dumps({"action": client.name, "do": wish, "more": more})
    client.send(text[start : start + FRAME] for start in range(0, len(text), FRAME))


def told(client):
    """What a run was told."""
    text = client.recv(timeout=20)
    return dict(part.split(": ", 1) for part in text.split(", "))


def is_error(client):
    return json.loads(client.recv(timeout=20))["message"] == "Internal server error"


def counted(node, client, outcome):
    return node.metric("gatecast_function_invocations_total", function=client.name, outcome=outcome)


def test_a_run_is_told_its_request_deadline_trace_and_arn(client):
    call(client, more="x" * 100_000)
    run = told(client)
    assert run["arn"] == f"arn:aws:lambda:us-east-1:000000000000:function:{client.name}"
    assert re.fullmatch(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", run["request"])
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", run["trace"])
    # Both clocks are this host's; the run has begun a moment ago.
    assert 0 < int(run["deadline"]) - time.time() * 1000 <= 25_000
    assert int(run["event"]) > 100_000
    call(client)
    again = told(client)
    assert again["process"] == run["process"] and again["request"] != run["request"]


def test_a_handler_that_fails_is_an_error_frame_and_its_process_goes_on(node, client):
    call(client)
    before, failed = told(client), counted(node, client, "error")
    call(client, "fail")
    assert is_error(client)
    assert counted(node, client, "error") == failed + 1
    call(client)
    assert told(client)["process"] == before["process"]


def test_a_process_that_exits_in_a_run_is_told_at_once_and_replaced(node, client):
    call(client)
    before, exited = told(client), counted(node, client, "exit")
    call(client, "exit")
    assert is_error(client)
    assert counted(node, client, "exit") == exited + 1
    call(client)
    assert told(client)["process"] != before["process"]


def test_runs_go_on_beside_each_other_in_as_many_processes_as_there_may_be(client):
    for _ in range(4):
        call(client, "sleep")
    assert len({told(client)["process"] for _ in range(4)}) == 2


def test_a_result_may_have_six_mebibytes(node, client):
    for wish, outcome in (("most", "ok"), ("more", "too_long")):
        before = counted(node, client, outcome)
        client.send(json.dumps({"action": f"{client.name}-quiet", "do": wish}))
        eventually(lambda: counted(node, client, outcome) == before + 1, within=20)
    assert is_error(client)
    call(client)
    assert told(client)


def test_a_run_that_takes_too_long_is_ended_with_its_process(node, client):
    client.name += "-short"
    call(client, "hang")
    assert is_error(client)
    # A busy machine may be late with the run after it as well: then that process has ended too.
    late = counted(node, client, "timeout")
    assert late >= 1
    ended = {"function": client.name, "reason": "timeout"}
    eventually(lambda: node.metric("gatecast_function_restarts_total", **ended) == late)


@pytest.mark.parametrize("name", BROKEN)
def test_a_function_that_cannot_start_says_why_and_is_not_tried_again_at_once(node, name):
    with node.connect() as client:
        for _ in range(3):
            assert json.loads(ask(client, json.dumps({"action": name})))["message"] == "Internal server error"
    assert node.metric("gatecast_function_invocations_total", function=name, outcome="init") == 3
    assert BROKEN[name][1] in node.log()
