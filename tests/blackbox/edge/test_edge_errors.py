"""What load balancers themselves answer, and what they pass on: always in the form that SDKs read."""

import json
import socket
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from edge import LOOPBACK, HaProxy, Nginx
from gatecast import connection_id, request
from javascript import errors, run
from management import KEYS, MESSAGE_MAX, UNKNOWN_ID, sdk
from wire import Socket

BALANCERS = pytest.mark.parametrize("kind", [HaProxy, Nginx])
MIB = 1 << 20
UNAVAILABLE = (503, "ServiceUnavailableException")


@contextmanager
def listening(answer):
    """A server that reads once from each connection and then sends `answer`, or holds its peace if that is `None`."""
    held = []

    def serve(server):
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            held.append(peer)
            peer.recv(1 << 16)
            if answer is not None:
                peer.sendall(answer)
                peer.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)
    for peer in held:
        peer.close()


@contextmanager
def node_that_answers(answer):
    """A node that is ready, whatever else it does."""
    ready = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with listening(ready) as admin, listening(answer) as public:
        yield SimpleNamespace(address=public, admin_address=admin)


def told(response, body):
    """Status and kind of an error, whose body says in JSON what it is."""
    assert response.headers["content-type"] == "application/json"
    assert json.loads(body)["message"]
    return response.status, response.headers["x-amzn-ErrorType"]


def raw(balancer, data):
    """As `told`, for a request whose bytes we choose."""
    with Socket(balancer.address, within=30) as client:
        status, headers, body = client.send(data).response()
    assert headers["content-type"] == "application/json", (headers, body)
    assert json.loads(body)["message"]
    return status, headers["x-amzn-errortype"]


@pytest.fixture
def balanced(start, start_balancer):
    """A node with keys behind a load balancer."""
    return lambda kind: start_balancer(kind, [start(**KEYS | LOOPBACK)] * 3)


@BALANCERS
def test_sdks_read_what_is_too_large_or_not_there(balanced, kind):
    balancer = balanced(kind)
    calls = [("GetConnection", UNKNOWN_ID), ("GetConnection", "no-id"), ("PostToConnection", UNKNOWN_ID, b"x" * (MESSAGE_MAX + 1))]
    names = [("GoneException", 410), ("BadRequestException", 400), ("PayloadTooLargeException", 413)]
    assert errors(run(balancer.management, *calls)) == names
    assert errors(run(balancer.management, calls[0], secret="another")) == [("InvalidSignatureException", 403)]
    api = sdk(balancer.management)
    for size in (MESSAGE_MAX + 1, MIB):
        with pytest.raises(api.exceptions.PayloadTooLargeException):
            api.post_to_connection(ConnectionId=UNKNOWN_ID, Data=b"x" * size)


def test_sdks_read_what_is_too_large_for_nginx(balanced):
    balancer = balanced(Nginx)
    with pytest.raises(ClientError) as caught:
        sdk(balancer.management).post_to_connection(ConnectionId=UNKNOWN_ID, Data=b"x" * (9 * MIB))
    assert caught.value.response["Error"] == {"Code": "PayloadTooLargeException", "Message": "Payload Too Large"}
    assert errors(run(balancer.management, ("PostToConnection", UNKNOWN_ID, b"x" * (9 * MIB)))) == [("PayloadTooLargeException", 413)]


@BALANCERS
def test_sdks_read_that_no_node_is_there(start, start_balancer, kind):
    node = start(**KEYS | LOOPBACK)
    balancer = start_balancer(kind, [node] * 3)
    with balancer.connect() as client:
        connection_id(client)
    node.is_ended_by_test = True
    node.kill()
    with pytest.raises(ClientError) as caught:
        sdk(balancer.management).post_to_connection(ConnectionId=UNKNOWN_ID, Data=b"x")
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailableException"
    assert errors(run(balancer.management, ("GetConnection", UNKNOWN_ID))) == [("ServiceUnavailableException", 503)]
    response, body = request(balancer.address, "GET", "/beta")
    assert told(response, body) == UNAVAILABLE and response.headers["retry-after"] == "5"


class ImpatientHaProxy(HaProxy):
    """Waits for a node no longer than a test can."""

    def write(self):
        super().write()
        self.edit("haproxy.cfg", r"timeout server +30s", "timeout server 1s")


class ImpatientNginx(Nginx):
    """As the other."""

    def write(self):
        super().write()
        self.edit("nginx.conf", r"proxy_read_timeout \w+;", "proxy_read_timeout 1s;")


NO_FIELD = b"HTTP/1.1 200 OK\r\nna\0me: x\r\n\r\n"


@pytest.mark.parametrize("answer", [NO_FIELD, b"", None], ids=["nonsense", "nothing", "silence"])
@pytest.mark.parametrize("kind", [ImpatientHaProxy, ImpatientNginx])
def test_a_node_that_does_not_answer_as_it_should_is_unavailable(start_balancer, kind, answer):
    with node_that_answers(answer) as node:
        balancer = start_balancer(kind, [node] * 3)
        for path in ("/beta", "/beta/@broadcast"):
            response, body = request(balancer.address, "POST", path, b"hello")
            assert told(response, body)[1] == "ServiceUnavailableException"
            assert response.status in (502, 503, 504) and response.headers["retry-after"] == "5"


def ask(line, *fields, body=b""):
    return "\r\n".join([line, "Host: gate", *fields, "", ""]).encode() + body


HUGE = b"900000\r\n" + b"x" * (9 * MIB) + b"\r\n0\r\n\r\n"
REFUSED = {
    "no request": (b"hello\r\n\r\n", 400),
    "a field that is none": (ask("GET /beta HTTP/1.1", "no field"), 400),
    "a length that is none": (ask("POST /beta/@broadcast HTTP/1.1", "Content-Length: x"), 400),
    "a chunk that is none": (ask("POST /beta/@broadcast HTTP/1.1", "Transfer-Encoding: chunked", body=b"zz\r\n"), 400),
    "a target over 16 KiB": (ask(f"GET /beta?{'x' * 20_000} HTTP/1.1"), 414),
    "a target over all buffers": (ask(f"GET /{'x' * 70_000} HTTP/1.1"), 414),
    "a field over 16 KiB": (ask("GET /beta HTTP/1.1", f"X: {'y' * 20_000}"), 431),
    "a method that nobody has": (ask("TRACE /beta HTTP/1.1"), 405),
    "a tunnel": (ask("CONNECT gate:443 HTTP/1.1"), 400),
    "another coding": (ask("POST /beta/@broadcast HTTP/1.1", "Transfer-Encoding: gzip"), 501),
    "another version": (ask("GET /beta HTTP/9.9"), 505),
    "more than 8 MiB": (ask("POST /beta/@broadcast HTTP/1.1", f"Content-Length: {9 * MIB}", body=b"x" * 1000), 413),
    "more than 8 MiB in chunks": (ask("POST /beta/@broadcast HTTP/1.1", "Transfer-Encoding: chunked", body=HUGE), 413),
    "a place of its own": (ask("GET /-/too-large HTTP/1.1"), 403),
}


@pytest.fixture(scope="module")
def nginx(start_shared, tmp_path_factory):
    balancer = Nginx(tmp_path_factory.mktemp("edge") / "nginx", [start_shared(**KEYS | LOOPBACK)] * 3)
    yield balancer
    balancer.end()


@pytest.mark.parametrize("sent, status", REFUSED.values(), ids=REFUSED)
def test_nginx_says_in_json_what_it_refuses(nginx, sent, status):
    kinds = {413: "PayloadTooLargeException", 501: "NotImplementedException", 403: "ForbiddenException"}
    assert raw(nginx, sent) == (status, kinds.get(status, "BadRequestException"))
    assert request(nginx.address, "GET", "/beta")[0].status == 426, "it serves on"


def test_haproxy_says_in_json_what_it_answers_itself(balanced):
    kinds = {400: "BadRequestException", 403: "ForbiddenException", 405: "BadRequestException", 408: "RequestTimeoutException",
             413: "PayloadTooLargeException", 429: "TooManyRequestsException", 500: "InternalServerErrorException",
             501: "NotImplementedException"} | dict.fromkeys([502, 503, 504], "ServiceUnavailableException")
    balancer = balanced(HaProxy)
    rules = "".join(f"    http-request deny deny_status {status} if {{ path /{status} }}\n" for status in kinds)
    balancer.edit("haproxy.cfg", r"^    # A node's word to HAProxy", rules + "    # A node's word to HAProxy")
    balancer.reload()
    for status, kind in kinds.items():
        response, body = request(balancer.address, "GET", f"/{status}")
        assert told(response, body) == (status, kind)
        assert (response.headers["retry-after"] == "5") == (status in (429, 502, 503, 504))


def test_a_head_that_is_too_long_for_a_node_is_refused_by_it_behind_haproxy(balanced):
    balancer = balanced(HaProxy)
    long_field, long_target = ask("GET /beta HTTP/1.1", f"X: {'y' * 20_000}"), ask(f"GET /beta?{'x' * 20_000} HTTP/1.1")
    for sent, expected in ((long_field, 431), (long_target, 414)):
        with Socket(balancer.address) as client:
            status, _, body = client.send(sent).response()
        assert status == expected and (not body or json.loads(body)["message"])
