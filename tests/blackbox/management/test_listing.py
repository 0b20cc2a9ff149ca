"""Lists, counts and memberships of the management API, on a node that is alone."""

import json
import random
import threading
from contextlib import ExitStack

import pytest
from openapi_spec_validator import validate

from gatecast import ask, connection_id, eventually, request
from listing import call, count, everything, fits, identified, pages
from management import KEYS, UNKNOWN_ID, is_uuid, sdk, signature, signed
from wire import Socket

JOIN = '{"action":"joinGroup","group":"%s"}'
LISTS = ["@connections", "@groups", "@groups/moon/connections", "@users/tom/connections"]


def test_the_document_is_valid_openapi_and_on_both_ports(node):
    response, body = request(node.address, "GET", "/beta/@openapi")
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    assert node.page("/openapi.json") == (200, body.decode())
    validate(json.loads(body))


def test_a_connection_is_listed_with_what_is_known_of_it(start):
    node = start('trusted_proxies = ["127.0.0.1"]\nauth.user_header = "x-user"')
    with node.connect(additional_headers={"X-User": "tom"}) as tom, node.connect() as other:
        ids = {connection_id(tom): "tom", connection_id(other): None}
        page = call(node, "GET", "@connections")
        fits(node, "ConnectionPage", page)
        assert {row["connectionId"]: row["user"] for row in page["connections"]} == ids
        assert (page["cursor"], page["incomplete"]) == (None, [])
        for row in page["connections"]:
            described = sdk(node.management).get_connection(ConnectionId=row["connectionId"])
            assert row["sourceIp"] == described["Identity"]["SourceIp"] == "127.0.0.1"
            assert row["connectedAt"] == described["ConnectedAt"].strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        [listed] = everything(node, "@users/tom/connections")
        assert listed["connectionId"] == connection_id(tom)
        assert everything(node, "@users/nobody/connections") == []


def test_groups_are_listed_by_name_with_their_members(node):
    with ExitStack() as stack:
        clients = [stack.enter_context(node.connect()) for _ in range(9)]
        expected = {}
        for number, client in enumerate(clients):
            for group in range(number + 1):
                name = f"group {group} ü/&"
                assert ask(client, JOIN % name) == f"joined {name}"
                expected[name] = expected.get(name, 0) + 1
        for limit in (1, 2, 4, 9, 100):
            got = list(pages(node, "@groups", limit))
            for page in got:
                fits(node, "GroupPage", page)
                assert len(page["groups"]) <= limit
            rows = [row for page in got for row in page["groups"]]
            assert [(row["group"], row["connections"]) for row in rows] == sorted(expected.items())
        members = everything(node, "@groups/group%203%20%C3%BC%2F%26/connections", 2)
        assert sorted(row["connectionId"] for row in members) == sorted(identified(clients[3:]))
        assert call(node, "GET", "@counts")["nodes"][0]["groups"] == 9
    eventually(lambda: everything(node, "@groups") == [])
    fits(node, "Counts", eventually(lambda: count(node) == 0 and call(node, "GET", "@counts")))


def test_every_page_size_shows_every_connection_once(node):
    with ExitStack() as stack:
        ids = {stack.enter_context(Socket(node.address)).upgrade().connection_id() for _ in range(60)}
        for limit in (1, 7, 59, 60, 61, 1000):
            listed = [page["connections"] for page in pages(node, "@connections", limit)]
            assert all(len(rows) <= limit for rows in listed)
            assert sorted(row["connectionId"] for rows in listed for row in rows) == sorted(ids)
        assert count(node) == 60


def test_who_stays_is_listed_once_while_others_come_and_go(node):
    is_over = threading.Event()
    went = []

    def churn():
        others = []
        while not is_over.is_set():
            others.append(Socket(node.address).upgrade())
            others[-1].connection_id()
            if len(others) > 20:
                others.pop(random.randrange(len(others))).reset()
                went.append(1)
        for other in others:
            other.raw.close()

    with ExitStack() as stack:
        ids = {stack.enter_context(Socket(node.address)).upgrade().connection_id() for _ in range(50)}
        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(10):
                before = len(went)
                listed = [row["connectionId"] for row in everything(node, "@connections", 3)]
                assert ids <= set(listed)
                assert len(listed) == len(set(listed)), "listed twice"
                eventually(lambda: len(went) > before)
        finally:
            is_over.set()
            thread.join()


def test_a_join_by_call_stands_when_it_is_answered(node):
    with node.connect() as client:
        own = connection_id(client)
        for _ in range(2):
            assert call(node, "PUT", f"@connections/{own}/groups/moon") == ""
            assert request(node.address, "POST", "/beta/@groups/moon", b"hello")[0].status == 200
            assert client.recv(timeout=10) == "hello"
        assert call(node, "PUT", f"@connections/{own}/groups/a%2Fb") == ""
        groups = call(node, "GET", f"@connections/{own}/groups")
        fits(node, "GroupNames", groups)
        assert groups == {"groups": ["a/b", "moon"]}
        for _ in range(2):
            assert call(node, "DELETE", f"@connections/{own}/groups/moon", 204) == ""
        assert request(node.address, "POST", "/beta/@groups/moon", b"not for you")[0].status == 200
        assert call(node, "GET", f"@connections/{own}/groups") == {"groups": ["a/b"]}
        assert ask(client, "next") == "next"


def test_a_connection_joins_no_more_groups_than_it_may(start):
    node = start("[limits]\ngroups_per_connection = 2")
    with node.connect() as client:
        own = connection_id(client)
        for group in ("a", "b", "a"):
            assert call(node, "PUT", f"@connections/{own}/groups/{group}") == ""
        error = call(node, "PUT", f"@connections/{own}/groups/c", 429, "LimitExceededException")
        assert error["message"] == "The connection is in as many groups as it may be"
        call(node, "DELETE", f"@connections/{own}/groups/a", 204)
        call(node, "PUT", f"@connections/{own}/groups/c")


@pytest.mark.parametrize("method, path", [("PUT", "groups/moon"), ("DELETE", "groups/moon"), ("GET", "groups")])
def test_memberships_of_who_is_gone_are_gone(node, method, path):
    assert call(node, method, f"@connections/{UNKNOWN_ID}/{path}", 410, "GoneException") == ""
    error = call(node, method, f"@connections/short/{path}", 400, "BadRequestException")
    assert error == {"message": "Invalid connectionId: short"}


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "query, said",
    [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=ten", "limit"), ("limit=", "limit"), ("limit=-1", "limit"),
     ("cursor=", "cursor"), ("cursor=AAAA", "cursor"), ("cursor=%22", "cursor"), ("limt=1", "limit and cursor")],
)
def test_what_is_no_page_is_a_bad_request_that_says_why(node, path, query, said):
    error = call(node, "GET", f"{path}?{query}", 400, "BadRequestException")
    assert said in error["message"]


def test_the_cursor_of_another_list_is_refused(node):
    with node.connect() as one, node.connect() as two:
        for client in (one, two):
            connection_id(client)
            ask(client, JOIN % "moon")
            ask(client, JOIN % "sun")
        of_connections = call(node, "GET", "@connections?limit=1")["cursor"]
        of_groups = call(node, "GET", "@groups?limit=1")["cursor"]
        assert of_connections and of_groups
        call(node, "GET", f"@groups?cursor={of_connections}", 400, "BadRequestException")
        call(node, "GET", f"@connections?cursor={of_groups}", 400, "BadRequestException")


@pytest.mark.parametrize("path", ["@groups/%00", "@users/" + "x" * 129, f"@connections/{UNKNOWN_ID}/groups/%0A"])
def test_a_name_that_no_group_may_have_is_a_bad_request(node, path):
    suffix, method = ("", "PUT") if "@connections" in path else ("/connections", "GET")
    error = call(node, method, path + suffix, 400, "BadRequestException")
    assert "1 to 128 bytes" in error["message"]


@pytest.mark.parametrize("path", [*LISTS, "@counts", "@openapi"])
def test_lists_are_only_read_and_only_of_the_own_stage(node, path):
    if not path.startswith(("@connections", "@groups", "@users")):
        call(node, "POST", path, 405, "BadRequestException")
    call(node, "PATCH", path, 405, "BadRequestException")
    response, body = request(node.address, "GET", f"/prod/{path}")
    assert (response.status, body) == (403, b'{"message":"Forbidden"}')


def test_a_node_without_redis_keeps_no_history_and_says_so(node):
    error = call(node, "GET", "@groups/moon/history", 404, "NotFoundException")
    assert "Redis" in error["message"]


@pytest.mark.parametrize("query, said", [("limit=101", "limit"), ("after=-1", "after"), ("after=x", "after"), ("cursor=1", "after")])
def test_what_is_no_page_of_a_history_is_a_bad_request(node, query, said):
    assert said in call(node, "GET", f"@groups/moon/history?{query}", 400, "BadRequestException")["message"]


@pytest.mark.parametrize("path", [*LISTS, "@counts", "@openapi", f"@connections/{UNKNOWN_ID}/groups"])
def test_lists_are_signed_where_there_are_keys(start, path):
    node = start(**KEYS)
    for port in (node.address, node.admin_address):
        call(node, "GET", path, 403, "MissingAuthenticationTokenException")
        expected = 410 if UNKNOWN_ID in path else 200
        response, body = signed(port, "GET", f"/beta/{path}")
        assert response.status == expected, body
        assert is_uuid(response.headers["x-amzn-requestid"])
        if path in LISTS:
            assert signed(port, "GET", f"/beta/{path}?limit=1&X-Amz-Security-Token=a%2Fb")[0].status == 200
            response, _ = signed(port, "GET", f"/beta/{path}?limit=1", secret="not it")
            assert (response.status, response.headers["x-amzn-ErrorType"]) == (403, "InvalidSignatureException")


def test_a_signature_covers_the_page_that_was_asked_for(start):
    node = start(**KEYS)
    with node.connect() as one, node.connect() as two:
        ids = sorted(identified([one, two]))
        response, body = signed(node.address, "GET", "/beta/@connections?limit=1")
        assert response.status == 200, body
        first = json.loads(body)
        response, body = signed(node.address, "GET", f"/beta/@connections?limit=1&cursor={first['cursor']}")
        assert response.status == 200, body
        second = json.loads(body)
        assert sorted(row["connectionId"] for row in first["connections"] + second["connections"]) == ids


def test_a_signature_for_a_connection_is_none_for_its_groups(start):
    node = start(**KEYS)
    path = f"/beta/@connections/{UNKNOWN_ID}"
    headers = signature(node.address, "DELETE", path)
    for other in ("/groups/..", "/groups/../", "/groups/%2E%2E", "/groups/moon"):
        response, body = request(node.address, "DELETE", path + other, headers=headers)
        assert response.status == 403, (other, body)
    assert request(node.address, "DELETE", path, headers=headers)[0].status == 410


def test_a_web_page_may_not_list_who_is_connected(node):
    response, _ = request(node.address, "GET", "/beta/@connections", headers={"Origin": "http://evil.example"})
    assert response.status == 403


def test_calls_are_counted_by_what_they_are(node):
    with node.connect() as client:
        own = connection_id(client)
        call(node, "PUT", f"@connections/{own}/groups/moon")
        call(node, "DELETE", f"@connections/{own}/groups/moon", 204)
        call(node, "GET", "@connections?limit=0", 400)
        call(node, "GET", "@connections")
        call(node, "GET", "@counts")
        call(node, "GET", "@openapi")
    expected = {("join", "200"), ("leave", "204"), ("list", "400"), ("list", "200"), ("count", "200"), ("openapi", "200")}
    for operation, status in expected:
        labels = {"operation": operation, "status": status}
        assert node.metric("gatecast_management_requests_total", **labels) == 1, labels


def test_gauges_are_zero_after_any_end_of_connections(start):
    node = start('trusted_proxies = ["127.0.0.1"]\n[limits]\noutbox_bytes = 262144\nclose_timeout = "300ms"\n[auth]\nuser_header = "x-user"')
    gauges = ["gatecast_connections", "gatecast_group_members", "gatecast_channels", "gatecast_outbox_bytes"]

    waiting = []

    def live(number):
        for turn in range(3):
            client = Socket(node.address, receive_buffer=4096).upgrade(x_user=f"user {number % 3}")
            own = client.connection_id()
            for group in range(5):
                call(node, "PUT", f"@connections/{own}/groups/group%20{group + turn}")
            # More than the socket takes, so that something waits when the end comes.
            while request(node.address, "POST", f"/beta/@connections/{own}", b"x" * 120_000)[0].status == 200:
                pass
            waiting.append(node.metric("gatecast_outbox_bytes"))
            if turn == 0:
                client.reset()
            elif turn == 1:
                request(node.address, "DELETE", f"/beta/@connections/{own}")
                client.raw.close()
            else:
                client.raw.close()

    threads = [threading.Thread(target=live, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    eventually(lambda: node.metric("gatecast_group_members") > 5)
    for thread in threads:
        thread.join()
    assert node.metric("gatecast_connections_opened_total") == 18
    assert min(waiting) > 0
    eventually(lambda: [node.metric(name) for name in gauges] == [0] * 4)
    assert call(node, "GET", "@counts")["connections"] == 0
    assert everything(node, "@connections") == everything(node, "@groups") == []
