"""The walk-through of the README through a load balancer: three terminals, three nodes, one Redis."""

import re
from contextlib import ExitStack

import pytest

from edge import LOOPBACK, HaProxy, Nginx, counts
from gatecast import eventually
from terminal import Terminal

TOM = '{"action": "sendMessage", "data" : "Ground Control to Major Tom"}'
FORBIDDEN = r'< \{"message": "Forbidden", "connectionId":"[\w-]{15}=", "requestId":"[\w-]{15}="\}'


@pytest.fixture(params=[HaProxy, Nginx])
def nodes_and_terminals(request, redis, start_on, start_balancer):
    nodes = start_on(redis, **LOOPBACK)
    balancer = start_balancer(request.param, nodes)
    with ExitStack() as stack:
        terminals = []
        for _ in nodes:
            terminals.append(stack.enter_context(Terminal("-c", balancer.url)))
            # One after the other: least_conn of nginx takes turns among workers only once a connection is counted.
            terminals[-1].shows("Connected (press CTRL+C to quit)")
        yield nodes, terminals


def test_three_terminals_land_on_three_nodes_and_the_conversation_works(nodes_and_terminals):
    nodes, terminals = nodes_and_terminals
    assert counts(nodes) == [1, 1, 1]
    first, second, third = terminals

    first.type(TOM)
    for terminal in terminals:
        terminal.shows("< Ground Control to Major Tom")

    second.type("Planet Earth is blue")
    for terminal in terminals:
        terminal.shows("< Planet Earth is blue")

    for terminal in (first, third):
        terminal.type('{"action": "joinGroup", "group": "moon"}')
        terminal.shows("< joined moon")
    third.type('{"action": "sendToGroup", "group": "moon", "data": {"x": 1}}')
    for terminal in (first, third):
        terminal.shows('< {"x": 1}')
    assert second.count('< {"x": 1}') == 0

    second.type('{"action": "dance"}')
    eventually(lambda: any(re.fullmatch(FORBIDDEN, line) for line in second.lines()))

    third.type('{"action":"disconnect"}')
    third.shows("< bye!").shows('Disconnected (code: 1000, reason: "")')
    first.type(TOM)
    for terminal in (first, second):
        eventually(lambda: terminal.count("< Ground Control to Major Tom") == 2)
    eventually(lambda: sum(counts(nodes)) == 2)
