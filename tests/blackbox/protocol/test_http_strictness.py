"""HTTP as RFC 9110 and RFC 9112 have it, and handshakes as RFC 6455: what is taken, what is refused, and what a refusal says."""

import json

import pytest

from gatecast import connection_id, request
from wire import Socket, answer, handshake

RFC_KEY, RFC_ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
PORTS = ["address", "admin_address"]


@pytest.fixture(scope="module")
def node(start_shared):
    return start_shared(RUST_LOG="gatecast=debug")


@pytest.fixture(autouse=True)
def serves_on(node):
    yield
    node.serves()


def lines(first, *fields):
    return "\r\n".join([first, *fields, "", ""]).encode("latin-1")


def refused(address, data, status, *parts):
    """Asserts that a request is refused with JSON whose message has these parts."""
    got, headers, body = answer(address, data)
    assert (got, headers["content-type"]) == (status, "application/json"), (got, headers, body)
    assert headers["x-amzn-errortype"]
    message = json.loads(body)["message"]
    for part in parts:
        assert part in message, message
    return headers


METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "BREW"]
TARGETS = ["a:443", "beta", "*", "@broadcast:80", "@connections", "localhost", "user@localhost:80", "[::1]:80", "127.0.0.1:80",
           "ftp://localhost/beta", "http://user@localhost/beta", "beta/@connections", "?a=b", "b%C3%A9ta", "http://", "http:///beta",
           "://", ":", "..", "beta@", "h:p:q", "\xe9"]


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_names_no_path_is_a_bad_request_whatever_the_method(node, port, target):
    for method in METHODS:
        data = lines(f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close")
        status, headers, body = answer(getattr(node, port), data, has_body=method != "HEAD")
        assert status == 400, (method, status, body)
        if method != "HEAD":
            assert headers["content-type"] == "application/json"
            assert json.loads(body)["message"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_handshake_for_such_a_target_is_a_bad_request(node, target):
    data = handshake().replace(b"/beta", target.encode("latin-1"), 1)
    with Socket(node.address) as client:
        assert client.send(data).response()[0] == 400


def test_http_goes_on_behind_a_target_that_is_refused(node):
    with Socket(node.address) as client:
        client.send(lines("GET beta HTTP/1.1", "Host: localhost") + handshake())
        assert client.response()[0] == 400
        assert client.response(has_body=False)[0] == 101


def test_a_target_in_absolute_form_is_the_path_and_the_host_that_it_names(node):
    host, port = node.address
    for target in (f"http://{host}:{port}/beta", "HTTP://localhost/beta?token=a", "https://localhost:443/beta/"):
        with Socket(node.address) as client:
            data = handshake(target, Host="elsewhere.example")
            assert client.send(data).response(has_body=False)[0] == 101, "the header does not count"
    # Who asks for another host is no program of this one.
    refused(node.address, handshake("http://elsewhere.example/beta"), 403)
    assert answer(node.admin_address, lines("GET http://localhost/live HTTP/1.1", "Host: localhost"))[0] == 200
    data = lines(f"GET http://{host}:{port}/beta/@counts HTTP/1.1", f"Host: {host}:{port}")
    assert answer(node.address, data)[0] == 200


HOSTS = {"none": (), "two": ("Host: localhost", "Host: localhost"), "two that differ": ("Host: a", "Host: b"),
         "a user": ("Host: me@localhost",), "a URL": ("Host: http://localhost",), "no port": ("Host: localhost:http",),
         "a list": ("Host: a, b",)}


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("hosts", HOSTS.values(), ids=HOSTS)
def test_there_is_exactly_one_host(node, port, hosts):
    refused(getattr(node, port), lines("GET /live HTTP/1.1", *hosts), 400, "Host")


@pytest.mark.parametrize("hosts", HOSTS.values(), ids=HOSTS)
def test_a_handshake_has_exactly_one_host(node, hosts):
    data = handshake(Host=None).replace(b"Connection:", b"".join(host.encode() + b"\r\n" for host in hosts) + b"Connection:", 1)
    refused(node.address, data, 400, "Host")


def test_an_old_client_needs_no_host(node):
    assert answer(node.admin_address, lines("GET /live HTTP/1.0"))[0] == 200


@pytest.mark.parametrize(
    "key", [RFC_KEY, "AQIDBAUGBwgJCgsMDQ4PEC==", "AQIDBAUGBwgJCgsMDQ4PEF==", "AQIDBAUGBwgJCgsMDQ4PEA==", "/////////////////////w=="]
)
def test_a_key_is_16_bytes_in_base64_as_the_rfc_writes_it(node, key):
    with Socket(node.address) as client:
        status, headers, _ = client.send(handshake(Sec_WebSocket_Key=key)).response(has_body=False)
    assert status == 101
    assert key != RFC_KEY or headers["sec-websocket-accept"] == RFC_ACCEPT


@pytest.mark.parametrize("key", ["AQIDBAUGBwgJCgsMDQ4PEC", "AQIDBAUGBwgJCgsMDQ4PEC=", "AQIDBAUGBwgJCgsMDQ4PEBE=", "AQID BAUGBwgJCgsMDQ4PEC=="])
def test_another_key_is_refused(node, key):
    refused(node.address, handshake(Sec_WebSocket_Key=key), 400, "Sec-WebSocket-Key", "16 bytes")


@pytest.mark.parametrize("name", ["Sec-WebSocket-Key", "Sec-WebSocket-Version"])
@pytest.mark.parametrize("same", [True, False])
def test_key_and_version_are_there_once(node, name, same):
    values = {"Sec-WebSocket-Key": ("AQIDBAUGBwgJCgsMDQ4PEA==", RFC_KEY), "Sec-WebSocket-Version": ("13", "8")}[name]
    second = values[0] if same else values[1]
    data = handshake(**{name: values[0]}).replace(b"\r\n\r\n", f"\r\n{name}: {second}\r\n\r\n".encode())
    refused(node.address, data, 400, name, "once")


@pytest.mark.parametrize("version", ["8", "0", "13, 8", "013", "13.0", None])
def test_another_version_is_told_which_there_is(node, version):
    headers = refused(node.address, handshake(Sec_WebSocket_Version=version), 426, "13")
    assert (headers["sec-websocket-version"], headers["upgrade"]) == ("13", "websocket")


def test_an_upgrade_over_http_1_0_is_told_so(node):
    refused(node.address, handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "HTTP/1.1", "HTTP/1.0")


def test_without_an_upgrade_the_answer_says_what_is_missing(node):
    for changes in ({"Upgrade": None}, {"Connection": "close"}, {"Upgrade": "h2c, TLS/1.0"}):
        refused(node.address, handshake(**changes), 426, "Upgrade: websocket", "proxy")


def test_a_handshake_has_no_body(node):
    for changes in ({"Content-Length": "1"}, {"Transfer-Encoding": "chunked"}):
        refused(node.address, handshake(**changes) + b"0\r\n\r\n", 400, "no body")
    with Socket(node.address) as client:
        assert client.send(handshake(Content_Length="0")).response(has_body=False)[0] == 101


def test_lists_may_be_in_any_case_and_on_several_lines(node):
    extra = b"\r\nConnection: keep-alive\r\nUpgrade: h2c\r\nSec-WebSocket-Extensions: x-a, permessage-deflate" \
        b"\r\nSec-WebSocket-Extensions: x-b; c=d\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: more\r\n\r\n"
    data = handshake(Connection=", Keep-Alive ,uPgRaDe", Upgrade="WEBSOCKET").replace(b"\r\n\r\n", extra)
    with Socket(node.address) as client:
        status, headers, _ = client.send(data).response(has_body=False)
    assert status == 101
    assert not {"sec-websocket-extensions", "sec-websocket-protocol"} & headers.keys()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_a_handshake_is_a_get(node, method):
    headers = refused(node.address, handshake().replace(b"GET", method.encode(), 1), 405, "GET")
    assert headers["allow"] == "GET"


PAGES = ["/live", "/ready", "/info", "/metrics", "/openapi.json"]


@pytest.mark.parametrize("path", PAGES)
def test_what_can_be_got_can_be_asked_for_with_head(node, path):
    got, body = request(node.admin_address, "GET", path)
    with Socket(node.admin_address) as client:
        client.send(lines(f"HEAD {path} HTTP/1.1", "Host: localhost") + lines("GET /live HTTP/1.1", "Host: localhost"))
        status, headers, _ = client.response(has_body=False)
        assert client.response()[2] == b'{"status":"live"}', "nothing was between the two answers"
    assert (status, headers["content-type"]) == (got.status, got.headers["content-type"])
    if path in ("/live", "/ready", "/openapi.json"):
        assert int(headers["content-length"]) == len(body)


@pytest.mark.parametrize("port", PORTS)
def test_lists_and_connections_can_be_asked_for_with_head(node, port):
    with node.connect() as client:
        for path in ("/beta/@connections", f"/beta/@connections/{connection_id(client)}", "/beta/@groups", "/beta/@counts"):
            got, _ = request(getattr(node, port), "GET", path)
            head, body = request(getattr(node, port), "HEAD", path)
            assert (head.status, body, head.headers["content-type"]) == (200, b"", got.headers["content-type"])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
@pytest.mark.parametrize("path", PAGES)
def test_another_method_is_told_which_there_are(node, path, method):
    headers = refused(node.admin_address, lines(f"{method} {path} HTTP/1.1", "Host: localhost"), 405, "GET, HEAD")
    assert headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(
    "path, allowed",
    [("/beta/@connections/L0SM9cOFvHcCIhw=", "GET, HEAD, POST, DELETE"), ("/beta/@broadcast", "POST"), ("/beta/@groups", "GET, HEAD"),
     ("/beta/@connections/L0SM9cOFvHcCIhw=/groups/moon", "PUT, DELETE")],
)
def test_a_call_with_another_method_is_told_which_there_are(node, port, path, allowed):
    for method in ("PATCH", "OPTIONS"):
        headers = refused(getattr(node, port), lines(f"{method} {path} HTTP/1.1", "Host: localhost"), 405, allowed)
        assert headers["allow"] == allowed


POST = "POST /beta/@broadcast HTTP/1.1"
FRAMING = {
    "an unknown coding": (lines(POST, "Host: localhost", "Transfer-Encoding: gzip, chunked"), 501, "chunked"),
    "an unknown expectation": (lines(POST, "Host: localhost", "Expect: more", "Content-Length: 1") + b"a", 417, "100-continue"),
}


NO_REQUESTS = {
    "TLS": (bytes.fromhex("1603010200010001fc0303") + bytes(range(64)), 400, "TLS"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 505, "HTTP/1.1"),
    "HTTP/3.0": (lines("GET /beta HTTP/3.0", "Host: localhost"), 400, "version"),
    "HTTP/0.9": (b"GET /beta\r\n\r\n", 400, "HTTP/1.1"),
    "no method": (lines(" /beta HTTP/1.1", "Host: localhost"), 400, "HTTP/1.1"),
    "no target": (lines("GET  HTTP/1.1", "Host: localhost"), 400, "HTTP/1.1"),
    "two targets": (lines("GET /beta /beta HTTP/1.1", "Host: localhost"), 400, "HTTP/1.1"),
    "a folded line": (lines("GET /beta HTTP/1.1", "Host: localhost", "X-A: b", " c"), 400, "header"),
    "a space before the colon": (lines("GET /beta HTTP/1.1", "Host : x"), 400, "header"),
    "a space before the first header": (lines("GET /beta HTTP/1.1", " Host: x"), 400, "header"),
    "a bare CR": (lines("GET /beta HTTP/1.1", "Host: localhost", "X-A: b\rc"), 400, "header"),
    "a bare CR behind the request line": (b"GET /beta HTTP/1.1\rHost: localhost\r\n\r\n", 400, "HTTP/1.1"),
    "a zero": (lines("GET /beta HTTP/1.1", "Host: localhost", "X-A: b\0c"), 400, "header"),
    "two lengths": (lines(POST, "Host: localhost", "Content-Length: 1", "Content-Length: 2") + b"ab", 400, "Content-Length"),
    "a signed length": (lines(POST, "Host: localhost", "Content-Length: +1") + b"a", 400, "Content-Length"),
    "a coding that does not end": (lines(POST, "Host: localhost", "Transfer-Encoding: chunked, gzip"), 400, "Transfer-Encoding"),
    "a coding in HTTP/1.0": (lines(POST.replace("1.1", "1.0"), "Transfer-Encoding: chunked"), 400, "Transfer-Encoding"),
    "a target of 20 KiB": (lines("GET /" + "x" * 20_000 + " HTTP/1.1", "Host: localhost"), 414, "16 KiB"),
    "a header of 20 KiB": (lines("GET /beta HTTP/1.1", "Host: localhost", "X-A: " + "x" * 20_000), 431, "16 KiB"),
    "101 headers": (lines("GET /beta HTTP/1.1", "Host: localhost", *["X-A: b"] * 100), 431, "100 header fields"),
}


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("data, status, part", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_is_no_request_is_told_why_and_ends_the_connection(node, port, data, status, part):
    with Socket(getattr(node, port)) as client:
        got, headers, body = client.send(data).response()
        message = json.loads(body)["message"]
        assert (got, headers["connection"], headers["content-type"]) == (status, "close", "application/json"), message
        assert headers["date"].endswith(" GMT") and headers["x-amzn-errortype"]
        assert part.lower() in message.lower()
        assert client.is_ended_by_server()


def test_a_body_with_two_ends_is_the_connections_last(node):
    """RFC 9112 §6.3: the chunks count, and what follows is not taken for a request."""
    smuggled = b"GET /beta/@counts HTTP/1.1\r\nHost: localhost\r\n\r\n"
    data = lines(POST, "Host: localhost", f"Content-Length: {len(smuggled) + 5}", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + smuggled
    with Socket(node.address) as client:
        _, headers, _ = client.send(data).response()
        assert "close" in headers["connection"]
        assert client.raw.recv(1) == b""


@pytest.mark.parametrize("data, status, part", FRAMING.values(), ids=FRAMING)
def test_what_is_not_understood_is_refused_by_name(node, data, status, part):
    refused(node.address, data, status, part)


def test_refusals_are_counted_and_logged(node):
    before = node.metric("gatecast_http_requests_refused_total", reason="target")
    for _ in range(12):
        refused(node.address, lines("GET beta HTTP/1.1", "Host: localhost"), 400, "path")
    assert node.metric("gatecast_http_requests_refused_total", reason="target") == before + 12
    refused(node.address, handshake(Sec_WebSocket_Key="short"), 400, "16 bytes")
    refused(node.address, lines("PATCH /beta/@groups HTTP/1.1", "Host: localhost"), 405, "GET, HEAD")
    log = node.log()
    assert 'refused what="management" cause="Method Not Allowed" address=127.0.0.1' in log
    assert 'refused what="request" cause="target" address=127.0.0.1' in log
    assert 'refused what="handshake" cause="malformed" address=127.0.0.1' in log
    assert "WARN" in log and "many refusals" in log
