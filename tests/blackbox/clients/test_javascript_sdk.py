"""The management API, called by the JavaScript SDK as it comes from its registry."""

import pytest

from gatecast import connection_id, drain_frames
from javascript import errors, run
from management import KEYS, MESSAGE_MAX, UNKNOWN_ID, is_uuid
from wire import Socket

OPERATIONS = ["PostToConnection", "GetConnection", "DeleteConnection"]


@pytest.fixture(scope="module")
def node(start_shared):
    return start_shared(**KEYS)


@pytest.fixture
def client(node):
    with node.connect(user_agent_header="major-tom/1.0") as client:
        client.id = connection_id(client)
        yield client


@pytest.mark.parametrize("slash", ["", "/"], ids=["endpoint", "endpoint with a trailing slash"])
@pytest.mark.parametrize("port", ["management", "admin_url"])
def test_post_get_and_delete_work(node, client, port, slash):
    endpoint = node.management if port == "management" else f"{node.admin_url}/beta"
    calls = [("PostToConnection", client.id, b"hello"), ("PostToConnection", client.id, "Grüße 🚀".encode())]
    calls += [(operation, client.id) for operation in ("GetConnection", "DeleteConnection", "GetConnection")]
    first, second, got, deleted, gone = run(endpoint + slash, *calls)
    assert (first["status"], second["status"], got["status"], deleted["status"]) == (200, 200, 200, 204)
    assert all(is_uuid(result["requestId"]) for result in (first, second, got, deleted))
    assert got["output"]["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "major-tom/1.0"}
    assert got["output"]["ConnectedAt"] <= got["output"]["LastActiveAt"]
    assert errors([gone]) == [("GoneException", 410)]
    assert drain_frames(client) == (["hello", "Grüße 🚀"], (1000, ""))


def test_an_empty_post_is_an_empty_message(node, client):
    assert run(node.management, ("PostToConnection", client.id, b""))[0]["status"] == 200
    assert client.recv(timeout=10) == ""


def test_an_unknown_id_is_gone(node):
    results = run(node.management, *[(operation, UNKNOWN_ID) for operation in OPERATIONS])
    assert errors(results) == [("GoneException", 410)] * 3
    assert all(result["isModelled"] for result in results)


def test_a_malformed_id_is_a_bad_request(node):
    results = run(node.management, *[(operation, "not-an-id") for operation in OPERATIONS])
    assert errors(results) == [("BadRequestException", 400)] * 3
    assert {result["message"] for result in results} == {"Invalid connectionId: not-an-id"}


def test_a_wrong_stage_is_forbidden(node):
    endpoint = node.management.replace("/beta", "/prod")
    results = run(endpoint, *[(operation, UNKNOWN_ID) for operation in OPERATIONS])
    assert errors(results) == [("ForbiddenException", 403)] * 3


def test_a_wrong_secret_makes_an_invalid_signature(node):
    results = run(node.management, *[(operation, UNKNOWN_ID) for operation in OPERATIONS], secret="wrong")
    assert errors(results) == [("InvalidSignatureException", 403)] * 3


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_clock_six_minutes_off_is_refused(node, minutes):
    skewed = {"systemClockOffset": minutes * 60_000}
    assert errors(run(node.management, ("GetConnection", UNKNOWN_ID), **skewed)) == [("InvalidSignatureException", 403)]


def test_the_sdk_corrects_a_wrong_clock_from_our_answer(node, client):
    """A back end with a wrong clock is not locked out: it takes the time from the `Date` of the refusal."""
    refused, passed = run(node.management, *[("GetConnection", client.id)] * 2, systemClockOffset=3_600_000)
    assert errors([refused]) == [("InvalidSignatureException", 403)]
    assert passed["status"] == 200


def test_a_payload_over_128_kib_is_too_large(node, client):
    sizes = [MESSAGE_MAX, MESSAGE_MAX + 1]
    fits, exceeds = run(node.management, *[("PostToConnection", client.id, b"x" * size) for size in sizes])
    assert fits["status"] == 200
    assert (exceeds["error"], exceeds["status"], exceeds["isModelled"]) == ("PayloadTooLargeException", 413, True)
    assert client.recv(timeout=10) == "x" * MESSAGE_MAX


def test_a_client_that_does_not_read_gets_the_caller_429(node):
    with Socket(node.address, receive_buffer=4096).upgrade() as slow:
        own = slow.connection_id()
        results = run(node.management, *[("PostToConnection", own, b"x" * MESSAGE_MAX)] * 100)
    refused = [result for result in results if result["status"] != 200]
    assert refused, "never full"
    assert set(errors(refused)) == {("LimitExceededException", 429)}
    assert all(result["isModelled"] for result in refused)


def test_without_keys_on_loopback_any_signature_passes(start):
    node = start()
    with node.connect() as client:
        result = run(node.management, ("GetConnection", connection_id(client)), key_id="any", secret="any")[0]
        assert result["status"] == 200
