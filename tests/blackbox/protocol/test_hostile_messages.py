"""Messages made to hurt whoever takes them apart: deep, wide, long, cut in half. Each is answered, and the node serves on."""

import json
import re

import pytest

from gatecast import ask
from wire import BAD_BODY, FORBIDDEN

DEPTH_MAX = 128
# Under limits.message_bytes.
BYTES = 130_000
# A message that is longer than limits.frame_bytes goes in pieces.
FRAME_BYTES = 32 << 10


def pieces(text):
    """What goes into the frames of one message, which is ASCII."""
    if len(text) <= FRAME_BYTES:
        return text
    return [text[at : at + FRAME_BYTES] for at in range(0, len(text), FRAME_BYTES)]


def nest(open, close, levels, inside=""):
    return open * levels + inside + close * levels


def action(value):
    return f'{{"action":{value}}}'


def data(value):
    return f'{{"action":"sendMessage","data":{value}}}'


def serves(node):
    """Whether everybody else gets what they ask for."""
    with node.connect() as other:
        return ask(other, data('"alive"')) == "alive" and node.process.poll() is None


@pytest.fixture(scope="module")
def node(start_shared):
    return start_shared()


TOO_DEEP = {
    "the example": action(nest("[", "]", 6_000)),
    "one level too many": action(nest("[", "]", DEPTH_MAX)),
    "objects": action(nest('{"action":', "}", 5_000, "1")),
    "both": action(nest('[{"action":', "}]", 4_000, "1")),
    "as data": data(nest("[", "]", 60_000)),
    "behind what is routed": '{"action":"sendMessage","data":"x","rest":' + nest("[", "]", 60_000) + "}",
    "never closed": action("[" * 100_000),
    "blanks between": action(nest("[ \n", "\t]", 10_000)),
}


@pytest.mark.parametrize("text", TOO_DEEP.values(), ids=TOO_DEEP)
def test_what_nests_too_deep_is_forbidden_and_the_node_serves_on(node, text):
    with node.connect() as client:
        assert re.fullmatch(FORBIDDEN, ask(client, pieces(text)))
    assert serves(node)


def test_as_deep_as_allowed_goes_on_as_typed(node):
    deep = nest("[", "]", DEPTH_MAX - 1)
    with node.connect() as client:
        assert ask(client, data(deep)) == deep


HOSTILE = {
    "many members": "{" + ",".join(f'"{number}":0' for number in range(10_000)) + "}",
    "one name again and again": "{" + '"action":"no",' * 8_000 + '"action":"nope"}',
    "names in escapes": "{" + r'"\u0061ction":"no",' * 6_000 + '"a":1}',
    "many values": action("[" + "0," * 60_000 + "0]"),
    "many strings": action("[" + '"",' * 40_000 + '""]'),
    "wide at full depth": action("[" + (nest("[", "]", DEPTH_MAX - 2) + ",") * 500 + "0]"),
    "a number of many digits": action("9" * BYTES),
    "an exponent of many digits": action("1e" + "9" * BYTES),
    "blanks": " " * 60_000 + '{"action"' + " " * 60_000 + ':"nope"}',
    "a string of escapes": action('"' + r"\u0041" * 20_000 + '"'),
    "a string of backslashes": action('"' + "\\\\" * 60_000 + '"'),
    "halves of pairs": action('"' + r"\ud83d" * 20_000 + '"'),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_whatever_is_in_it_selects_no_route_and_the_node_serves_on(node, text):
    with node.connect() as client:
        assert re.fullmatch(FORBIDDEN, ask(client, pieces(text)))
    assert serves(node)


CUT = {
    "a string": action('"' + "x" * 100_000),
    "an array": action("[" + "0," * 50_000),
    "an escape": '{"action":"sendMessage","data":"\\ud8',
    "a name": '{"' + "a" * 100_000,
}


@pytest.mark.parametrize("text", CUT.values(), ids=CUT)
def test_what_is_cut_off_is_text(node, text):
    with node.connect() as client:
        assert ask(client, pieces(text)) == text


@pytest.mark.parametrize(
    "value, received",
    [
        (r'"cut \ud83d"', "cut \ufffd"),
        (r'"\ude00 cut"', "\ufffd cut"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (r'{"a":"\ud83d"}', r'{"a":"\ud83d"}'),
        (r'["\ud83d"]', r'["\ud83d"]'),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"\u0000"', "\0"),
    ],
)
def test_half_a_surrogate_pair_is_what_browsers_make_of_it(node, value, received):
    with node.connect() as client:
        assert ask(client, data(value)) == received


def test_a_name_with_half_a_surrogate_pair_hides_no_other(node):
    with node.connect() as client:
        assert ask(client, r'{"\ud83d":"x","action":"sendMessage","data":"y"}') == "y"
        assert ask(client, r'{"action":"joinGroup","group":"\ud83d"}') == "joined \ufffd"
        assert ask(client, '{"action":"sendToGroup","group":"\ufffd","data":"to the same"}') == "to the same"


def test_names_and_keys_out_of_bounds_are_bad_bodies(start):
    node = start(
        """
        [routes.join]
        integration = "join"
        group = "$request.body.group"
        [routes.say]
        integration = "broadcast"
        data = "${request.body.data}${request.body.data}"
        idempotency_key = "$request.body.id"
        """
    )
    with node.connect() as client:
        for group in ('"' + "x" * 100_000 + '"', r'"\u0007"', nest("[", "]", 100), "9" * 100_000, '""'):
            assert re.fullmatch(BAD_BODY, ask(client, pieces(f'{{"action":"join","group":{group}}}')))
        for key in ('"' + "x" * 100_000 + '"', r'"\ud83d"', nest("[", "]", 100, "1"), "null", '""'):
            assert re.fullmatch(BAD_BODY, ask(client, pieces(f'{{"action":"say","data":"x","id":{key}}}')))
        assert ask(client, json.dumps({"action": "say", "data": "twice ", "id": "1"})) == "twice twice "
    assert node.process.poll() is None
