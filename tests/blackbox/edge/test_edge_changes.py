"""What changes behind and in a load balancer while clients are connected: reloads, nodes that end, hang or die."""

import re
import signal
import ssl
import subprocess
import time
from contextlib import ExitStack

import pytest
from botocore.exceptions import ClientError
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cluster import SHORT_LEASE, Publisher, paused, received_until_now
from edge import CLIENT, DEPLOY, LOOPBACK, OPEN, HaProxy, Nginx, counts, refusal, source_ip
from gatecast import ROOT, ask, connection_id, drain_frames, eventually
from management import KEYS, sdk
from ports import free_port
from wire import Socket

BALANCERS = pytest.mark.parametrize("kind", [HaProxy, Nginx])
JOIN_MOON = '{"action":"joinGroup","group":"moon"}'
UP, DOWN = "UP", "DOWN"


@pytest.fixture
def opened():
    """Opens clients through a balancer, one after the other; each knows its id and its node."""
    with ExitStack() as stack:

        def opened(balancer, count):
            return [one_more(balancer) for _ in range(count)]

        def one_more(balancer):
            before = counts_of_living(balancer.nodes)
            client = stack.enter_context(balancer.connect(max_queue=None))
            client.id = connection_id(client)
            after = counts_of_living(balancer.nodes)
            (client.node,) = [node for node in after if after[node] > before.get(node, 0)]
            return client

        yield opened


def counts_of_living(nodes):
    living = [node for node in nodes if node.process.poll() is None]
    return dict(zip(living, counts(living)))


@BALANCERS
def test_a_reload_that_takes_a_node_out_closes_nobody_and_loses_nothing(kind, redis, start_on, start_balancer, opened, note):
    nodes = start_on(redis, **OPEN)
    balancer = start_balancer(kind, nodes)
    clients = opened(balancer, 6)
    assert counts(nodes) == [2, 2, 2]
    for client in clients:
        assert ask(client, JOIN_MOON) == "joined moon"
    with Publisher([balancer], path="@groups/moon") as publisher:
        publisher.more(50)
        if kind is HaProxy:
            balancer.edit("haproxy.cfg", r"^    server node3 .*$", "")
        else:
            balancer.edit("nodes.conf", r"^server {}:{} .*$".format(*nodes[2].address), "")
        began = time.monotonic()
        balancer.reload()
        note(f"{kind.__name__}: reloaded after {time.monotonic() - began:.2f} s")
        newcomers = opened(balancer, 6)
        publisher.more(50)
    assert {answer[1] for answer in publisher.answers} == {200}, "no call failed meanwhile"
    received = received_until_now(clients, nodes[0], paths=["@groups/moon"])
    for client, texts in zip(clients, received):
        publisher.check(texts, client.id)
    # The balancer counts the publisher's calls, too, so the others need not share evenly.
    *others, taken_out = counts(nodes)
    assert (sum(others), taken_out) == (10, 2) and min(others) > 2, "nobody new on the node that was taken out"
    for client in clients + newcomers:
        client.send(f"from {client.id}")
    wanted = sorted(f"from {client.id}" for client in clients + newcomers)
    for client in clients + newcomers:
        assert sorted(client.recv(timeout=10) for _ in wanted) == wanted


@BALANCERS
def test_many_reloads_refuse_no_handshake(kind, redis, start_on, start_balancer):
    nodes = start_on(redis, **OPEN)
    balancer = start_balancer(kind, nodes)
    with Publisher([balancer], path="@groups/moon") as publisher, balancer.connect() as first:
        for _ in range(4):
            balancer.process.send_signal(balancer.RELOAD)
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                with balancer.connect() as client:
                    assert connection_id(client)
        eventually(lambda: len(publisher.accepted()) > 100)
        assert connection_id(first)
    assert {answer[1] for answer in publisher.answers} == {200}


def test_a_node_that_gives_notice_gets_nobody_new_and_keeps_whom_it_has(redis, start_on, start_balancer, opened, note):
    nodes = start_on(redis, GATECAST_DRAIN_NOTICE="8s", GATECAST_DRAIN_WINDOW="0s", **LOOPBACK)
    balancer = start_balancer(HaProxy, nodes)
    clients = opened(balancer, 3)
    leaving, *others = nodes
    leaving.is_ended_by_test = True
    leaving.signal(signal.SIGTERM)
    began = time.monotonic()
    eventually(lambda: balancer.states() == [DOWN, UP, UP])
    note(f"HaProxy: out {time.monotonic() - began:.1f} s after SIGTERM")
    newcomers = opened(balancer, 6)
    assert not any(client.node is leaving for client in newcomers)
    (old,) = [client for client in clients if client.node is leaving]
    assert ask(old, JOIN_MOON) == "joined moon", "it still serves"
    assert drain_frames(old)[1] == (1001, "Going away")
    assert leaving.wait() == 0
    for client in newcomers + [client for client in clients if client is not old]:
        assert ask(client, JOIN_MOON) == "joined moon"


@BALANCERS
def test_without_notice_the_next_handshake_finds_a_node_that_takes_it(kind, redis, start_on, start_balancer):
    """What waits in the backlog at the moment in which a node stops to accept is reset, and not sent to another: it may have been let in."""
    nodes = start_on(redis, GATECAST_DRAIN_WINDOW="3s", GATECAST_DRAIN_MIN_RATE="1", **LOOPBACK)
    balancer = start_balancer(kind, nodes)
    leaving = nodes[0]
    leaving.is_ended_by_test = True
    reset = let_in = 0
    with leaving.connect():
        leaving.signal(signal.SIGTERM)
        while leaving.process.poll() is None:
            try:
                with balancer.connect() as client:
                    assert connection_id(client)
            except InvalidStatus as refused:
                assert refused.response.status_code == 502
                reset += 1
            except ConnectionClosed as closed:
                # Let in before the node knew that it is to leave.
                assert closed.rcvd.code == 1001
                let_in += 1
    assert reset <= 1 and let_in <= 1


@BALANCERS
def test_a_node_that_is_full_is_passed_over(kind, redis, start_on, start_balancer):
    full = start_on(redis, count=1, GATECAST_LIMITS_MAX_CONNECTIONS="1", **LOOPBACK)
    nodes = full + start_on(redis, count=2, **LOOPBACK)
    balancer = start_balancer(kind, nodes)
    with full[0].connect(), ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(balancer.connect())
        assert counts(nodes) == [1, 3, 3]
    eventually(lambda: full[0].metric("gatecast_handshakes_rejected_total", reason="capacity") >= 1)


@BALANCERS
def test_clients_of_a_killed_node_come_back_to_the_others_at_once(kind, redis, start_on, start_balancer, opened):
    nodes = start_on(redis, **LOOPBACK)
    balancer = start_balancer(kind, nodes)
    clients = opened(balancer, 6)
    killed, *others = nodes
    killed.is_ended_by_test = True
    killed.kill()
    lost = [client for client in clients if client.node is killed]
    assert [drain_frames(client)[1] for client in lost] == [None, None], "no close frame"
    back = opened(balancer, len(lost))
    assert not any(client.node is killed for client in back)
    assert counts(others) == [3, 3]
    for client in clients:
        if client not in lost:
            assert ask(client, JOIN_MOON) == "joined moon"


def test_a_post_through_the_balancer_finds_every_node_and_is_410_once_a_dead_nodes_lease_is_over(
    redis, start_on, start_balancer, opened, note
):
    nodes = start_on(redis, **KEYS, **LOOPBACK, **SHORT_LEASE)
    balancer = start_balancer(HaProxy, nodes)
    clients = opened(balancer, 3)
    api = sdk(balancer.management)
    for client in clients:
        # In turns, so each node is asked for each.
        for number in range(3):
            api.post_to_connection(ConnectionId=client.id, Data=b"%d" % number)
            assert client.recv(timeout=10) == f"{number}"

    dead = clients[0]
    dead.node.is_ended_by_test = True
    dead.node.kill()
    began = time.monotonic()
    answers = []
    eventually(lambda: answers.append(status(api, dead.id)) or answers[-1] == (410, "GoneException"))
    took, before = time.monotonic() - began, {code for code, _ in answers[:-1]}
    note(f"HaProxy: 410 {took:.1f} s after kill -9, lease 1 s; before: {before}")
    assert took < 5 and before <= {503}
    for client in clients[1:]:
        assert status(api, client.id) == (200, None)


def status(api, connection_id):
    try:
        return api.post_to_connection(ConnectionId=connection_id, Data=b"hello")["ResponseMetadata"]["HTTPStatusCode"], None
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], type(error).__name__


@BALANCERS
def test_signed_calls_pass_unchanged(kind, redis, start_on, start_balancer, opened):
    nodes = start_on(redis, count=1, **KEYS, **LOOPBACK) * 3
    balancer = start_balancer(kind, nodes)
    with balancer.open_from(CLIENT) as client:
        own = connection_id(client)
        api = sdk(balancer.management)
        api.post_to_connection(ConnectionId=own, Data="Grüße".encode())
        assert client.recv(timeout=10) == "Grüße"
        assert api.get_connection(ConnectionId=own)["Identity"]["SourceIp"] == CLIENT
        assert status(sdk(balancer.management, secret="another"), own)[0] == 403
        api.delete_connection(ConnectionId=own)
        assert drain_frames(client) == ([], (1000, ""))
        assert status(api, own) == (410, "GoneException")


def test_a_node_that_hangs_is_left_out_and_comes_back(redis, start_on, start_balancer, opened):
    nodes = start_on(redis, **LOOPBACK)
    balancer = start_balancer(HaProxy, nodes)
    clients = opened(balancer, 3)
    hanging = clients[0].node
    place = nodes.index(hanging)
    with paused(hanging.process):
        eventually(lambda: balancer.states()[place] == DOWN)
        others = [client for client in clients if client.node is not hanging]
        for _ in range(4):
            with balancer.connect() as client:
                assert connection_id(client)
        for client in others:
            assert ask(client, JOIN_MOON) == "joined moon"
    eventually(lambda: balancer.states() == [UP] * 3)
    assert ask(clients[0], JOIN_MOON) == "joined moon", "nobody was closed"


@BALANCERS
def test_with_no_node_left_clients_are_told_when_to_come_back(kind, redis, start_on, start_balancer):
    nodes = start_on(redis, **LOOPBACK)
    balancer = start_balancer(kind, nodes)
    for node in nodes:
        node.is_ended_by_test = True
        node.kill()
    for _ in range(4):
        response = refusal(balancer.connect)
        assert response.status_code == 503 and response.headers["Retry-After"] == "5"
        assert response.headers["x-amzn-ErrorType"] == "ServiceUnavailableException"
        assert response.body == b'{"message":"Service Unavailable"}'


@BALANCERS
def test_the_lines_for_tls_work_as_they_stand(kind, redis, start_on, start_balancer):
    nodes = start_on(redis, **LOOPBACK)
    balancer, port = start_balancer(kind, nodes), free_port()
    folder = balancer.directory
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    line += ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "gatecast.key", "-out", folder / "gatecast.pem"]
    subprocess.run(line, check=True, capture_output=True, timeout=20)
    if kind is HaProxy:
        pair = (folder / "gatecast.pem").read_text() + (folder / "gatecast.key").read_text()
        (folder / "pair.pem").write_text(pair)
        balancer.edit("haproxy.cfg", r"^    # bind :443 ssl crt \S+", f"    bind 127.0.0.1:{port} ssl crt {folder}/pair.pem")
    else:
        balancer.edit("listen.conf", r"^# listen 443 ", f"listen 127.0.0.1:{port} ")
        balancer.edit("listen.conf", r"^# (ssl_certificate\w*) \S+/", rf"\1 {folder}/")
        balancer.edit("listen.conf", r"^# (ssl_protocols)", r"\1")
    balancer.reload()
    trust = ssl.create_default_context(cafile=folder / "gatecast.pem")
    # Not `websockets`: it reads in one thread and sends in another, and in the `ssl` of Python 3.11 what is sent while the tickets
    # that follow a handshake are read may be lost.
    with Socket(("127.0.0.1", port), source=CLIENT) as client:
        client.raw = trust.wrap_socket(client.raw, server_hostname="localhost")
        assert source_ip(nodes[0], client.upgrade().connection_id()) == CLIENT


def test_times_of_the_balancers_fit_those_of_the_nodes():
    readme = (ROOT / "README.md").read_text()
    node = {name: seconds(value) for name, value in re.findall(r"^\| `([a-z_.]+)` \| `(\d+[smh])` \|", readme, re.M)}
    haproxy = (DEPLOY / "haproxy/haproxy.cfg").read_text()
    nginx = (DEPLOY / "nginx/nginx.conf").read_text()

    def times(text, name):
        found = re.findall(rf"^\s*{name} (\d+[smh]);?$", text, re.M)
        assert found, name
        return [seconds(one) for one in found]

    end = node["limits.max_lifetime"] + node["drain.window"] + node["drain.grace"]
    assert min(times(haproxy, "hard-stop-after") + times(nginx, "worker_shutdown_timeout")) > end
    silence = 1.1 * node["limits.ping_interval"] + node["limits.pong_timeout"]
    # The first of nginx is that of WebSockets.
    tunnels = [times(haproxy, "timeout tunnel"), times(nginx, "proxy_read_timeout"), times(nginx, "proxy_send_timeout")]
    assert min(tunnel[0] for tunnel in tunnels) > 2 * silence
    kept = times(haproxy, "timeout http-keep-alive") + times(nginx, "keepalive_timeout")
    assert max(kept) < node["limits.keep_alive_timeout"]


def seconds(text):
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3_600}[text[-1]]
