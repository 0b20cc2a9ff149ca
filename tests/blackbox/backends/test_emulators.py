"""The same application and the same cases here and in serverless-offline; docs/conformance.md says how each answers."""

import http.client
import json
import re
import shutil
import signal
import subprocess
import threading
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from functions import SUPPORT, function, route
from gatecast import ROOT, clean_environment, eventually
from ports import free_port
from terminal import NODE_MODULES

APP = SUPPORT / "emulator"
# Sent behind a message: where this is answered, nothing comes any more, but for what is a little later.
FENCE, LATE = '{"action":"answer","body":"fence"}', 0.3
UNKNOWN = "L0SM9cOFvHcCIhw="
# Of an event and its `requestContext`, in their order.
CONTEXT = "extendedRequestId requestTime messageDirection stage connectedAt requestTimeEpoch identity requestId domainName connectionId apiId"
KEYS = {
    "CONNECT": f"headers multiValueHeaders requestContext isBase64Encoded routeKey eventType {CONTEXT}",
    "MESSAGE": f"requestContext body isBase64Encoded routeKey messageId eventType {CONTEXT}",
    "DISCONNECT": "headers multiValueHeaders requestContext isBase64Encoded routeKey disconnectStatusCode eventType "
                  + CONTEXT.replace("messageDirection", "messageDirection disconnectReason"),
}


class Gateway:
    """Where clients connect, where back ends call, and the file of events."""

    def __init__(self, url, management, events):
        self.url, self.management, self.events_path = url, management, events

    def events(self, kind):
        lines = self.events_path.read_text().splitlines() if self.events_path.exists() else []
        return [event for event in map(json.loads, lines) if event["requestContext"]["eventType"] == kind]

    def event(self, kind, of):
        """The event of a kind of a connection."""
        mine = lambda: [event for event in self.events(kind) if event["requestContext"]["connectionId"] == of]
        return eventually(mine)[0]

    @contextmanager
    def client(self, **options):
        """A client that knows its id: that of the last who came in."""
        with connect(self.url, compression=None, ping_interval=None, close_timeout=2, proxy=None, **options) as client:
            client.connection = self.events("CONNECT")[-1]["requestContext"]["connectionId"]
            yield client

    def handshake(self, query="", **options):
        """What a client is told: a status, or 101 with the sub-protocol."""
        try:
            with connect(self.url + query, compression=None, proxy=None, **options) as client:
                return "101" + (f" {client.subprotocol}" if client.subprotocol else "")
        except InvalidStatus as refused:
            return str(refused.response.status_code)
        except (InvalidHandshake, OSError):
            return "cut"

    def told(self, message=None, **wishes):
        """What comes back for a message: text, a frame of the gateway, the close code, or nothing before another is answered."""
        with self.client() as client:
            client.send(message or json.dumps(wishes))
            try:
                client.send(FENCE)
                text = client.recv(timeout=20)
                if text == "fence":
                    text = client.recv(timeout=LATE)
            except TimeoutError:
                return "nothing"
            except ConnectionClosed as closed:
                return f"closed {closed.rcvd.code} {closed.rcvd.reason}".strip() if closed.rcvd else "cut"
            return re.sub(r'"(connectionId|requestId)": ?"[^"]+"', r'"\1":"…"', text)

    def call(self, method, path, body=None):
        """The status of a management call, its type of error, and how long its body is."""
        host, port = re.match(r"http://([^:/]+):(\d+)", self.management).groups()
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            prefix = self.management.split(f":{port}", 1)[1]
            connection.request(method, prefix + path, body)
            answer = connection.getresponse()
            self.body = answer.read().decode()
            kind = answer.headers.get("x-amzn-ErrorType", "")
            return " ".join(filter(None, [str(answer.status), kind, "" if self.body else "empty"]))
        finally:
            connection.close()

    def connection(self, method, client, body=None):
        return self.call(method, f"/@connections/{quote(client.connection, safe='')}", body)


def plain_get(gateway):
    host, port = re.match(r"ws://([^:/]+):(\d+)", gateway.url).groups()
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", re.sub(r"ws://[^/]+", "", gateway.url) or "/")
    return str(connection.getresponse().status)


def keys_of_event(gateway, kind):
    """In which keys an event is not as that of API Gateway, where `identity` and what is in it are the client's."""
    with gateway.client() as client:
        client.send('{"action":"quiet"}')
        gateway.event("MESSAGE", client.connection)
    event = gateway.event(kind, client.connection)
    found = [*event, *event["requestContext"]]
    there = KEYS[kind].split()
    parts = [("without", [key for key in there if key not in found]), ("with", [key for key in found if key not in there])]
    told = "; ".join(f"{word} {', '.join(f'`{key}`' for key in keys)}" for word, keys in parts if keys)
    return told or ("the same" if found == there else "the same, in another order")


def disconnect(gateway, close):
    with gateway.client() as client:
        close(client)
        context = gateway.event("DISCONNECT", client.connection)["requestContext"]
    return ", ".join(f"{context.get(f'disconnect{what}', 'absent')}" or "empty" for what in ("StatusCode", "Reason"))


def posted(gateway):
    with gateway.client() as client:
        answer = gateway.connection("POST", client, b"hello")
        return f"{answer}; {client.recv(timeout=5)}"


def looked_at(gateway):
    with gateway.client() as client:
        answer = gateway.connection("GET", client)
        return f"{answer} {', '.join(json.loads(gateway.body))}" if answer == "200" else answer


def deleted(gateway):
    with gateway.client() as client:
        answer = gateway.connection("DELETE", client)
        try:
            client.recv(timeout=2)
        except ConnectionClosed as closed:
            return f"{answer}; closed {closed.rcvd.code}" if closed.rcvd else f"{answer}; cut"
        except TimeoutError:
            return f"{answer}; stays open"


def ids(gateway):
    with gateway.client() as client:
        client.send('{"action":"quiet"}')
        context = gateway.event("MESSAGE", client.connection)["requestContext"]
    return ", ".join(str(len(context[f"{what}Id"])) for what in ("connection", "request", "message"))


# A case of the table in docs/conformance.md, and how it is looked at.
CASES = {
    "`$connect` answers 200": lambda gateway: gateway.handshake(),
    "`$connect` answers 201": lambda gateway: gateway.handshake("?status=201"),
    "`$connect` answers 401": lambda gateway: gateway.handshake("?status=401"),
    "`$connect` answers 503": lambda gateway: gateway.handshake("?status=503"),
    "`$connect` throws": lambda gateway: gateway.handshake("?wish=throw"),
    "`$connect` returns no proxy object": lambda gateway: gateway.handshake("?wish=shape"),
    "`$connect` returns an unknown key": lambda gateway: gateway.handshake("?wish=key"),
    "a handshake for another stage": lambda gateway: gateway.handshake("/x"),
    "a plain GET": plain_get,
    "a sub-protocol is offered, and `$connect` selects none": lambda gateway: gateway.handshake(subprotocols=["a", "b"]),
    "a sub-protocol is selected": lambda gateway: gateway.handshake("?protocol=b", subprotocols=["a", "b"]),
    "a two-way route": lambda gateway: gateway.told(action="answer", body="hello"),
    "a one-way route": lambda gateway: gateway.told(action="quiet", body="hello"),
    "an action without a route": lambda gateway: gateway.told(action="dance"),
    "text that is no JSON": lambda gateway: gateway.told("hello"),
    "a result with status 401 and a body": lambda gateway: gateway.told(action="answer", status=401, body="hello"),
    "a result without a body": lambda gateway: gateway.told(action="answer", body=None),
    "a handler throws": lambda gateway: gateway.told(action="answer", wish="throw"),
    "a handler of a one-way route throws": lambda gateway: gateway.told(action="quiet", wish="throw"),
    "a handler returns no proxy object": lambda gateway: gateway.told(action="answer", wish="shape"),
    "a binary frame": lambda gateway: gateway.told(b"\x00\x01"),
    "a frame of 33 KB": lambda gateway: gateway.told("x" * 33_000),
    "the event of `$connect`": lambda gateway: keys_of_event(gateway, "CONNECT"),
    "the event of a message": lambda gateway: keys_of_event(gateway, "MESSAGE"),
    "the event of `$disconnect`": lambda gateway: keys_of_event(gateway, "DISCONNECT"),
    "characters of `connectionId`, `requestId`, `messageId`": ids,
    "a client closes with 4001 `so`": lambda gateway: disconnect(gateway, lambda client: client.close(4001, "so")),
    "`DELETE @connections` is told to `$disconnect`": lambda gateway: disconnect(gateway, lambda client: gateway.connection("DELETE", client)),
    "POST to a connection": posted,
    "POST to one that is gone": lambda gateway: gateway.call("POST", f"/@connections/{quote(UNKNOWN)}", b"hello"),
    "POST to what is no id": lambda gateway: gateway.call("POST", "/@connections/nobody", b"hello").removesuffix(" empty"),
    "POST of 130 KB": lambda gateway: gateway.call("POST", f"/@connections/{quote(UNKNOWN)}", b"x" * 132_000),
    "GET of a connection": looked_at,
    "DELETE of a connection": deleted,
    "DELETE of one that is gone": lambda gateway: gateway.call("DELETE", f"/@connections/{quote(UNKNOWN)}"),
}


@pytest.fixture
def gatecast(start, tmp_path):
    events = tmp_path / "here"
    more = {"code": APP, "environment": {"EVENTS": str(events)}}
    tables = [
        function("connect", "node", "app.connect", **more),
        function("disconnect", "node", "app.note", **more),
        function("message", "node", "app.message", max_processes=1, **more),
        route("$connect", "connect", two_way=False),
        route("$disconnect", "disconnect", two_way=False),
        route("answer", "message"),
        route("$default", "message"),
        route("quiet", "message", two_way=False),
    ]
    node = start("\n".join(tables))
    return Gateway(node.url, node.management, events)


@pytest.fixture
def offline(tmp_path):
    """serverless-offline, which takes a while to start."""
    folder, port = tmp_path / "offline", free_port()
    shutil.copytree(APP, folder)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    own = {"EVENTS": str(tmp_path / "there"), "WEBSOCKET_PORT": str(port), "HTTP_PORT": str(free_port())}
    own |= {"LAMBDA_PORT": str(free_port()), "SLS_TELEMETRY_DISABLED": "1", "SLS_NOTIFICATIONS_MODE": "off", "HOME": str(tmp_path)}
    log = folder / "log"
    with open(log, "wb") as output:
        line = ["node", NODE_MODULES / "serverless/bin/serverless.js", "offline", "start"]
        process = subprocess.Popen(line, cwd=folder, env=clean_environment(own), stdout=output, stderr=output, start_new_session=True)
    eventually(lambda: process.poll() is not None or "[http for websocket] listening" in log.read_text(), within=60)
    yield Gateway(f"ws://localhost:{port}", f"http://localhost:{port}", tmp_path / "there")
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=10)
    finally:
        process.kill()


def observe(gateway, found):
    for case, look in CASES.items():
        found[case] = look(gateway)


def test_both_answer_as_the_table_says(gatecast, offline):
    found = {"here": {}, "there": {}}
    threads = [threading.Thread(target=observe, args=(gateway, found[name])) for name, gateway in
               (("here", gatecast), ("there", offline))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=90)
    lines = [f"| {case} | {found['here'].get(case)} | {found['there'].get(case)} |" for case in CASES]
    page = (ROOT / "docs/conformance.md").read_text()
    assert not [line for line in lines if line not in page], "\n".join(lines)
