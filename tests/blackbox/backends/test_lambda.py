"""Routes that call Lambda functions elsewhere, in real emulators, and with credentials of AWS."""

import pytest
from websockets.exceptions import InvalidStatus

from gatecast import ask, eventually
from lambdas import Aws, Emulator, Offline

ROUTES = """
[lambdas.app]
function = "{function}"
endpoint = "{url}"
timeout = "{timeout}"
max_in_flight = {max_in_flight}
{more}

[routes."$connect"]
integration = "lambda"
lambda = "app"

[routes."$disconnect"]
integration = "lambda"
lambda = "app"

[routes."$default"]
integration = "lambda"
lambda = "app"
two_way = true
"""


def config(url, function, max_in_flight=16, timeout="29s", more=""):
    return ROUTES.format(url=url, function=function, max_in_flight=max_in_flight, timeout=timeout, more=more)


@pytest.fixture(scope="module", params=[Emulator, Offline])
def runner(request, tmp_path_factory):
    """Started once: serverless-offline takes a while."""
    runner = request.param(tmp_path_factory.mktemp("runner"))
    yield runner
    runner.close()


@pytest.fixture
def aws():
    aws = Aws()
    yield aws
    aws.close()


def outcome(node, name):
    return node.metric("gatecast_backend_calls_total", target="lambdas.app", outcome=name)


@pytest.mark.smoke
def test_a_function_answers_and_fails_as_behind_api_gateway(start, runner):
    node = start(config(runner.url, runner.function, runner.max_in_flight))
    with node.connect() as client:
        assert ask(client, "hello") == "to hello"
        assert "Internal server error" in ask(client, "throw")
        assert ask(client, "again") == "to again"
        for number in range(20):
            client.send(str(number))
        assert {client.recv(timeout=20) for _ in range(20)} == {f"to {number}" for number in range(20)}
    eventually(lambda: outcome(node, "ok") == 24)
    assert outcome(node, "failed") == 1
    assert "ValueError: boom" in node.log() or "Error: boom" in node.log()


def test_a_function_that_takes_too_long_is_not_waited_for(start, runner):
    node = start(config(runner.url, runner.function, runner.max_in_flight, timeout="3s"))
    with node.connect() as client:
        assert "Endpoint request timed out" in ask(client, "sleep")
    assert outcome(node, "timeout") >= 1


def test_a_process_that_exits_is_a_function_that_has_failed(start, tmp_path):
    emulator = Emulator(tmp_path)
    try:
        node = start(config(emulator.url, emulator.function, 1))
        with node.connect() as client:
            assert "Internal server error" in ask(client, "exit")
            assert ask(client, "hello") == "to hello"
        assert (outcome(node, "failed"), outcome(node, "unreachable")) == (1, 0)
    finally:
        emulator.close()


def test_an_endpoint_that_is_not_there_refuses_clients(start):
    node = start(config("http://127.0.0.1:1", "chat"))
    with pytest.raises(InvalidStatus) as refused:
        node.connect()
    assert refused.value.response.status_code == 502
    assert outcome(node, "unreachable") == 1


def test_a_function_that_is_not_there_is_told_of(start, tmp_path):
    emulator = Emulator(tmp_path)
    try:
        node = start(config(emulator.url, "another", 1))
        with pytest.raises(InvalidStatus) as refused:
            node.connect()
        assert refused.value.response.status_code == 502
        assert "404 Not Found" in node.log()
    finally:
        emulator.close()


def signed(start, aws, function="chat", more=""):
    more = f'auth = "sigv4"\n{more}'
    return start(config(aws.url, function, more=more), AWS_EC2_METADATA_SERVICE_ENDPOINT=aws.url, HOME="/nowhere")


def test_calls_are_signed_with_the_role_of_the_instance(start, aws):
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:chat:prod"
    node = signed(start, aws, arn)
    with node.connect() as client:
        assert ask(client, '{"text":"€"}') == "signed"
    eventually(lambda: len(aws.calls) == 3)
    assert aws.refused == []
    assert aws.functions() == {arn}
    assert aws.calls[1]["body"] == '{"text":"€"}'
    fetched = [path for path in aws.paths if path.endswith("/node")]
    assert len(fetched) == 1
    assert node.metric("gatecast_credentials_fetched_total", outcome="ok") == 1
    text = node.log() + node.page("/metrics")[1]
    assert "s/ecret" not in text and "t/oken" not in text


def test_credentials_are_fetched_anew_while_calls_go_on(start, aws):
    aws.life = 4
    node = signed(start, aws, more='region = "eu-west-1"')
    with node.connect() as client:
        def is_anew():
            assert ask(client, "hello") == "signed"
            return node.metric("gatecast_credentials_fetched_total", outcome="ok") >= 3
        eventually(is_anew, within=20)
    assert aws.refused == []


def test_without_credentials_nothing_is_called(start, aws):
    node = start(
        config(aws.url, "chat", more='auth = "sigv4"\nregion = "eu-west-1"'), AWS_EC2_METADATA_DISABLED="true",
        HOME="/nowhere",
    )
    with pytest.raises(InvalidStatus) as refused:
        node.connect()
    assert refused.value.response.status_code == 502
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in node.log()
    assert aws.paths == []
    assert node.metric("gatecast_credentials_fetched_total", outcome="failed") == 1


@pytest.mark.parametrize(("status", "error"), [(429, "TooManyRequestsException"), (500, "ServiceException")])
def test_a_disconnect_that_was_throttled_is_told_again(start, aws, status, error):
    node = signed(start, aws, more='region = "eu-west-1"')
    with node.connect() as client:
        assert ask(client, "hello") == "signed"
        aws.answer = (status, {"x-amzn-ErrorType": error}, {"Type": "User", "message": "Rate Exceeded."})
        assert "Internal server error" in ask(client, "hello")
    ends = lambda: [call for call in aws.calls if call["requestContext"]["eventType"] == "DISCONNECT"]
    eventually(ends)
    aws.answer = (200, {}, None)
    eventually(lambda: len(ends()) == 2)
    first, second = ends()
    assert first["requestContext"]["requestId"] == second["requestContext"]["requestId"]
