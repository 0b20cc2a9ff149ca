"""Routes that call a back end over HTTP with the events of a Lambda proxy integration."""

import json
import re
import threading
from urllib.parse import parse_qsl, urlsplit

import pytest
from websockets.exceptions import InvalidStatus

from backend import OK, BackEnd, result
from gatecast import ask, eventually, request

ROUTES = """
[targets.app]
url = "{url}"
{target}

[routes."$connect"]
integration = "http"
target = "app"

[routes."$disconnect"]
integration = "http"
target = "app"

[routes.echo]
integration = "http"
target = "app"
two_way = true

[routes."$default"]
integration = "http"
target = "app"
"""


@pytest.fixture
def back_end():
    back_end = BackEnd()
    yield back_end
    back_end.close()


def config(back_end, target=""):
    return ROUTES.format(url=back_end.url, target=target)


def only(items):
    assert len(items) == 1, items
    return items[0]


def test_events_are_those_of_api_gateway(start, back_end):
    def answer(request):
        body = {"statusCode": 200, "body": "to you"} if request.kind == "MESSAGE" else OK
        return result(body)

    back_end.answer = answer
    node = start(config(back_end))
    node.url += "?token=a%20b&x=1&x=2"
    with node.connect(user_agent_header="tester/1", additional_headers={"X-Tag": "a"}) as client:
        assert ask(client, '{"action":"echo","n":1}') == "to you"
        client.send("not JSON")
        eventually(lambda: len(back_end.events("MESSAGE")) == 2)
    eventually(lambda: back_end.events("DISCONNECT"))

    connect = only(back_end.events("CONNECT"))
    assert list(connect) == [
        "headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters",
        "requestContext", "isBase64Encoded",
    ]
    assert connect["queryStringParameters"] == {"token": "a b", "x": "2"}
    assert connect["multiValueQueryStringParameters"]["x"] == ["1", "2"]
    assert connect["headers"]["X-Tag"] == "a"
    assert connect["headers"]["Sec-WebSocket-Version"] == "13"
    assert not {"Connection", "Upgrade"} & connect["headers"].keys()
    context = connect["requestContext"]
    assert list(context) == [
        "routeKey", "eventType", "extendedRequestId", "requestTime", "messageDirection", "stage", "connectedAt",
        "requestTimeEpoch", "identity", "requestId", "domainName", "connectionId", "apiId",
    ]
    assert context["routeKey"] == "$connect"
    assert context["identity"] == {"userAgent": "tester/1", "sourceIp": "127.0.0.1"}
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000", context["requestTime"])

    echo, default = back_end.events("MESSAGE")
    assert list(echo) == ["requestContext", "body", "isBase64Encoded"]
    assert (echo["body"], echo["isBase64Encoded"]) == ('{"action":"echo","n":1}', False)
    assert echo["requestContext"]["routeKey"] == "echo"
    assert re.fullmatch(r"[\w-]{15}=", echo["requestContext"]["messageId"])
    assert (default["body"], default["requestContext"]["routeKey"]) == ("not JSON", "$default")

    end = only(back_end.events("DISCONNECT"))
    assert end["headers"] == {"Host": context["domainName"], "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
    assert end["requestContext"]["disconnectStatusCode"] == 1000
    ids = {event["requestContext"]["connectionId"] for event in back_end.events()}
    assert len(ids) == 1
    requests = [event["requestContext"]["requestId"] for event in back_end.events()]
    assert len(set(requests)) == len(requests)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (result({"statusCode": 401}), 401),
        (result({"statusCode": 400, "body": "no"}), 400),
        (result({"statusCode": 501}), 501),
        (result({"statusCode": 301}), 301),
        (result({"statusCode": 503}), 503),
        (result({"statusCode": 101}), 502),
        (result({"statusCode": 200, "extra": 1}), 502),
        (result({"errorMessage": "boom", "errorType": "Error"}), 502),
        (result(None), 502),
        (result(OK, status=500), 502),
        ((200, {}, b"garbage"), 502),
    ],
)
def test_connect_answers_the_handshake(start, back_end, answer, status):
    back_end.answer = lambda request: answer
    node = start(config(back_end))
    with pytest.raises(InvalidStatus) as refused:
        node.connect()
    assert refused.value.response.status_code == status
    assert [event["requestContext"]["eventType"] for event in back_end.events()] == ["CONNECT"]
    assert node.metric("gatecast_connections") == 0


def test_a_client_is_let_in_when_connect_has_answered(start, back_end):
    go_on, node = back_end.hold("CONNECT"), start(config(back_end))
    opened = []
    opening = threading.Thread(target=lambda: opened.append(node.connect()))
    opening.start()
    connect = only(eventually(back_end.events))
    # Until then there is no such connection.
    assert node.post(connect["requestContext"]["connectionId"].replace("=", "%3D"), b"x") == 410
    assert not opened
    go_on.set()
    opening.join(10)
    with only(opened) as client:
        assert node.post(connect["requestContext"]["connectionId"].replace("=", "%3D"), b"hello") == 200
        assert client.recv(timeout=10) == "hello"


def test_a_client_that_goes_away_during_connect_is_told_of(start, back_end):
    go_on, node = back_end.hold("CONNECT"), start(config(back_end))
    opening = threading.Thread(target=lambda: pytest.raises(Exception, node.connect, open_timeout=0.3))
    opening.start()
    eventually(lambda: back_end.events("CONNECT"))
    opening.join(10)
    go_on.set()
    assert eventually(lambda: back_end.events("DISCONNECT"))
    eventually(lambda: node.metric("gatecast_connections") == 0)


def test_a_subprotocol_is_selected_by_connect(start, back_end):
    back_end.answer = lambda request: result({"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "chat.v2"}})
    node = start(config(back_end))
    with node.connect(subprotocols=["chat.v1", "chat.v2"]) as client:
        assert client.subprotocol == "chat.v2"
    with node.connect(subprotocols=["other"]) as client:
        assert client.subprotocol is None


def test_a_subprotocol_is_selected_without_a_back_end(start):
    node = start('[auth]\nsubprotocols = ["b", "a"]\n')
    with node.connect(subprotocols=["x", "a", "b"]) as client:
        assert client.subprotocol == "a"


@pytest.mark.parametrize(
    ("answer", "frame"),
    [
        (result(OK, status=500), "Internal server error"),
        (result({"body": "no status"}), "Internal server error"),
        (result({"statusCode": 200, "body": "x" * 200_000}), "Internal server error"),
        ((200, {}, b"[" * 100_000), "Internal server error"),
        ((200, {"X": "x" * 300_000}, b"{}"), "Internal server error"),
    ],
)
def test_a_back_end_that_fails_is_an_error_frame(start, back_end, answer, frame):
    back_end.answer = lambda request: answer if request.kind == "MESSAGE" else result(OK)
    node = start(config(back_end))
    with node.connect() as client:
        told = ask(client, '{"action":"echo"}')
        event = only(back_end.events("MESSAGE"))["requestContext"]
        ids = f'"connectionId":"{event["connectionId"]}", "requestId":"{event["requestId"]}"'
        assert told == f'{{"message": "{frame}", {ids}}}'
        assert node.metric("gatecast_backend_calls_total", target="targets.app", outcome="failed") == 1
        back_end.answer = lambda request: result({"statusCode": 200, "body": "well"})
        assert ask(client, '{"action":"echo"}') == "well"


def test_a_status_on_a_message_changes_nothing(start, back_end):
    back_end.answer = lambda request: result({"statusCode": 401 if request.kind == "MESSAGE" else 200, "body": "still"})
    node = start(config(back_end))
    with node.connect() as client:
        assert ask(client, '{"action":"echo"}') == "still"


def test_one_way_routes_answer_nothing(start, back_end):
    node = start(config(back_end))
    back_end.answer = lambda request: result({"statusCode": 200, "body": "unheard"})
    with node.connect() as client:
        client.send("one way")
        eventually(lambda: back_end.events("MESSAGE"))
        assert ask(client, '{"action":"echo"}') == "unheard"


def test_a_back_end_that_hangs_is_given_up_in_time(start, back_end):
    go_on = back_end.hold("MESSAGE")
    node = start(config(back_end, 'timeout = "300ms"'))
    with node.connect() as client:
        told = json.loads(ask(client, '{"action":"echo"}'))
        assert told["message"] == "Endpoint request timed out"
        back_end.answer = lambda request: result({"statusCode": 200, "body": "late no more"})
        assert ask(client, '{"action":"echo"}') == "late no more"
    go_on.set()


def test_connect_that_hangs_is_504(start, back_end):
    go_on = back_end.hold()
    node = start(config(back_end, 'timeout = "300ms"'))
    with pytest.raises(InvalidStatus) as refused:
        node.connect()
    go_on.set()
    assert refused.value.response.status_code == 504


def test_a_back_end_that_is_away_fails_fast_and_comes_back(start, back_end):
    node = start(config(back_end))
    with node.connect() as client:
        address = back_end.address
        back_end.close()
        for _ in range(10):
            assert json.loads(ask(client, '{"action":"echo"}'))["message"] == "Internal server error"
        assert node.metric("gatecast_backend_breaker_open", target="targets.app") == 1
        again = BackEnd(lambda request: result({"statusCode": 200, "body": "back"}), address)
        eventually(lambda: ask(client, '{"action":"echo"}') == "back", within=20)
        assert node.metric("gatecast_backend_breaker_open", target="targets.app") == 0
        again.close()


def test_calls_of_a_connection_run_side_by_side_up_to_a_bound(start, back_end):
    go_on, under_way, most, lock = threading.Event(), [0], [0], threading.Lock()

    def answer(request):
        if request.kind == "MESSAGE":
            with lock:
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])
            go_on.wait(10)
            with lock:
                under_way[0] -= 1
        return result({"statusCode": 200, "body": "done"})

    back_end.answer = answer
    node = start(config(back_end) + "\n[limits]\ncalls_per_connection = 3\n")
    with node.connect() as client, node.connect() as other:
        client.send('{"action":"echo"}')
        eventually(lambda: under_way[0] == 1)
        for _ in range(20):
            client.send('{"action":"echo"}' + " " * 20_000)
            # Each comes alone, since what one read has taken may be more than the bound.
            if under_way[0] < 3:
                count = under_way[0]
                eventually(lambda: under_way[0] == count + 1)
        other.send('{"action":"echo"}')
        eventually(lambda: under_way[0] >= 4)
        assert under_way[0] == 4, "a client that waits holds up nobody else"
        go_on.set()
        for _ in range(21):
            assert client.recv(timeout=10) == "done"
        assert other.recv(timeout=10) == "done"


def test_ordered_calls_go_one_after_the_other(start, back_end):
    under_way, most, seen, lock = [0], [0], [], threading.Lock()

    def answer(request):
        if request.kind == "MESSAGE":
            with lock:
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])
                seen.append(json.loads(request.event["body"])["n"])
            threading.Event().wait(0.002)
            with lock:
                under_way[0] -= 1
        return result(OK)

    back_end.answer = answer
    routes = config(back_end) + '\n[routes.inOrder]\nintegration = "http"\ntarget = "app"\nordering = "connection"\n'
    node = start(routes)
    with node.connect() as client:
        for number in range(100):
            client.send(json.dumps({"action": "inOrder", "n": number}))
        eventually(lambda: len(seen) == 100)
    assert seen == list(range(100))
    assert most == [1]


def test_too_many_calls_are_refused_at_once(start, back_end):
    go_on = back_end.hold("MESSAGE")
    node = start(config(back_end, "max_in_flight = 1\nmax_waiting = 2"))
    with node.connect() as client:
        for _ in range(5):
            client.send('{"action":"echo"}')
        for _ in range(2):
            assert json.loads(client.recv(timeout=10))["message"] == "Internal server error"
        assert node.metric("gatecast_backend_calls_total", target="targets.app", outcome="overload") == 2
        assert node.metric("gatecast_backend_calls_waiting", target="targets.app") == 2
        go_on.set()
        eventually(lambda: node.metric("gatecast_backend_calls_waiting", target="targets.app") == 0)


def test_disconnect_is_tried_again_under_the_same_request_id(start, back_end):
    node = start(config(back_end))
    with node.connect():
        back_end.answer = lambda request: (429, {}, b"")
    first = eventually(lambda: back_end.events("DISCONNECT"))[0]["requestContext"]
    assert node.post(first["connectionId"].replace("=", "%3D"), b"x") == 410
    back_end.answer = lambda request: result(OK)
    eventually(lambda: len(back_end.events("DISCONNECT")) == 2)
    second = back_end.events("DISCONNECT")[1]["requestContext"]
    assert first["requestId"] == second["requestId"]
    assert node.metric("gatecast_disconnects_retried_total") == 1


def test_an_error_ends_a_disconnect(start, back_end):
    node = start(config(back_end))
    with node.connect():
        back_end.answer = lambda request: result(OK, status=500)
    eventually(lambda: node.metric("gatecast_backend_calls_total", target="targets.app", outcome="failed") == 1)
    assert node.metric("gatecast_disconnects_retried_total") == 0


def test_shutdown_waits_for_calls_under_way(start, back_end):
    go_on, node = back_end.hold("DISCONNECT"), start(config(back_end))
    with node.connect():
        pass
    eventually(lambda: back_end.events("DISCONNECT"))
    node.is_ended_by_test = True
    node.process.terminate()
    eventually(lambda: node.page("/ready")[0] == 503)
    assert node.process.poll() is None
    go_on.set()
    assert node.wait() == 0


def test_a_client_in_a_hurry_may_send_before_connect_has_answered(start, back_end):
    """Bytes behind the handshake wait for it."""
    import base64
    import os
    import socket

    node = start(config(back_end))
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET /beta HTTP/1.1\r\nHost: {node.address[0]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    payload = b'{"action":"x"}'
    frame = bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload
    with socket.create_connection(node.address) as client:
        client.sendall(head.encode() + frame)
        assert eventually(lambda: back_end.events("MESSAGE"))[0]["body"] == payload.decode()
        assert [event["requestContext"]["eventType"] for event in back_end.events()] == ["CONNECT", "MESSAGE"]


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ('[targets.a]\nurl = "ftp://a"', "targets.a.url"),
        ("[targets.a]\n", "targets.a.url: missing"),
        ('[targets.a]\nurl = "http://a"\nformat = "soap"', "targets.a.format"),
        ('[targets.a]\nurl = "http://a"\ntimeout = "30s"', "targets.a.timeout"),
        ('[targets.a]\nurl = "http://a"\nheaders = { Host = "x" }', "targets.a.headers"),
        ('[targets."a b"]\nurl = "http://a"', "targets.a b"),
        ('[routes.a]\nintegration = "http"', "routes.a.target: missing"),
        ('[routes.a]\nintegration = "http"\ntarget = "nowhere"', "there is no [targets.nowhere]"),
        ('[targets.app]\nurl = "http://a"\n[routes.a]\nintegration = "http"\ntarget = "ap"', 'did you mean "app"?'),
        ('[targets.a]\nurl = "http://a"\n[routes.a]\nintegration = "http"\ntarget = "a"\nreply = "x"', "routes.a.reply"),
        (
            '[targets.a]\nurl = "http://a"\n[routes."$connect"]\nintegration = "http"\ntarget = "a"\ntwo_way = true',
            "routes.$connect.two_way",
        ),
        ('[routes.a]\nintegration = "mock"\ntwo_way = true', "routes.a.two_way"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, lines, fault):
    from gatecast import command

    path = tmp_path / "gatecast.toml"
    path.write_text(lines + "\n")
    checked = command("check", "--config", path)
    assert checked.returncode != 0
    assert fault in checked.stderr + checked.stdout


def test_raw_sends_the_message_as_it_came(start, back_end):
    back_end.answer = lambda request: (200, {"Content-Type": "text/plain"}, b"plain reply")
    node = start(config(back_end, 'format = "raw"\nheaders = { X-Caller = "$context.connectionId" }'))
    node.url += "?token=t"
    with node.connect(additional_headers={"Cookie": "a=b"}) as client:
        assert ask(client, '{"action":"echo"}') == "plain reply"
    eventually(lambda: len(back_end.requests) == 3)
    connect, message, end = back_end.requests
    assert connect.path == "/events?a=b&token=t"
    assert connect.headers["Cookie"] == "a=b"
    assert not [name for name in connect.headers if name.lower().startswith("sec-websocket")]
    assert (message.path, message.body) == ("/events?a=b", b'{"action":"echo"}')
    assert message.headers["X-Gatecast-Event-Type"] == "MESSAGE"
    assert message.headers["X-Gatecast-Connection-Id"] == message.headers["X-Caller"]
    assert (end.headers["X-Gatecast-Event-Type"], end.headers["X-Gatecast-Disconnect-Code"]) == ("DISCONNECT", "1000")


def test_cloudevents_are_sent_where_they_are_wanted(start, back_end):
    consents = [False]

    def answer(request):
        if request.method == "OPTIONS":
            return 200, {"WebHook-Allowed-Origin": "*"} if consents[0] else {}, b""
        return 204, {}, b""

    back_end.answer = answer
    node = start(config(back_end, 'format = "cloudevents"'))
    with pytest.raises(InvalidStatus) as refused:
        node.connect()
    assert refused.value.response.status_code == 502
    assert [request.method for request in back_end.requests] == ["OPTIONS"]
    consents[0] = True
    with node.connect() as client:
        client.send("hello")
        eventually(lambda: len(back_end.requests) == 4)
    asked, connect, message = back_end.requests[1:4]
    assert asked.headers["WebHook-Request-Origin"]
    assert connect.headers["ce-type"] == "io.gatecast.connect"
    assert message.body == b"hello"
    for name in ("specversion", "type", "id", "source", "time", "subject", "connectionid", "routekey"):
        assert message.headers[f"ce-{name}"], name
    assert message.headers["ce-specversion"] == "1.0"


def test_cloudevents_in_structured_mode_are_one_json_object(start, back_end):
    back_end.answer = lambda request: (200, {"WebHook-Allowed-Origin": "*"}, b"")
    node = start("limits.allow_binary = true\n" + config(back_end, 'format = "cloudevents-structured"'))
    with node.connect() as client:
        client.send('say "hello" \u20ac')
        client.send(b"\x00\xff")
        eventually(lambda: len(back_end.requests) == 4)
    asked, connect, text, binary = back_end.requests[:4]
    assert asked.method == "OPTIONS"
    assert {one.headers["Content-Type"] for one in (connect, text, binary)} == {"application/cloudevents+json; charset=utf-8"}
    connect, text, binary = (json.loads(one.body) for one in (connect, text, binary))
    assert connect.keys() >= {"specversion", "type", "id", "source", "time", "subject", "sourceip"} and "data" not in connect
    assert (text["type"], text["connectionid"]) == ("io.gatecast.message", connect["subject"])
    assert (text["datacontenttype"], text["data"]) == ("text/plain; charset=utf-8", 'say "hello" \u20ac')
    assert (binary["datacontenttype"], binary["data_base64"]) == ("application/octet-stream", "AP8=")


def test_mapped_parameters_are_added_to_the_query_and_cannot_break_out_of_it(start, back_end):
    node = start(config(back_end, 'format = "raw"\nparameters = { id = "$context.connectionId", "a b" = "$request.body.name" }'))
    with node.connect() as client:
        client.send(json.dumps({"name": "x&y=z #\u20ac"}))
        client.send("no JSON")
        eventually(lambda: len(back_end.requests) == 3)
    connection = back_end.requests[0].headers["X-Gatecast-Connection-Id"]
    queries = [parse_qsl(urlsplit(one.path).query, strict_parsing=True) for one in back_end.requests]
    configured, id = ("a", "b"), ("id", connection)
    assert queries == [[configured, id], [configured, ("a b", "x&y=z #\u20ac"), id], [configured, id]]


def test_a_stranger_path_is_not_asked_about(start, back_end):
    node = start(config(back_end))
    assert request(node.address, "GET", "/elsewhere")[0].status == 403
    assert not back_end.requests
