"""Who a trusted proxy says a client is, and where a page comes from: one readable value, or no connection."""

import json

import pytest

from gatecast import connection_id, request
from wire import Socket, handshake

USER = 'trusted_proxies = ["127.0.0.1"]\nauth.user_header = "X-User"\n'
UNREADABLE = {
    "Latin-1": [b"Jos\xe9"],
    "half a letter": [b"Jos\xc3"],
    "twice": [b"tom", b"ann"],
    "twice the same": [b"tom", b"tom"],
    "empty": [b""],
    "blank": [b"   "],
    "long": [b"x" * 129],
    "a tab": [b"to\tm"],
    "C1 control characters": ["to\u0085m".encode()],
}


def answer(node, *lines):
    """The status and body of a handshake with more header lines."""
    plain = handshake()
    with Socket(node.address) as client:
        client.send(plain[: -len(b"\r\n")] + b"".join(line + b"\r\n" for line in lines) + b"\r\n")
        return client.response()


@pytest.fixture(scope="module")
def node(start_shared):
    return start_shared(USER, RUST_LOG="debug")


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_user_that_cannot_be_read_is_not_let_in_as_nobody(node, name):
    before = node.metric("gatecast_handshakes_rejected_total", reason="user")
    status, _, body = answer(node, *(b"X-User: " + value for value in UNREADABLE[name]))
    assert status == 400
    assert "user's name" in json.loads(body)["message"]
    assert node.metric("gatecast_handshakes_rejected_total", reason="user") == before + 1


def test_refusals_are_in_the_log_without_what_the_header_said(node):
    assert answer(node, b"X-User: swordfish\xe9")[0] == 400
    assert 'cause="user"' in node.log()
    assert "swordfish" not in node.log()


@pytest.mark.parametrize("name, path", [("José", "Jos%C3%A9"), ("東京", "%E6%9D%B1%E4%BA%AC"), ("a, b", "a%2C%20b"), ("tom", "tom")])
def test_a_user_is_addressed_by_the_same_name(node, name, path):
    plain = handshake()
    with Socket(node.address) as client:
        client.send(plain[: -len(b"\r\n")] + b"X-User: " + name.encode() + b"\r\n\r\n")
        assert client.response()[0] == 101
        response, body = request(node.address, "GET", f"/beta/@users/{path}/connections")
        assert response.status == 200
        assert [one["user"] for one in json.loads(body)["connections"]] == [name]


def test_without_the_header_a_client_is_nobody(node):
    with node.connect() as client:
        own = connection_id(client)
        listed = json.loads(request(node.address, "GET", "/beta/@connections")[1])["connections"]
        assert [one["user"] for one in listed if one["connectionId"] == own] == [None]


def test_what_a_stranger_calls_themselves_is_not_looked_at(node):
    with node.connect(source_address=("127.0.0.9", 0), additional_headers={"X-User": "Jos\xe9"}) as client:
        assert connection_id(client)


@pytest.mark.parametrize("path", ["%FF", "Jos%E9", "%C3", "a%", "a%4", "%zz"])
def test_a_name_in_a_path_that_cannot_be_read_is_nobodys(node, path):
    for place in (f"@users/{path}", f"@groups/{path}"):
        response, body = request(node.address, "POST", f"/beta/{place}", b"hello")
        assert response.status == 400, place
        assert json.loads(body)["message"]


@pytest.mark.parametrize("query", ["limit=1&limit=2", "limit=+5", "limit=%FF", "limit=", "limit=1e2", "cursor=%zz", "cursor=a&cursor=a",
                                   "limit=5&limit=5", "limit=%31%"])
def test_a_parameter_that_cannot_be_read_is_refused(node, query):
    response, body = request(node.address, "GET", f"/beta/@connections?{query}")
    assert response.status == 400
    assert json.loads(body)["message"]


ALLOWED = 'auth.allowed_origins = ["https://good.example/", "HTTPS://*.Wild.example", "http://localhost:*", "https://port.example:443"]\n'


def test_an_origin_is_known_however_it_is_spelled(start):
    node = start(ALLOWED)
    for origin in ("https://good.example", "https://good.example:443", "https://GOOD.example", "https://a.wild.example",
                   "https://a.b.wild.example", "http://localhost:5173", "https://port.example"):
        assert answer(node, f"Origin: {origin}".encode())[0] == 101, origin
    refused = (b"https://evil.example", b"http://good.example", b"https://good.example:444", b"https://wild.example",
               b"https://evilwild.example", b"null", b"", b"https://good.example/", b"https://good.example, https://good.example",
               b"https://good.example https://evil.example", b"https://good.example\xff", b"https://x@good.example")
    for origin in refused:
        assert answer(node, b"Origin: " + origin)[0] == 403, origin
    assert answer(node, b"Origin: https://good.example", b"Origin: https://evil.example")[0] == 403
    assert answer(node)[0] == 101
    assert node.metric("gatecast_handshakes_rejected_total", reason="origin") == len(refused) + 1


def test_a_star_is_every_origin(start):
    node = start('auth.allowed_origins = ["*"]')
    for origin in (b"https://any.example", b"null", b"file://", b"\xff"):
        assert answer(node, b"Origin: " + origin)[0] == 101, origin
