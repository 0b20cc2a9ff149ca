"""`@connections` on any node answers for the connections of every node, through boto3."""

import pytest
from botocore.exceptions import ClientError

from cluster import clients_of
from gatecast import connection_id, drain_frames
from management import KEYS, MESSAGE_MAX, UNKNOWN_ID, sdk
from wire import Socket

OPERATIONS = {"post_to_connection": {"Data": b"hello"}, "get_connection": {}, "delete_connection": {}}


@pytest.fixture
def nodes(redis, start_on):
    return start_on(redis, **KEYS)


def status(call, **arguments):
    """Returns the HTTP status and the name of the error, if there is one."""
    try:
        return call(**arguments)["ResponseMetadata"]["HTTPStatusCode"], None
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], type(error).__name__


def test_a_post_to_any_node_reaches_the_connection_byte_for_byte(nodes):
    with clients_of(nodes) as clients:
        for client in clients:
            for node in nodes:
                api = sdk(node.management)
                for data in ("hello", "", "Grüße 🚀", b"\xff\x00\xfe", "x" * MESSAGE_MAX):
                    sent = data if isinstance(data, bytes) else data.encode()
                    assert status(api.post_to_connection, ConnectionId=client.id, Data=sent) == (200, None)
                    assert client.recv(timeout=10) == data


def test_posts_through_another_node_keep_their_order(nodes):
    api = sdk(nodes[1].management)
    with nodes[0].connect() as client:
        own = connection_id(client)
        expected = [f"{number}" for number in range(200)]
        for text in expected:
            api.post_to_connection(ConnectionId=own, Data=text.encode())
        assert [client.recv(timeout=10) for _ in expected] == expected


def test_every_node_tells_the_same_of_a_connection(nodes):
    with nodes[0].connect(user_agent_header="major-tom/1.0") as client:
        own = connection_id(client)
        got = [sdk(node.management).get_connection(ConnectionId=own) for node in nodes]
        for each in got:
            assert each["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "major-tom/1.0"}
            assert each["ConnectedAt"] == got[0]["ConnectedAt"] <= each["LastActiveAt"]


def test_delete_on_any_node_closes_the_connection_everywhere(nodes):
    for deleter in nodes:
        with nodes[0].connect() as client:
            own = connection_id(client)
            assert status(sdk(deleter.management).delete_connection, ConnectionId=own) == (204, None)
            assert drain_frames(client) == ([], (1000, ""))
        for node in nodes:
            api = sdk(node.management)
            for operation, arguments in OPERATIONS.items():
                answer = status(getattr(api, operation), ConnectionId=own, **arguments)
                assert answer == (410, "GoneException"), operation


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_unknown_and_a_closed_connection_are_gone_on_every_node(nodes, operation):
    with nodes[0].connect() as client:
        closed = connection_id(client)
    for node in nodes:
        for gone in (closed, UNKNOWN_ID):
            call = getattr(sdk(node.management), operation)
            assert status(call, ConnectionId=gone, **OPERATIONS[operation]) == (410, "GoneException")


def test_a_malformed_id_is_a_bad_request_on_every_node(nodes):
    for node in nodes:
        answer = status(sdk(node.management).get_connection, ConnectionId="short")
        assert answer[0] == 400


def test_a_full_outbox_on_another_node_is_429_and_loses_nothing(nodes):
    api = sdk(nodes[1].management)
    with Socket(nodes[0].address, receive_buffer=4096).upgrade() as slow:
        own = slow.connection_id()
        for accepted in range(400):
            answer = status(api.post_to_connection, ConnectionId=own, Data=b"%06d" % accepted + b"." * 100_000)
            if answer != (200, None):
                break
        assert answer == (429, "LimitExceededException")
        received = [slow.receive()[1][:6] for _ in range(accepted)]
        assert received == [b"%06d" % number for number in range(accepted)]
        api.post_to_connection(ConnectionId=own, Data=b"again")
        assert slow.receive()[1] == b"again"
