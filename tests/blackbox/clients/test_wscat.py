"""The walk-through of the README, with the real `wscat` in real terminals."""

import re
from contextlib import ExitStack

import boto3
import pytest

from gatecast import EXAMPLES, eventually
from terminal import Terminal

CHAT = '{"action": "sendMessage", "data" : "Ground Control to Major Tom"}'
FORBIDDEN = r'< \{"message": "Forbidden", "connectionId":"([\w-]{15}=)", "requestId":"([\w-]{15}=)"\}'


@pytest.fixture
def terminals(node):
    with ExitStack() as stack:
        opened = [stack.enter_context(Terminal("-c", node.url)) for _ in range(3)]
        for terminal in opened:
            terminal.shows("Connected (press CTRL+C to quit)")
        yield opened


def answers(terminal):
    """The Forbidden frames that a terminal shows, each as connection id and request id."""
    return [match.groups() for line in terminal.lines() if (match := re.fullmatch(FORBIDDEN, line))]


def forbidden(terminal, action):
    """Types an unknown action; returns the connection id and the request id of the answer."""
    before = len(answers(terminal))
    terminal.type(f'{{"action":"{action}"}}')
    return eventually(lambda: answers(terminal)[before:])[0]


def management(node):
    return boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=node.management,
        region_name="eu-west-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )


def test_a_chat_message_appears_in_all_three_terminals_as_its_bare_data(terminals):
    terminals[0].type(CHAT)
    for terminal in terminals:
        terminal.shows("< Ground Control to Major Tom")
        assert terminal.count("< Ground Control to Major Tom") == 1


def test_a_line_that_is_not_json_reaches_everybody_as_typed(terminals):
    terminals[1].type("Planet Earth is blue")
    for terminal in terminals:
        terminal.shows("< Planet Earth is blue")


def test_disconnect_is_answered_with_bye_and_a_normal_close(terminals):
    leaver, *others = terminals
    leaver.type('{"action":"disconnect"}')
    leaver.shows("< bye!").shows('Disconnected (code: 1000, reason: "")')
    assert leaver.process.wait(timeout=10) == 0
    lines = leaver.lines()
    assert lines.index("< bye!") < lines.index('Disconnected (code: 1000, reason: "")')
    others[0].type(CHAT)
    for terminal in others:
        terminal.shows("< Ground Control to Major Tom")
        assert terminal.count("< bye!") == 0


def test_an_unknown_action_gets_the_forbidden_frame_and_the_socket_stays_open(node, terminals):
    first, second, third = terminals
    own, request = forbidden(first, "sing")
    again, next_request = forbidden(first, "dance")
    other, _ = forbidden(second, "sing")
    assert own == again != other
    assert request != next_request
    first.type(CHAT)
    for terminal in terminals:
        terminal.shows("< Ground Control to Major Tom")
    assert not answers(third)

    client = management(node)
    assert client.get_connection(ConnectionId=own)["Identity"]["SourceIp"] == "127.0.0.1"
    client.post_to_connection(ConnectionId=own, Data=b"for you alone")
    first.shows("< for you alone")
    assert second.count("< for you alone") == third.count("< for you alone") == 0


def test_deleting_a_connection_closes_its_terminal_normally(node, terminals):
    own, _ = forbidden(terminals[0], "sing")
    management(node).delete_connection(ConnectionId=own)
    terminals[0].shows('Disconnected (code: 1000, reason: "")')


def test_the_server_pings_and_answers_pings(start):
    node = start('[limits]\nping_interval = "200ms"')
    with Terminal("-P", "--slash", "-c", node.url) as terminal:
        eventually(lambda: any(re.fullmatch(r'< Received ping \(data: "[\w-]{8}"\)', line) for line in terminal.lines()))
        terminal.type("/ping hello")
        terminal.shows('< Received pong (data: "hello")')


def test_a_client_of_another_stage_is_told_403(node):
    with Terminal("-c", node.url.replace("/beta", "/prod")) as terminal:
        terminal.shows("error: Unexpected server response: 403")


def test_the_table_of_the_seed_broadcasts_and_is_silent_otherwise(start):
    node = start(arguments=["--config", EXAMPLES / "simple-chat.toml"])
    with Terminal("-c", node.url) as one, Terminal("-c", node.url) as two:
        for terminal in (one, two):
            terminal.shows("Connected (press CTRL+C to quit)")
        one.type('{"action":"unknown"}')
        one.type("not json")
        one.type('{"action":"sendMessage","data":"hello"}')
        for terminal in (one, two):
            terminal.shows("< hello")
            assert [line for line in terminal.lines() if line.startswith("< ")] == ["< hello"]
