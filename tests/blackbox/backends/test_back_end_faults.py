"""Back ends that are away, hang, break off or talk nonsense: the sender is told, it is counted, and nothing stays under way."""

import contextlib
import json
import socket
import threading

import pytest

from backend import BackEnd
from gatecast import ask, eventually
from ports import free_port

OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n{"statusCode":200,"body":"fine"}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
FAILED, LATE = "Internal server error", "Endpoint request timed out"


def says(*parts, then=None):
    def answer(connection, gone):
        for part in parts:
            connection.sendall(part)
        if then:
            then(connection, gone)

    return answer


def forever(part, pause=0.0):
    def answer(connection, gone):
        while not gone.wait(pause):
            connection.sendall(part)

    return answer


def nothing(_, gone):
    gone.wait(30)


# What the back end does once it has read a request; what the sender is told, and what is counted.
FAULTS = {
    "ends-at-once": (says(), FAILED, "failed"),
    "breaks-off-in-the-head": (says(OK[:30]), FAILED, "failed"),
    "breaks-off-in-the-body": (says(OK[:-5]), FAILED, "failed"),
    "breaks-off-in-a-chunk": (says(CHUNKED, CHUNK[:100]), FAILED, "failed"),
    "garbage": (says(b"\x16\x03\x01\x00\xff" * 100), FAILED, "failed"),
    "a-head-without-end": (says(OK[:17], then=forever(b"X-A: " + b"a" * 1000 + b"\r\n")), FAILED, "failed"),
    "a-body-without-end": (says(CHUNKED, then=forever(CHUNK)), FAILED, "failed"),
    "a-length-that-is-too-much": (says(OK[:-54].replace(b"32", b"99999999999"), then=nothing), LATE, "timeout"),
    "a-byte-now-and-then": (says(CHUNKED, then=forever(b"1\r\n \r\n", 0.05)), LATE, "timeout"),
    "hangs": (nothing, LATE, "timeout"),
    "hangs-in-the-body": (says(OK[:-5], then=nothing), LATE, "timeout"),
    "a-redirection": (says(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), FAILED, "failed"),
    "two-lengths": (says(OK.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n")), FAILED, "failed"),
    "switches-protocols": (says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), FAILED, "failed"),
}


class Rude:
    """Answers each request, by its path, as `FAULTS` says, and ends the connection."""

    def __init__(self):
        self.gone = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:{}/".format(self.listener.getsockname()[1])
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, contextlib.suppress(OSError):
            head = connection.makefile("rb")
            name = head.readline().split()[1].decode().strip("/")
            length = 0
            while (line := head.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            head.read(length)
            act = FAULTS[name][0] if name in FAULTS else says(OK)
            act(connection, self.gone)

    def close(self):
        self.gone.set()
        self.listener.close()


@pytest.fixture(scope="module")
def node(start_shared):
    rude = Rude()
    urls = {name: rude.url + name for name in (*FAULTS, "well")} | {"away": f"http://127.0.0.1:{free_port()}/"}
    tables = [
        f'[targets.{name}]\nurl = "{url}"\ntimeout = "500ms"\n'
        f'[routes.{name}]\nintegration = "http"\ntarget = "{name}"\ntwo_way = true\n'
        for name, url in urls.items()
    ]
    yield start_shared("\n".join(tables))
    rude.close()


def told(client, name):
    return ask(client, json.dumps({"action": name}))


@pytest.mark.parametrize("name", [*FAULTS, "away"])
def test_a_back_end_that_does_not_answer_as_it_should_is_told_and_counted(node, name):
    _, message, outcome = FAULTS.get(name, (None, FAILED, "unreachable"))
    labels = {"target": f"targets.{name}"}
    with node.connect() as client:
        assert json.loads(told(client, name))["message"] == message
        outcomes = {one.labels["outcome"]: one.value for one in node.samples()
                    if one.name == "gatecast_backend_calls_total" and one.labels["target"] == labels["target"] and one.value}
        assert outcomes == {outcome: 1}
        eventually(lambda: node.metric("gatecast_backend_calls_in_flight", **labels) == 0)
        assert node.metric("gatecast_backend_calls_waiting", **labels) == 0
        assert told(client, "well") == "fine"


def test_a_node_that_is_killed_with_calls_under_way_leaves_no_call_behind(start_on, redis):
    """Its clients' ends are told by another node, and no call that was under way is made again."""
    back_end = BackEnd()
    config = f"""
[targets.app]
url = "{back_end.url}"
[routes."$connect"]
integration = "http"
target = "app"
[routes."$disconnect"]
integration = "http"
target = "app"
[routes."$default"]
integration = "http"
target = "app"
"""
    nodes = start_on(redis, count=2, config=config, GATECAST_REDIS_LEASE="1s")
    with nodes[1].connect() as witness:
        clients = [nodes[0].connect() for _ in range(5)]
        go_on = back_end.hold("MESSAGE")
        for client in clients:
            client.send("hello")
        eventually(lambda: len(back_end.events("MESSAGE")) == 5)
        nodes[0].is_ended_by_test = True
        nodes[0].kill()
        eventually(lambda: len(back_end.events("DISCONNECT")) == 5, within=20)
        go_on.set()
        witness.send("still here")
        eventually(lambda: len(back_end.events("MESSAGE")) == 6)
    for client in clients:
        client.close()
    back_end.close()
