"""The management API, called by boto3 as it comes from its registry."""

from datetime import datetime, timedelta, timezone

import botocore
import pytest
from botocore.exceptions import ClientError

from gatecast import connection_id, drain_frames
from management import KEYS, MESSAGE_MAX, UNKNOWN_ID, clock_off_by, is_uuid, sdk
from wire import Socket


@pytest.fixture(scope="module")
def node(start_shared):
    return start_shared(**KEYS)


@pytest.fixture(params=["public port", "admin port"])
def api(request, node):
    return sdk(node.management if request.param == "public port" else f"{node.admin_url}/beta")


@pytest.fixture
def client(node):
    with node.connect() as client:
        client.id = connection_id(client)
        yield client


def error_of(call, **arguments):
    """Calls; returns the error's class, code, message and HTTP status, and the headers."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    metadata = response["ResponseMetadata"]
    error = response["Error"]
    name = type(caught.value).__name__
    return name, error["Code"], error.get("Message"), metadata["HTTPStatusCode"], metadata["HTTPHeaders"]


def test_a_post_reaches_the_connection_byte_for_byte(api, client):
    for text in ["hello", "", "Grüße 🚀", "x" * 40_000]:
        api.post_to_connection(ConnectionId=client.id, Data=text.encode())
        assert client.recv(timeout=10) == text


@pytest.mark.parametrize(
    "sent, told",
    [("Zürich/1.0", "Zürich/1.0"), ("x" * 512, "x" * 512), ("x" * 600, "x" * 509 + "…"), ("ü" * 300, "ü" * 254 + "…")],
    ids=["not ASCII", "as long as may be", "too long", "too long, cut before a character"],
)
def test_a_client_is_called_what_it_calls_itself(api, node, sent, told):
    with Socket(node.address) as client:
        client.upgrade(User_Agent=sent)
        assert api.get_connection(ConnectionId=client.connection_id())["Identity"]["UserAgent"] == told


def test_a_post_that_is_not_text_arrives_as_binary(api, client):
    api.post_to_connection(ConnectionId=client.id, Data=b"\xff\x00\xfe")
    assert client.recv(timeout=10) == b"\xff\x00\xfe"


def test_a_post_is_answered_with_the_headers_of_the_contract(api, client):
    answer = api.post_to_connection(ConnectionId=client.id, Data=b"hello")["ResponseMetadata"]
    headers = answer["HTTPHeaders"]
    assert answer["HTTPStatusCode"] == 200
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == "0"
    assert is_uuid(headers["x-amzn-requestid"])
    assert len(headers["x-amz-apigw-id"]) == 16


def test_a_post_is_answered_with_a_trace_id(api, client):
    answer = api.post_to_connection(ConnectionId=client.id, Data=b"hello")["ResponseMetadata"]
    assert answer["HTTPHeaders"].get("x-amzn-trace-id", "").startswith("Root=1-")


def test_get_tells_who_the_client_is(api, node):
    before = datetime.now(timezone.utc) - timedelta(milliseconds=1)
    with node.connect(user_agent_header="major-tom/1.0") as client:
        got = api.get_connection(ConnectionId=connection_id(client))
        after = datetime.now(timezone.utc) + timedelta(milliseconds=1)
        assert got["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "major-tom/1.0"}
        assert before <= got["ConnectedAt"] <= got["LastActiveAt"] <= after


def test_get_leaves_out_the_user_agent_of_a_client_that_sent_none(api, node):
    with node.connect(user_agent_header=None) as client:
        got = api.get_connection(ConnectionId=connection_id(client))
        assert got["Identity"] == {"SourceIp": "127.0.0.1"}


def test_delete_closes_the_connection_and_answers_204(api, client):
    answer = api.delete_connection(ConnectionId=client.id)["ResponseMetadata"]
    assert answer["HTTPStatusCode"] == 204
    assert drain_frames(client) == ([], (1000, ""))


@pytest.mark.parametrize("operation", ["post_to_connection", "get_connection", "delete_connection"])
class TestErrors:
    """Every row of the contract's table, for every operation that can have it."""

    def arguments(self, operation, connection_id):
        data = {"Data": b"hello"} if operation == "post_to_connection" else {}
        return {"ConnectionId": connection_id} | data

    def failure(self, api, operation, connection_id=UNKNOWN_ID):
        return error_of(getattr(api, operation), **self.arguments(operation, connection_id))

    def test_an_unknown_id_is_gone(self, api, operation):
        name, code, _, status, headers = self.failure(api, operation)
        assert (name, code, status) == ("GoneException", "GoneException", 410)
        assert (headers["content-type"], headers["content-length"]) == ("application/json", "0")

    def test_a_closed_connection_is_gone(self, api, operation, node):
        with node.connect() as client:
            closed = connection_id(client)
        name, _, _, status, _ = self.failure(api, operation, closed)
        assert (name, status) == ("GoneException", 410)

    @pytest.mark.parametrize(
        "malformed", ["WDGT8fY4joECJrQ=test", "3f0a8f0e-7a4e-4b59-9c6b-6f5b0a0c7f11", "short", "L0SM9cOFvHcCIh+="]
    )
    def test_a_malformed_id_is_a_bad_request(self, api, operation, malformed):
        _, code, message, status, _ = self.failure(api, operation, malformed)
        assert (code, message, status) == ("BadRequestException", f"Invalid connectionId: {malformed}", 400)

    @pytest.mark.parametrize("path", ["/prod", ""])
    def test_a_wrong_stage_is_forbidden(self, node, operation, path):
        api = sdk(node.management.removesuffix("/beta") + path)
        name, code, message, status, _ = self.failure(api, operation)
        assert (name, code, message, status) == ("ForbiddenException", "ForbiddenException", "Forbidden", 403)

    def test_an_unsigned_call_lacks_an_authentication_token(self, node, operation):
        api = sdk(node.management, signature_version=botocore.UNSIGNED)
        _, code, message, status, _ = self.failure(api, operation)
        expected = ("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        assert (code, message, status) == expected

    def test_a_wrong_secret_makes_an_invalid_signature(self, node, operation):
        api = sdk(node.management, secret="not the secret")
        _, code, message, status, _ = self.failure(api, operation)
        assert (code, status) == ("InvalidSignatureException", 403)
        assert message.startswith(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method."
        )
        assert "The Canonical String for this request should have been\n'" in message
        assert "not the secret" not in message

    def test_an_unknown_key_is_refused(self, node, operation):
        _, code, _, status, _ = self.failure(sdk(node.management, key_id="AKIDSTRANGER"), operation)
        assert (code, status) == ("UnrecognizedClientException", 403)

    @pytest.mark.parametrize("minutes", [-6, 6])
    def test_a_clock_six_minutes_off_is_refused(self, node, operation, monkeypatch, minutes):
        with clock_off_by(monkeypatch, timedelta(minutes=minutes)):
            _, code, message, status, _ = self.failure(sdk(node.management), operation)
        assert (code, status) == ("InvalidSignatureException", 403)
        assert message.startswith("Signature expired: " if minutes < 0 else "Signature not yet current: ")

    @pytest.mark.parametrize("minutes", [-4, 4])
    def test_a_clock_four_minutes_off_is_good_enough(self, node, operation, monkeypatch, minutes):
        with clock_off_by(monkeypatch, timedelta(minutes=minutes)):
            assert self.failure(sdk(node.management), operation)[3] == 410


def test_a_trailing_slash_of_the_endpoint_does_not_matter(node, client):
    api = sdk(node.management + "/")
    api.post_to_connection(ConnectionId=client.id, Data=b"hello")
    assert client.recv(timeout=10) == "hello"
    assert api.get_connection(ConnectionId=client.id)["Identity"]["SourceIp"] == "127.0.0.1"
    api.delete_connection(ConnectionId=client.id)
    assert drain_frames(client) == ([], (1000, ""))


def test_a_payload_of_128_kib_passes_and_a_byte_more_is_too_large(api, client):
    api.post_to_connection(ConnectionId=client.id, Data=b"x" * MESSAGE_MAX)
    assert client.recv(timeout=10) == "x" * MESSAGE_MAX
    for size in (MESSAGE_MAX + 1, 1 << 20):
        error = error_of(api.post_to_connection, ConnectionId=client.id, Data=b"x" * size)
        assert (error[0], error[3]) == ("PayloadTooLargeException", 413)
    client.ping().wait(timeout=10)


def test_a_client_that_does_not_read_gets_the_caller_429_and_loses_nothing(node):
    api = sdk(node.management)
    with Socket(node.address, receive_buffer=4096).upgrade() as slow:
        own = slow.connection_id()
        accepted = 0
        for number in range(400):
            try:
                api.post_to_connection(ConnectionId=own, Data=b"%06d" % number + b"." * 100_000)
                accepted += 1
            except api.exceptions.LimitExceededException as error:
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
                break
        else:
            pytest.fail("a client that does not read was never full")
        received = [slow.receive()[1][:6] for _ in range(accepted)]
        assert received == [b"%06d" % number for number in range(accepted)]
    node.serves()
