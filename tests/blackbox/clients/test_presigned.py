"""Presigned URLs: whoever has one may make that one call for as long as it says, without a key of their own."""

import json
import subprocess
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gatecast import clean_environment, connection_id, request
from management import KEYS, KEY_ID, SECRET, clock_off_by, sdk
from terminal import NODE_MODULES

SCRIPT = Path(__file__).with_name("presign.cjs")
WEEK = 7 * 24 * 60 * 60
TOKEN = "FwoGZXIvYXdz//token+part="


class AnyBody(SigV4QueryAuth):
    """Leaves the body open, as Amazon S3 has it."""

    def payload(self, request):
        return "UNSIGNED-PAYLOAD"


def presigned(address, method, path, seconds=60, secret=SECRET, token=None, signer=SigV4QueryAuth, service="execute-api"):
    message = AWSRequest(method=method, url=f"http://{address[0]}:{address[1]}{path}")
    signer(Credentials(KEY_ID, secret, token), service, "eu-west-1", expires=seconds).add_auth(message)
    return path_of(message.url)


def path_of(url):
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def presigned_by_javascript(address, *calls, seconds=60, **credentials):
    host = f"{address[0]}:{address[1]}"
    requests = [{"method": method, "host": host, "path": path, "body": body} for method, path, body in calls]
    work = {"credentials": {"accessKeyId": KEY_ID, "secretAccessKey": SECRET} | credentials, "seconds": seconds, "requests": requests}
    environment = clean_environment({"NODE_PATH": str(NODE_MODULES)})
    ended = subprocess.run(
        ["node", str(SCRIPT)], input=json.dumps(work), env=environment, capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def error_type(address, method, path, body=b""):
    response, text = request(address, method, path, body)
    assert "message" in json.loads(text)
    return response.status, response.headers["x-amzn-ErrorType"]


@pytest.fixture(scope="module")
def node(start_shared):
    return start_shared(**KEYS)


@pytest.fixture(params=["public port", "admin port"])
def address(request, node):
    return node.address if request.param == "public port" else node.admin_address


@pytest.fixture
def client(node):
    with node.connect() as client:
        client.path = f"/beta/@connections/{connection_id(client).replace('=', '%3D')}"
        yield client


@pytest.mark.parametrize("token", [None, TOKEN], ids=["key", "session token"])
def test_every_method_can_be_presigned(address, client, token):
    call = lambda method, body=b"": request(address, method, presigned(address, method, client.path, token=token), body)
    response, body = call("GET")
    assert response.status == 200 and json.loads(body)["identity"]["sourceIp"] == "127.0.0.1"
    assert call("POST")[0].status == 200
    assert client.recv(timeout=10) == "", "the body that was signed"
    assert call("DELETE")[0].status == 204


def test_boto3_makes_such_urls(node, address, client):
    api = sdk(f"http://{address[0]}:{address[1]}/beta")
    url = api.generate_presigned_url("get_connection", {"ConnectionId": connection_id(client)}, ExpiresIn=60)
    assert request(address, "GET", path_of(url))[0].status == 200


def test_the_javascript_sdk_makes_such_urls(address, client):
    calls = [("GET", client.path, None), ("POST", client.path, "hello"), ("DELETE", client.path, None)]
    get, post, delete = presigned_by_javascript(address, *calls, seconds=WEEK, sessionToken=TOKEN)
    assert request(address, "GET", get)[0].status == 200
    assert error_type(address, "POST", post, b"other") == (403, "InvalidSignatureException")
    assert request(address, "POST", post, b"hello")[0].status == 200
    assert client.recv(timeout=10) == "hello"
    assert request(address, "DELETE", delete)[0].status == 204


def test_a_body_that_was_left_open_may_be_any(address, client):
    path = presigned(address, "POST", "/beta/@broadcast", signer=AnyBody)
    for text in ("one", "two"):
        assert request(address, "POST", path, text.encode())[0].status == 200
        assert client.recv(timeout=10) == text


def test_lists_take_their_parameters_beside_those_of_the_signature(address, client):
    response, body = request(address, "GET", presigned(address, "GET", "/beta/@connections?limit=1"))
    assert response.status == 200 and len(json.loads(body)["connections"]) == 1


def test_a_url_is_good_for_one_call_only(address, client):
    path = presigned(address, "GET", client.path)
    for method, other in [
        ("DELETE", path),
        ("POST", path),
        ("GET", path.replace("/beta/", "//beta/").replace("@connections/", "@connections/x")),
        ("GET", path + "&limit=1"),
        ("GET", path.replace("X-Amz-Expires=60", "X-Amz-Expires=61")),
        ("GET", presigned(address, "GET", client.path, secret="another")),
        ("GET", presigned(address, "GET", client.path, service="s3")),
    ]:
        assert error_type(address, method, other) == (403, "InvalidSignatureException"), other
    stranger = path.replace(KEY_ID, "AKIDNOBODY")
    assert error_type(address, "GET", stranger) == (403, "UnrecognizedClientException")


def test_a_url_ends_when_it_says_and_begins_when_it_was_signed(address, client, monkeypatch):
    for offset, seconds, status in [(-120, 100, 403), (-120, 1_000, 200), (-WEEK + 300, WEEK, 200), (400, 60, 403), (200, 60, 200)]:
        with clock_off_by(monkeypatch, timedelta(seconds=offset)):
            path = presigned(address, "GET", client.path, seconds)
        assert request(address, "GET", path)[0].status == status, (offset, seconds)
    for seconds in (0, WEEK + 1, "ten"):
        path = presigned(address, "GET", client.path, seconds)
        assert error_type(address, "GET", path) == (403, "IncompleteSignatureException"), seconds


def test_half_of_the_parameters_are_no_signature(address, client):
    whole = presigned(address, "GET", client.path)
    path, query = whole.split("?")
    for missing in query.split("&"):
        rest = "&".join(pair for pair in query.split("&") if pair != missing)
        kind = "MissingAuthenticationTokenException" if missing.startswith("X-Amz-Signature") else "IncompleteSignatureException"
        assert error_type(address, "GET", f"{path}?{rest}") == (403, kind), missing
        assert error_type(address, "GET", f"{whole}&{missing}")[0] == 403, f"{missing} twice"
