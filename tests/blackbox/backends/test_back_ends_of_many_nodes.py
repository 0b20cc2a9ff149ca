"""Back ends of nodes that share a Redis: ends of connections of a node that dies, and events in streams."""

import json
import signal
import subprocess
import sys

import pytest

from backend import BackEnd
from cluster import SHORT_LEASE
from gatecast import EXAMPLES, clean_environment, eventually, lasts

CONFIG = """
[targets.app]
url = "{url}"

[routes."$connect"]
integration = "http"
target = "app"

[routes."$disconnect"]
integration = "http"
target = "app"
"""
STREAM = """
[streams.work]
max_entries = 1000

[routes."$connect"]
integration = "stream"
stream = "work"

[routes."$disconnect"]
integration = "stream"
stream = "work"

[routes."$default"]
integration = "stream"
stream = "work"
"""


@pytest.fixture
def back_end():
    back_end = BackEnd()
    yield back_end
    back_end.close()


def ids(events):
    return sorted(event["requestContext"]["connectionId"] for event in events)


def test_ends_of_a_node_that_dies_are_told_once(start_on, redis, back_end):
    nodes = start_on(redis, config=CONFIG.format(url=back_end.url), **SHORT_LEASE)
    clients = [node.connect() for node in nodes for _ in range(20)]
    eventually(lambda: len(back_end.events("CONNECT")) == len(clients))
    victim = nodes[0]
    victim.is_ended_by_test = True
    victim.process.kill()
    eventually(lambda: len(back_end.events("DISCONNECT")) >= 20, within=20)
    for client in clients[20:]:
        client.close()
    eventually(lambda: len(back_end.events("DISCONNECT")) >= len(clients), within=20)
    assert ids(back_end.events("DISCONNECT")) == ids(back_end.events("CONNECT"))
    lost = back_end.events("DISCONNECT")[:20]
    assert {event["requestContext"]["disconnectStatusCode"] for event in lost} == {1006}
    eventually(lambda: not any(int(redis.ask("HLEN", key)) for key in redis.ask("KEYS", "*:connections").split()))


def test_ends_wait_for_a_back_end_that_hangs_while_a_node_is_reaped(start_on, redis, back_end):
    """A reaper that waits for a back end is not itself taken for dead, and nobody does its work a second time."""
    nodes = start_on(redis, config=CONFIG.format(url=back_end.url), **SHORT_LEASE)
    clients = [nodes[0].connect() for _ in range(10)]
    go_on = back_end.hold("DISCONNECT")
    nodes[0].is_ended_by_test = True
    nodes[0].process.kill()
    eventually(lambda: len(back_end.events("DISCONNECT")) == 10, within=20)
    # Several leases of one second, in which nothing is answered.
    lasts(4)
    go_on.set()
    eventually(lambda: not any(int(redis.ask("HLEN", key)) for key in redis.ask("KEYS", "*:connections").split()), within=20)
    requests = [event["requestContext"]["requestId"] for event in back_end.events("DISCONNECT")]
    assert len(requests) == len(set(requests)) == 10
    assert all(node.process.poll() is None for node in nodes[1:])
    for client in clients:
        client.close()


def entries(redis):
    """The events of the stream, as a worker of a consumer group reads them."""
    redis.ask("XGROUP", "CREATE", "gatecast:work:work", "workers", "0", "MKSTREAM")
    text = redis.ask("--json", "XREADGROUP", "GROUP", "workers", "one", "COUNT", "10000", "STREAMS", "gatecast:work:work", ">")
    read = json.loads(text) if text else {}
    return [json.loads(fields[1]) for _, fields in (read or {}).get("gatecast:work:work", [])]


def test_events_are_appended_in_the_order_of_each_connection(start_on, redis):
    node, other = start_on(redis, count=2, config=STREAM)
    with node.connect() as client, other.connect() as second:
        for number in range(200):
            client.send(f"one {number}")
            second.send(f"two {number}")
    eventually(lambda: int(redis.ask("XLEN", "gatecast:work:work")) == 404)
    events = entries(redis)
    for name in ("one", "two"):
        bodies = [event["body"] for event in events if event.get("body", "").startswith(name)]
        assert bodies == [f"{name} {number}" for number in range(200)]
    kinds = [event["requestContext"]["eventType"] for event in events]
    assert (kinds.count("CONNECT"), kinds.count("DISCONNECT")) == (2, 2)


@pytest.fixture
def start_worker(redis, tmp_path):
    """Starts the worker of the examples against a node."""
    started = []

    def start_worker(node, name):
        environment = clean_environment({
            "NAME": name, "REDIS_URL": redis.url, "ENDPOINT": f"http://{node.address[0]}:{node.address[1]}/beta", "IDLE_MS": "500",
            "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1",
        })
        with open(tmp_path / f"{name}.log", "wb") as log:
            line = [sys.executable, EXAMPLES / "streams/worker.py"]
            started.append(subprocess.Popen(line, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield start_worker
    for worker in started:
        worker.kill()
        worker.wait()


def test_workers_share_the_events_and_take_over_from_one_that_dies(start_on, redis, start_worker):
    (node,) = start_on(redis, count=1, config=(EXAMPLES / "streams.toml").read_text())
    stopped, _ = start_worker(node, "stopped"), start_worker(node, "other")
    eventually(lambda: redis.ask("CLIENT", "LIST").count("cmd=xreadgroup") == 2, within=20)
    with node.connect() as client:
        stopped.send_signal(signal.SIGSTOP)
        for number in range(50):
            client.send(f"message {number}")
        # What the one had taken, if anything, the other takes over.
        assert {client.recv(timeout=20) for _ in range(50)} == {f"MESSAGE {number}" for number in range(50)}
    eventually(lambda: redis.ask("XPENDING", "gatecast:work:jobs", "workers").split()[0] == "0")


def test_a_worker_that_is_told_to_end_finishes_what_it_has_begun(start_on, redis, start_worker):
    (node,) = start_on(redis, count=1, config=(EXAMPLES / "streams.toml").read_text())
    worker = start_worker(node, "one")
    with node.connect() as client:
        client.send("hello")
        assert client.recv(timeout=20) == "HELLO"
        worker.terminate()
        assert worker.wait(timeout=10) == 0
    assert redis.ask("XPENDING", "gatecast:work:jobs", "workers").split()[0] == "0"


def test_a_stream_is_bounded(start_on, redis):
    (node,) = start_on(redis, count=1, config=STREAM.replace("max_entries = 1000", "max_entries = 10"))
    with node.connect() as client:
        for number in range(500):
            client.send(f"message {number}")
        eventually(lambda: node.metric("gatecast_backend_calls_total", target="streams.work", outcome="ok") >= 501)
    assert int(redis.ask("XLEN", "gatecast:work:work")) < 250


def test_without_redis_the_sender_is_told(start_on, redis):
    (node,) = start_on(redis, count=1, config=STREAM)
    with node.connect() as client:
        redis.kill()
        client.send("hello")
        assert json.loads(client.recv(timeout=20))["message"] in ("Internal server error", "Endpoint request timed out")
