"""The management API on the wire: the exact bytes, paths as people type them, and who is let in."""

import json
import re

import pytest

from gatecast import command, connection_id, request
from management import KEYS, MESSAGE_MAX, SECRET, UNKNOWN_ID, is_uuid, sdk, signature, signed

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def get_body(user_agent):
    pattern = (
        '{\n  "identity" : {\n    "sourceIp" : "127.0.0.1",\n    "userAgent" : AGENT\n  },\n'
        '  "connectedAt" : "TIME",\n  "lastActiveAt" : "TIME"\n}'
    )
    return re.escape(pattern).replace("AGENT", re.escape(user_agent)).replace("TIME", TIME)


@pytest.fixture(scope="module")
def open_node(start_shared):
    """Without keys, on loopback."""
    return start_shared()


@pytest.fixture(scope="module")
def locked_node(start_shared):
    return start_shared(**KEYS)


@pytest.mark.parametrize("agent, shown", [(None, "null"), ("a \"quoted\" agent", '"a \\"quoted\\" agent"')])
def test_the_body_of_get_is_that_of_the_contract_byte_for_byte(open_node, agent, shown):
    with open_node.connect(user_agent_header=agent) as client:
        response, body = request(open_node.address, "GET", f"/beta/@connections/{connection_id(client)}")
        assert response.status == 200
        assert response.headers["content-type"] == "application/json"
        assert re.fullmatch(get_body(shown), body.decode()), body
        json.loads(body)


@pytest.mark.parametrize(
    "prefix", ["/beta/@connections/", "/beta/%40connections/", "/beta//@connections/", "//beta/@connections//"]
)
def test_paths_as_people_and_sdks_write_them_are_understood(open_node, locked_node, prefix):
    with open_node.connect() as client:
        own = connection_id(client)
        for spelled in (own, own.replace("=", "%3D")):
            assert request(open_node.address, "POST", prefix + spelled, b"hello")[0].status == 200
            assert client.recv(timeout=10) == "hello"
    with locked_node.connect() as client:
        own = connection_id(client)
        for spelled in (own, own.replace("=", "%3D")):
            response, body = signed(locked_node.address, "POST", prefix + spelled, b"hello")
            assert response.status == 200, body
            assert client.recv(timeout=10) == "hello"


def test_an_answer_to_delete_is_empty(open_node):
    with open_node.connect() as client:
        response, body = request(open_node.address, "DELETE", f"/beta/@connections/{connection_id(client)}")
        assert (response.status, body) == (204, b"")
        assert is_uuid(response.headers["x-amzn-requestid"])


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize(
    "path, status, error_type, body",
    [
        (f"/beta/@connections/{UNKNOWN_ID}", 410, "GoneException", b""),
        ("/beta/@connections/WDGT8fY4joECJrQ=test", 400, "BadRequestException",
         b'{"message":"Invalid connectionId: WDGT8fY4joECJrQ=test"}'),
        (f"/prod/@connections/{UNKNOWN_ID}", 403, "ForbiddenException", b'{"message":"Forbidden"}'),
        (f"/@connections/{UNKNOWN_ID}", 403, "ForbiddenException", b'{"message":"Forbidden"}'),
    ],
)
def test_errors_have_the_bytes_of_the_contract(open_node, method, path, status, error_type, body):
    response, got = request(open_node.address, method, path, b"hello" if method == "POST" else None)
    assert (response.status, response.headers["x-amzn-ErrorType"], got) == (status, error_type, body)
    assert response.headers["content-type"] == "application/json"
    assert is_uuid(response.headers["x-amzn-requestid"])


@pytest.mark.parametrize("port", ["address", "admin_address"])
def test_an_unsigned_request_is_refused_where_there_are_keys(locked_node, port):
    with locked_node.connect() as client:
        path = f"/beta/@connections/{connection_id(client)}"
        for method in ("POST", "GET", "DELETE"):
            response, body = request(getattr(locked_node, port), method, path, b"hi" if method == "POST" else None)
            assert response.status == 403
            assert response.headers["x-amzn-ErrorType"] == "MissingAuthenticationTokenException"
            assert body == b'{"message":"Missing Authentication Token"}'
        client.ping().wait(timeout=10)


def test_a_body_changed_on_the_way_does_not_match_its_signature(locked_node):
    path = f"/beta/@connections/{UNKNOWN_ID}"
    headers = signature(locked_node.address, "POST", path, b"pay 1")
    response, _ = request(locked_node.address, "POST", path, b"pay 9", headers)
    assert (response.status, response.headers["x-amzn-ErrorType"]) == (403, "InvalidSignatureException")


def test_a_payload_too_large_is_answered_not_reset(open_node):
    with open_node.connect() as client:
        path = f"/beta/@connections/{connection_id(client)}"
        for size in (MESSAGE_MAX + 1, 4 << 20):
            response, body = request(open_node.address, "POST", path, b"x" * size)
            assert (response.status, response.headers["x-amzn-ErrorType"]) == (413, "PayloadTooLargeException")
            assert json.loads(body)["message"]


def test_a_web_page_may_not_call_an_open_management_api(open_node):
    headers = {"Origin": "http://evil.example"}
    response, _ = request(open_node.address, "GET", f"/beta/@connections/{UNKNOWN_ID}", headers=headers)
    assert response.status == 403


def test_keys_of_the_file_work_beside_those_of_the_environment(start):
    node = start('[[management.keys]]\nid = "AKIDSECOND"\nsecret = "second secret"\n', **KEYS)
    with node.connect() as client:
        own = connection_id(client)
        sdk(node.management).get_connection(ConnectionId=own)
        sdk(node.management, key_id="AKIDSECOND", secret="second secret").get_connection(ConnectionId=own)


def test_no_secret_is_in_the_log(start):
    node = start(**KEYS, RUST_LOG="trace")
    with node.connect() as client:
        own = connection_id(client)
        sdk(node.management).post_to_connection(ConnectionId=own, Data=b"hello")
        response, _ = signed(node.address, "GET", f"/beta/@connections/{own}", secret="not it")
        assert response.status == 403
    assert own in node.log()
    assert SECRET not in node.log()


@pytest.mark.parametrize("option, other", [("--listen", "--admin-listen"), ("--admin-listen", "--listen")])
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_a_public_port_without_keys_is_refused_at_start(option, other, address):
    ended = command(option, address, other, "127.0.0.1:0")
    assert ended.returncode == 64
    assert ended.stdout == ""
    message = ended.stderr
    for part in (address, "access_key_id", "secret_access_key", "loopback", 'management.auth = "none"'):
        assert part in message


def test_a_public_port_with_keys_or_by_name_starts(start):
    start(listen="0.0.0.0:0", **KEYS)
    start('management.auth = "none"', listen="0.0.0.0:0")
