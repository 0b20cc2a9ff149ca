"""What back ends are told of the trace that a call is a part of, by a program that exports no spans."""

import json
import re

import pytest

from backend import BackEnd, result
from gatecast import ask, eventually

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ROOT = f"Root=1-{TRACE[:8]}-{TRACE[8:]}"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
AMAZON = f"{ROOT};Parent={SPAN};Sampled=1"
CONFIG = """
[targets.app]
url = "{url}"
format = "{format}"

[routes."$connect"]
integration = "http"
target = "app"

[routes."$default"]
integration = "http"
target = "app"
"""
FUNCTION = """
exports.handler = async (event) => ({
  statusCode: 200,
  body: JSON.stringify([process.env._X_AMZN_TRACE_ID, event.headers && event.headers["X-Amzn-Trace-Id"]]),
});
"""


@pytest.fixture
def back_end():
    back_end = BackEnd(lambda request: consented(request))
    yield back_end
    back_end.close()


def consented(request):
    if request.method == "OPTIONS":
        return 200, {"WebHook-Allowed-Origin": "*"}, b""
    return result({"statusCode": 200})


def told(back_end):
    """The requests so far, without those that ask for consent."""
    return [request for request in list(back_end.requests) if request.method == "POST"]


def parts(traceparent):
    return re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", traceparent).groups()


@pytest.mark.parametrize("header", [{"traceparent": TRACEPARENT}, {"X-Amzn-Trace-Id": AMAZON}], ids=["W3C", "Amazon"])
@pytest.mark.parametrize("format", ["lambda-proxy", "cloudevents", "raw"])
def test_the_trace_of_a_handshake_is_carried_on(start, back_end, format, header):
    node = start(CONFIG.format(url=back_end.url, format=format))
    with node.connect(additional_headers=header) as client:
        client.send("hello")
        connect, message = eventually(lambda: len(told(back_end)) == 2 and told(back_end))
    assert connect.headers.get_all("traceparent") == [TRACEPARENT]
    trace, _, flags = parts(message.headers["traceparent"])
    # A message is no part of what its connection began with.
    assert trace != TRACE and flags == "00"
    if format == "cloudevents":
        assert connect.headers["ce-traceparent"] == TRACEPARENT
        assert message.headers["ce-traceparent"] == message.headers["traceparent"]
    if format == "lambda-proxy":
        assert connect.headers.get_all("X-Amzn-Trace-Id") == [AMAZON]
        assert connect.event["headers"]["X-Amzn-Trace-Id"] == ROOT
        assert message.headers["X-Amzn-Trace-Id"].startswith(f"Root=1-{trace[:8]}-{trace[8:]};Parent=")


@pytest.mark.parametrize("header", [
    {}, {"traceparent": "00-" + "0" * 32 + f"-{SPAN}-01"}, {"traceparent": TRACEPARENT + "-x"}, {"X-Amzn-Trace-Id": "Root=1-;;==" * 100},
    [("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)], {"X-Amzn-Trace-Id": f"{ROOT},x"}, {"traceparent": "é"},
], ids=["none", "zeros", "longer", "long", "twice", "list", "no ASCII"])
def test_what_is_not_well_formed_is_replaced(start, back_end, header):
    node = start(CONFIG.format(url=back_end.url, format="lambda-proxy"))
    with node.connect(additional_headers=header):
        pass
    connect = eventually(lambda: told(back_end))[0]
    [traceparent], [amazon] = connect.headers.get_all("traceparent"), connect.headers.get_all("X-Amzn-Trace-Id")
    trace, span, flags = parts(traceparent)
    assert trace != TRACE and flags == "00"
    assert amazon == f"Root=1-{trace[:8]}-{trace[8:]};Parent={span};Sampled=0"
    assert connect.event["headers"]["X-Amzn-Trace-Id"] == amazon.split(";")[0]
    # As Amazon makes it: the second comes first.
    assert abs(int(trace[:8], 16) - connect.event["requestContext"]["requestTimeEpoch"] / 1000) < 10


def test_functions_are_told_in_the_way_of_lambda(start, tmp_path):
    (tmp_path / "app.js").write_text(FUNCTION)
    node = start(f"""
[functions.app]
runtime = "node"
handler = "app.handler"
code = "{tmp_path}"

[routes.who]
integration = "function"
function = "app"
two_way = true
""")
    with node.connect(additional_headers={"traceparent": TRACEPARENT}) as client:
        own, header = json.loads(ask(client, '{"action":"who"}'))
        again, _ = json.loads(ask(client, '{"action":"who"}'))
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", own)
    assert header is None and own != again
