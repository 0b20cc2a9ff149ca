"""The access log: a line for each event of a client, which nobody can forge and nobody waits for."""

import json
import os
import re
import threading
import time

import pytest
from websockets.exceptions import InvalidStatus

from backend import BackEnd, result
from gatecast import ask, command, connection_id, eventually, request

FIELDS = [
    "apiId", "authorizer.principalId", "connectedAt", "connectionId", "disconnectReason", "disconnectStatusCode", "domainName",
    "error.message", "eventType", "extendedRequestId", "identity.sourceIp", "identity.userAgent", "integration.latency",
    "integrationLatency", "messageDirection", "messageId", "requestId", "requestTime", "requestTimeEpoch", "routeKey", "stage", "status",
]
FORMAT = json.dumps({name: f"$context.{name}" for name in FIELDS})
CONFIG = """
{routes}
[access_log]
format = '{format}'
file = "{file}"
"""
ROUTES = """
[targets.app]
url = "{url}"
timeout = "500ms"

[routes."$connect"]
integration = "http"
target = "app"

[routes."$disconnect"]
integration = "http"
target = "app"

[routes.order]
integration = "http"
target = "app"

[routes.say]
integration = "broadcast"
data = "$request.body.data"
"""


@pytest.fixture
def log(tmp_path):
    return tmp_path / "access.log"


def lines(log):
    """All whole lines so far."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def of_kind(log, kind):
    return [line for line in lines(log) if line["eventType"] == kind]


def config(log, routes="", format=FORMAT):
    return CONFIG.format(routes=routes, format=format, file=log)


def test_each_event_has_a_line(start, log):
    node = start(config(log))
    with node.connect(user_agent_header="tester/1") as client:
        id = connection_id(client)
        assert ask(client, '{"action":"sendMessage","data":"Major Tom"}') == "Major Tom"
        assert "Bad request body" in (bad := ask(client, '{"action":"sendMessage"}'))
        assert ask(client, '{"action":"joinGroup","group":"moon"}') == "joined moon"
    connect, *messages, disconnect = eventually(lambda: len(lines(log)) == 6 and lines(log))
    assert {line["connectionId"] for line in lines(log)} == {id}
    assert [(line["eventType"], line["routeKey"], line["status"], line["error.message"]) for line in [connect, *messages, disconnect]] == [
        ("CONNECT", "$connect", "200", "-"), ("MESSAGE", "-", "403", "Forbidden"), ("MESSAGE", "sendMessage", "200", "-"),
        ("MESSAGE", "sendMessage", "400", "Bad request body"), ("MESSAGE", "joinGroup", "200", "-"),
        ("DISCONNECT", "$disconnect", "200", "-")]
    assert messages[2]["messageId"] == json.loads(bad)["messageId"]
    assert (disconnect["disconnectStatusCode"], connect["disconnectStatusCode"]) == ("1000", "-")
    for line in lines(log):
        assert line["identity.userAgent"] == "tester/1" and line["identity.sourceIp"] == "127.0.0.1"
        assert line["stage"] == "beta" and line["apiId"] == "gatecast" and line["integration.latency"] == "-"
        assert re.fullmatch(r"[\w-]{15}=", line["requestId"]) and line["extendedRequestId"] == line["requestId"]
        assert abs(int(line["requestTimeEpoch"]) / 1000 - time.time()) < 60
        assert re.fullmatch(r"\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000", line["requestTime"])
        assert line["connectedAt"] == connect["connectedAt"]
    assert "Major Tom" not in log.read_text()


def test_calls_of_back_ends_are_told_with_their_end(start, log):
    go_on = threading.Event()

    def answer(request):
        if request.kind == "MESSAGE" and b"slow" in request.body:
            go_on.wait(20)
        status = 403 if b"no-entry" in request.body else 200
        return result({"statusCode": status}, 500 if b"broken" in request.body else 200)

    back_end = BackEnd(answer)
    node = start(config(log, ROUTES.format(url=back_end.url)))
    with node.connect() as client:
        for data in ("fine", "broken", "slow"):
            client.send(json.dumps({"action": "order", "data": data}))
            eventually(lambda data=data: len(of_kind(log, "MESSAGE")) == ["fine", "broken", "slow"].index(data) + 1)
    with pytest.raises(InvalidStatus):
        with node.connect(user_agent_header="no-entry"):
            pass
    go_on.set()
    eventually(lambda: len(lines(log)) == 6)
    back_end.close()
    assert [(line["status"], line["error.message"]) for line in of_kind(log, "MESSAGE")] == [
        ("200", "-"), ("500", "Internal server error"), ("504", "Endpoint request timed out")]
    [let_in], [refused] = ([line for line in of_kind(log, "CONNECT") if line["status"] == status] for status in ("200", "403"))
    asked = {event["requestContext"]["requestId"]: event for event in back_end.events()}
    for line in lines(log):
        context = asked.pop(line["requestId"])["requestContext"]
        assert (line["eventType"], line["routeKey"], line["connectionId"]) == (
            context["eventType"], context["routeKey"], context["connectionId"])
        assert line["messageId"] == context.get("messageId", "-")
        assert int(line["integration.latency"]) >= 0 and line["integrationLatency"] == line["integration.latency"]
    assert not asked and let_in["connectionId"] != refused["connectionId"]
    slow = of_kind(log, "MESSAGE")[2]
    assert 400 < int(slow["integration.latency"]) < 5_000


def test_whoever_is_refused_early_has_a_line_too(start, log):
    node = start(config(log))
    response, _ = request(node.address, "GET", "/beta", headers={"User-Agent": "curl"})
    [line] = eventually(lambda: lines(log))
    assert (line["eventType"], line["status"], line["connectionId"]) == ("CONNECT", str(response.status), "-")
    assert line["identity.userAgent"] == "curl" and "WebSocket" in line["error.message"]


@pytest.mark.parametrize("format", [FORMAT, '$context.identity.sourceIp "$context.identity.userAgent" "$context.disconnectReason" $context.status'],
                         ids=["JSON", "text"])
def test_a_client_cannot_forge_a_line(start, log, format):
    node = start(config(log, format=format))
    agents = ['", "status": "200"}', "\\", "tab\tin it", "\u2028{\"status\":\"200\"}", "é\u0085x", "\u202ekcab", '" 200 "']
    for agent in agents:
        with node.connect(user_agent_header=None, additional_headers={"User-Agent": agent}) as client:
            client.close(3000, "\n{\"status\":\"200\"}\r\x1b[2J\u2029\"\\")
    eventually(lambda: log.exists() and log.read_text().count("\n") == 2 * len(agents))
    text = log.read_text()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", text)
    if format == FORMAT:
        assert {line["identity.userAgent"] for line in lines(log)} == {*agents}
        assert {line["disconnectReason"] for line in of_kind(log, "DISCONNECT")} == {"\n{\"status\":\"200\"}\r\x1b[2J\u2029\"\\"}
    else:
        for line in text.splitlines():
            assert re.fullmatch(r'127\.0\.0\.1 "([^"\\]|\\.)*" "([^"\\]|\\.)*" 200', line), line


def test_a_reader_that_never_reads_costs_lines_and_nothing_else(start):
    """To standard output, a pipe that nobody reads: it is full after 64 KiB."""
    text = "x" * 2_000
    node = start(f"[access_log]\nformat = '$context.eventType {text}'\n")
    with node.connect() as client:
        for number in range(1_000):
            assert ask(client, f"message {number}") == f"message {number}"
        assert eventually(lambda: node.metric("gatecast_access_log_lines_lost_total", reason="queue_full")) > 0
        assert node.metric("gatecast_log_lines_lost_total") == 0
    node.is_ended_by_test = True
    began = time.monotonic()
    node.signal(15)
    assert node.wait() == 0 and time.monotonic() - began < 20


def test_a_reader_that_goes_away_costs_lines_and_nothing_else(start):
    node = start("[access_log]\nformat = '$context.eventType'\n")
    node.process.stdout.close()
    node.serves()
    assert eventually(lambda: node.metric("gatecast_access_log_lines_lost_total", reason="write_failed")) > 0
    node.serves()


def test_it_is_off_unless_it_is_asked_for(start):
    node = start()
    node.serves()
    node.is_ended_by_test = True
    node.signal(15)
    assert node.wait() == 0 and node.process.stdout.read() == ""


def test_formats_that_cannot_be_meant_are_refused_with_their_line(tmp_path):
    path = tmp_path / "gatecast.toml"
    for format, cure in [("$context.requestID", "requestId"), ("$context.identity.user", "identity.userAgent"), ("${{request.body}}", "connectionId")]:
        path.write_text(f"\n[access_log]\nformat = '{format}'\n")
        done = command("check", "--config", path)
        assert done.returncode == 64
        assert re.search(rf"3: access_log\.format: .*{re.escape(cure)}", done.stdout + done.stderr), done


def test_a_file_that_cannot_be_added_to_keeps_the_node_from_starting(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in (pipe, tmp_path, tmp_path / "away" / "access.log"):
        path = tmp_path / "gatecast.toml"
        path.write_text(config(file, format="$context.status"))
        done = command("--config", path, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
        assert done.returncode == 69 and f"access_log.file: {file}" in done.stderr, done
