"""What a message leads to: selection, groups, and the frames of the contract."""

import json
import re
from contextlib import contextmanager

import pytest

from gatecast import ask, connection_id, request
from wire import BAD_BODY, FORBIDDEN


def say(client, **message):
    client.send(json.dumps(message))


def is_silent(client):
    """Whether nothing had been sent to a client before the answer to what it asks now."""
    pattern = re.compile(FORBIDDEN)
    return pattern.fullmatch(ask(client, '{"action":"nobody there"}')) is not None


@contextmanager
def three(node):
    with node.connect() as one, node.connect() as two, node.connect() as other:
        yield one, two, other


@pytest.fixture(scope="module")
def node(start_shared):
    return start_shared()


def test_a_group_message_reaches_its_members_only(node):
    with three(node) as (one, two, other):
        for member in (one, two):
            assert ask(member, '{"action":"joinGroup","group":"moon"}') == "joined moon"
        say(other, action="sendToGroup", group="moon", data="from outside")
        assert one.recv(timeout=10) == two.recv(timeout=10) == "from outside"
        assert ask(two, '{"action":"leaveGroup","group":"moon"}') == "left moon"
        assert ask(one, '{"action":"sendToGroup","group":"moon","data":"alone"}') == "alone"
        assert is_silent(two) and is_silent(other)


def test_joining_twice_delivers_once(node):
    with node.connect() as client:
        for _ in range(2):
            assert ask(client, '{"action":"joinGroup","group":"twice"}') == "joined twice"
        assert ask(client, '{"action":"sendToGroup","group":"twice","data":"once"}') == "once"
        assert is_silent(client)


def test_the_order_of_one_sender_is_kept(node):
    with three(node) as clients:
        expected = [f"{number}" for number in range(500)]
        for text in expected:
            say(clients[0], action="sendMessage", data=text)
        for client in clients:
            assert [client.recv(timeout=10) for _ in expected] == expected


@pytest.mark.parametrize(
    "data, received",
    [
        ('"text"', "text"),
        ('"\\u00fc\\n"', "ü\n"),
        ('{"a": [1, 2.50]}', '{"a": [1, 2.50]}'),
        ("[1,  2]", "[1,  2]"),
        ("12.50", "12.50"),
        ("true", "true"),
        ('""', ""),
    ],
)
def test_data_of_any_type_arrives_as_its_text(node, data, received):
    with node.connect() as client:
        assert ask(client, f'{{"action":"sendMessage","data":{data}}}') == received


@pytest.mark.parametrize(
    "text", ['{"action":"sendMessage"}', '{"action":"joinGroup"}', '{"action":"joinGroup","group":""}',
             '{"action":"sendToGroup","group":"moon"}']
)
def test_a_body_that_lacks_what_the_route_takes_gets_the_frame_of_the_contract(node, text):
    with node.connect() as client:
        own = connection_id(client)
        assert re.fullmatch(BAD_BODY, ask(client, text))[1] == own
        assert is_silent(client)


@pytest.mark.parametrize("text", ['{"action":1}', "{}", "[]", "1", '"sendMessage"', '{"action":"$default"}', "null"])
def test_json_that_selects_no_route_is_forbidden(node, text):
    with node.connect() as client:
        own = connection_id(client)
        assert re.fullmatch(FORBIDDEN, ask(client, text))[1] == own


EVERY_FORM = {
    "$request.body.service.action": '{"service":{"action":"KEY"}}',
    "${request.body.action}": '{"action":"KEY"}',
    "${request.body.service}/${request.body.action}": '{"service":"chat","action":"KEY"}',
    "${request.body.action}-${request.body.missing}": '{"action":"KEY"}',
    "$request.body.services[-1].action": '{"services":[{"action":"no"},{"action":"KEY"}]}',
    "$request.body.services[*].action": '{"services":[{"action":"KEY"},{"action":"other"}]}',
    "$request.body..action": '{"service":{"action":"KEY"}}',
    "$request.body.actions[0:2]": '{"actions":["KEY","two","three"]}',
    "${request.body.services[?(@.on == true)].action}!": '{"services":[{"action":"no"},{"action":"KEY","on":true}]}',
    "constant": '{"anything":1}',
    "\\$default": '{"anything":1}',
}
KEYS = {
    "$request.body.services[*].action": "[KEY, other]",
    "$request.body..action": "[KEY]",
    "$request.body.actions[0:2]": "[KEY, two]",
    "${request.body.services[?(@.on == true)].action}!": "[KEY]!",
    "${request.body.service}/${request.body.action}": "chat/KEY",
    "${request.body.action}-${request.body.missing}": "KEY-",
    "constant": "constant",
    "\\$default": "$default",
}


@pytest.mark.parametrize("expression", EVERY_FORM)
def test_every_form_of_selection_expression_selects(start, expression):
    key = KEYS.get(expression, "KEY")
    node = start(
        f"route_selection_expression = {json.dumps(expression)}\n[routes.\"{key}\"]\nintegration = \"reply\"\nreply = \"yes\"\n"
        + '[routes.other]\nintegration = "reply"\nreply = "no"\n'
    )
    with node.connect() as client:
        assert ask(client, EVERY_FORM[expression]) == "yes"


def test_what_a_path_finds_is_sent_as_json_and_none_is_a_bad_body(start):
    node = start(
        """
        [routes.open]
        integration = "broadcast"
        data = "$request.body.items[?(@.open && @.id > 1)]"
        [routes.names]
        integration = "reply"
        reply = "$request.body..name"
        """
    )
    with node.connect() as client:
        items = '[{"id":1,"open":true}, {"id" : 2,"open":true,"name":"\\u00fc"},{"id":3,"name":"x"}]'
        assert ask(client, f'{{"action":"open","items":{items}}}') == '[{"id" : 2,"open":true,"name":"\\u00fc"}]'
        assert ask(client, f'{{"action":"names","items":{items}}}') == '["\\u00fc","x"]'
        for text in ('{"action":"open","items":[]}', '{"action":"open"}', '{"action":"names"}'):
            assert re.fullmatch(BAD_BODY, ask(client, text))


def test_what_selects_no_route_goes_to_default_and_text_too(start):
    node = start('[routes."$default"]\nintegration = "reply"\nreply = "default: $request.body"\n')
    with node.connect() as client:
        for text in ("not json", '{"action":"unknown"}', "{}", '{"action":"$connect"}', '{"action":"$disconnect"}'):
            assert ask(client, text).startswith("default: ")


def test_text_takes_what_is_not_json_before_default(start):
    node = start(
        '[routes."$default"]\nintegration = "reply"\nreply = "default"\n'
        '[routes."$text"]\nintegration = "reply"\nreply = "text"\n'
    )
    with node.connect() as client:
        assert ask(client, "not json") == "text"
        assert ask(client, '{"action":"unknown"}') == "default"


def test_the_predefined_routes_cannot_be_called_by_a_client(start):
    node = start('[routes."$disconnect"]\nintegration = "broadcast"\ndata = "somebody left"\n')
    with node.connect() as client:
        for key in ("$disconnect", "$connect"):
            client.send(json.dumps({"action": key}))
            assert re.fullmatch(FORBIDDEN, client.recv(timeout=10))


def test_a_back_end_can_send_to_all_to_a_group_and_to_a_user(start):
    node = start('auth.user_header = "X-User"\ntrusted_proxies = ["127.0.0.1"]')
    post = lambda path: request(node.address, "POST", f"/beta/{path}", b"hello")[0].status
    with node.connect(additional_headers={"X-User": "tom"}) as tom, node.connect() as other:
        assert ask(other, '{"action":"joinGroup","group":"moon"}') == "joined moon"
        connection_id(tom)
        assert post("@broadcast") == 200
        assert tom.recv(timeout=10) == other.recv(timeout=10) == "hello"
        assert post("@users/tom") == 200
        assert tom.recv(timeout=10) == "hello"
        assert post("@groups/moon") == 200
        assert other.recv(timeout=10) == "hello"
        assert is_silent(tom) and is_silent(other)


def test_a_connection_may_not_be_in_more_groups_than_allowed(start):
    node = start("limits.groups_per_connection = 2")
    with node.connect() as client:
        for group in ("a", "b"):
            assert ask(client, json.dumps({"action": "joinGroup", "group": group})) == f"joined {group}"
        answer = json.loads(ask(client, '{"action":"joinGroup","group":"c"}'))
        assert answer["message"] == "Limit exceeded"
        assert ask(client, '{"action":"leaveGroup","group":"a"}') == "left a"
        assert ask(client, '{"action":"joinGroup","group":"c"}') == "joined c"
