"""The way back of functions: unmodified clients post to their caller over TLS, and trust whom the node tells them to."""

import json
import subprocess

import pytest

from backend import BackEnd
from functions import SUPPORT, function
from gatecast import ask, eventually
from ports import free_port

CODE = SUPPORT / "callback"
# A file of others, in the place of the node's.
STRANGERS = "/etc/ssl/certs/ca-certificates.crt"
HOST = "dynamodb.us-east-1.amazonaws.com"


@pytest.fixture(scope="module")
def table():
    """Stands for DynamoDB, over plain HTTP."""
    back_end = BackEnd(lambda request: (200, {"Content-Type": "application/x-amz-json-1.0"}, b'{"TableNames":["chat"]}'))
    yield back_end
    back_end.close()


@pytest.fixture(scope="module")
def node(start_shared, table):
    address = "{}:{}".format(*table.address)
    return start_shared("\n".join([
        function("v2", "node", "v2.handler", CODE),
        function("v3", "node", "v3.handler", CODE),
        function("boto", "python", "boto.handler", CODE),
        function("curl", "command", "callback.handler", SUPPORT / "runtimes"),
        function("node-stranger", "node", "v3.handler", CODE, environment={"NODE_EXTRA_CA_CERTS": STRANGERS}),
        function("python-stranger", "python", "boto.handler", CODE, environment={"AWS_CA_BUNDLE": STRANGERS}),
        function("hosts", "node", "hosts.handler", CODE, environment={"MAPPED": HOST}, hosts={HOST: address}),
    ]))


def told(client, action, **more):
    """The next message for a client that calls a function, which may have to start."""
    client.send(json.dumps({"action": action} | more))
    return client.recv(timeout=40)


@pytest.mark.parametrize(
    ("action", "more"),
    [
        ("v2", {}),
        ("v3", {}),
        ("v3", {"slash": "/"}),
        # The endpoint of the environment.
        ("v3", {"endpoint": None}),
        ("boto", {}),
        ("boto", {"endpoint": None}),
        ("curl", {}),
    ],
)
def test_a_function_posts_to_its_caller_and_finds_who_is_gone(node, action, more):
    with node.connect() as client:
        assert told(client, action, **more) == "hello"
        assert client.recv(timeout=10) == "200 410"


@pytest.mark.parametrize("action", ["node-stranger", "python-stranger"])
def test_who_trusts_others_does_not_call_back(node, action):
    with node.connect() as client:
        assert "certificate" in told(client, action).lower()
    eventually(lambda: node.metric("gatecast_tls_handshakes_total", port="callback", outcome="failed") >= 1)


def test_node_finds_mapped_hosts_whichever_way_it_connects(node, table):
    with node.connect() as client:
        ways = json.loads(told(client, "hosts"))
    assert ways == {"v2": "chat", "fetch": "chat", "request": "chat", "imported": "chat", "other": "refused"}
    assert {request.headers["Host"] for request in table.requests} == {HOST}
    # The last waits for its next request.
    eventually(lambda: node.metric("gatecast_mapped_host_connections_total", outcome="done") >= 2)


def test_a_certificate_of_the_operator_is_shown_and_trusted(start, tmp_path):
    port, pair = free_port(), [tmp_path / "cert.pem", tmp_path / "key.pem"]
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    line += ["-addext", "subjectAltName=DNS:localhost", "-out", pair[0], "-keyout", pair[1]]
    subprocess.run(line, check=True, capture_output=True)
    callback = f"""
[callback]
listen = "127.0.0.1:{port}"
domain_name = "localhost:{port}"
cert_file = "{pair[0]}"
key_file = "{pair[1]}"
"""
    node = start(function("v3", "node", "v3.handler", CODE) + function("boto", "python", "boto.handler", CODE) + callback)
    with node.connect() as client:
        for action in ("v3", "boto"):
            assert (told(client, action), client.recv(timeout=10)) == ("hello", "200 410")
