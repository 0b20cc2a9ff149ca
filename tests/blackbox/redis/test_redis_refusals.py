"""A Redis that is there and says no: who is told what, what is counted and logged, and that all is well once it is mended."""

import json
import re
import socket
import subprocess

import pytest

from cluster import (LONG_LEASE, SHORT_LEASE, clients_of, handshake_status, is_internal_error, metric, publish, ready,
                     refusals, throughout, warnings)
from gatecast import ask, eventually, request
from impostor import commands_in
from ports import free_port
from proxies import Proxy
from topologies import Server, cluster_info
from wire import Socket, handshake


def refuse_memory(redis):
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    return lambda: redis.ask("CONFIG", "SET", "maxmemory", "0")


def become_replica(redis):
    redis.ask("REPLICAOF", "127.0.0.1", "1")
    return lambda: redis.ask("REPLICAOF", "NO", "ONE")


def become_replica_that_writes(redis):
    redis.ask("CONFIG", "SET", "replica-read-only", "no")
    return become_replica(redis)


def lack_replicas(redis):
    redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    return lambda: redis.ask("CONFIG", "SET", "min-replicas-to-write", "0")


def fail_to_save(redis):
    """Its directory is gone."""
    redis.ask("CONFIG", "SET", "save", "3600 1")
    for path in redis.directory.iterdir():
        path.unlink()
    redis.directory.rmdir()
    redis.ask("BGSAVE")
    eventually(lambda: "rdb_last_bgsave_status:err" in redis.ask("INFO", "persistence"))

    def mend():
        redis.directory.mkdir()
        return redis.ask("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")

    return mend


def change_password(redis):
    redis.ask("CONFIG", "SET", "requirepass", "another")
    for kind in ("pubsub", "normal"):
        redis.ask("-a", "another", "CLIENT", "KILL", "TYPE", kind)
    return lambda: redis.ask("-a", "another", "CONFIG", "SET", "requirepass", "")


def forbid(*rights):
    def forbid(redis):
        redis.ask("ACL", "SETUSER", "default", *(f"-{right}" for right in rights))
        return lambda: redis.ask("ACL", "SETUSER", "default", "+@all")

    return forbid


def be_busy(redis):
    redis.ask("CONFIG", "SET", "busy-reply-threshold", "20")
    line = ["redis-cli", "-p", str(redis.port), "EVAL", "while true do end", "0"]
    script = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    eventually(lambda: "BUSY" in redis.ask("GET", "x"))

    def mend():
        redis.ask("SCRIPT", "KILL")
        return script.wait(timeout=10) or "OK"

    return mend


def have_too_many_clients(redis):
    """One connection is kept for who mends it."""
    own = socket.create_connection(("127.0.0.1", redis.port))

    def tell(line):
        own.sendall(line.encode() + b"\r\n")
        return own.recv(1 << 16).decode()

    assert tell("CONFIG SET maxclients 1") == "+OK\r\n"
    assert tell("CLIENT KILL TYPE normal")[0] == tell("CLIENT KILL TYPE pubsub")[0] == ":"

    def mend():
        assert tell("CONFIG SET maxclients 10000") == "+OK\r\n"
        own.close()
        return "OK"

    return mend


# By how it comes about: the class that is counted, and what the log says.
AILMENTS = {
    "memory": (refuse_memory, "oom", "OOM"),
    "replica": (become_replica, "readonly", "replica"),
    "replica_that_writes": (become_replica_that_writes, "readonly", "replica"),
    "replicas": (lack_replicas, "replicas", "NOREPLICAS"),
    "disk": (fail_to_save, "misconf", "MISCONF"),
    "password": (change_password, "auth", "NOAUTH"),
    "no_writes": (forbid("psetex"), "noperm", "psetex"),
    "no_publishing": (forbid("publish"), "noperm", "publish"),
    "no_scripts": (forbid("evalsha"), "noperm", "evalsha"),
    "script": (be_busy, "busy", "BUSY"),
    "clients": (have_too_many_clients, "max_clients", "max number of clients"),
}
# Those with which what this node writes is not refused but for its heartbeats.
HANDSHAKES_GO_ON = {"no_writes", "no_publishing", "no_scripts", "replica_that_writes"}
# A script that the server does not finish has accepted the message already.
IN_DOUBT = {"no_publishing"}
MESSAGES_GO_ON = {"no_writes", "replica_that_writes"}


# Most of the time of these tests is that a node stays ready for three leases, and that Redis is well for two heartbeats.
SHORTEST_LEASE = {"GATECAST_REDIS_LEASE": "600ms", "GATECAST_REDIS_HEARTBEAT": "100ms"}


@pytest.mark.parametrize("name", AILMENTS)
def test_a_refusal_is_told_counted_and_over_when_it_is_mended(redis, start_on, name):
    ail, kind, said = AILMENTS[name]
    # One: of several whose leases could not be renewed for so long, the first to renew its own takes the others for dead.
    nodes = [node] = start_on(redis, 1, **SHORTEST_LEASE)
    with clients_of(nodes, each=2) as (near, far):
        assert metric(node, "gatecast_redis_up") == 1 and refusals(node, kind) == 0
        assert publish(node, "@broadcast", "before")[0] == 200
        assert near.recv(timeout=10) == far.recv(timeout=10) == "before"
        mend = ail(redis)
        try:
            eventually(lambda: all(metric(each, "gatecast_redis_up") == 0 for each in nodes))
            eventually(lambda: refusals(node, kind) > 0)
            assert "Redis" in ready(node)[1]["reason"]
            if name not in HANDSHAKES_GO_ON:
                assert handshake_status(node.address) == 503
            if name not in MESSAGES_GO_ON:
                assert is_internal_error(ask(near, "hello"))
                response, body = request(node.address, "POST", "/beta/@broadcast", b"hello")
                assert response.status == 503 and b"Redis" in body and b"away" not in body, body
                assert metric(node, "gatecast_messages_dropped_total", reason="unavailable") == 2
            assert node.post(near.id, b"near") == 200 and near.recv(timeout=10) == "near"
            eventually(lambda: ready(node)[0] == 503)
            assert node.page("/live")[0] == 200
            [line] = warnings(node, "Redis refuses what it is asked")
            assert f"127.0.0.1:{redis.port}" in line and said in line and "advice=" in line
            assert not warnings(node, "Redis is away")
        finally:
            assert mend() is not None
        eventually(lambda: all(ready(each) == (200, {"status": "ready"}) for each in nodes), within=20)
        assert metric(node, "gatecast_redis_up") == 1
        eventually(lambda: publish(node, "@broadcast", "again")[0] == 200)
        # What was in doubt may have come before.
        assert "again" in [near.recv(timeout=10) for _ in range(3)] if name in IN_DOUBT else near.recv(timeout=10) == "again"
        eventually(lambda: far.recv(timeout=10) == "again")
        node.serves()


def test_a_node_that_is_refused_stays_ready_for_three_leases_and_says_why(redis, start_on):
    (node,) = start_on(redis, 1)
    mend = refuse_memory(redis)
    eventually(lambda: metric(node, "gatecast_redis_up") == 0)
    throughout(0.5, lambda: ready(node)[0] == 200 and "its memory is full" in ready(node)[1]["reason"])
    mend()
    eventually(lambda: ready(node) == (200, {"status": "ready"}))


def test_a_failover_behind_one_address_is_followed_at_once(start_redis, start_on):
    """The address leads to the new master, while all connections stay with the old one, which is a replica now."""
    old, new = start_redis(), start_redis()
    old.ask("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    new.ask("REPLICAOF", "127.0.0.1", str(old.port))
    eventually(lambda: "master_link_status:up" in new.ask("INFO", "replication"))
    address = Proxy(old.port)
    nodes = start_on(address, 2)
    with clients_of(nodes) as (near, far):
        assert publish(nodes[0], "@broadcast", "before")[0] == 200
        assert near.recv(timeout=10) == far.recv(timeout=10) == "before"
        address.target = ("127.0.0.1", new.port)
        new.ask("REPLICAOF", "NO", "ONE")
        old.ask("REPLICAOF", "127.0.0.1", str(new.port))
        for node in nodes:
            assert publish(node, "@broadcast", "after")[0] == 200
        assert [client.recv(timeout=10) for client in (near, far, near, far)] == ["after"] * 4
        for node in nodes:
            node.serves()
        eventually(lambda: len(new.ask("CLIENT", "LIST", "TYPE", "pubsub").splitlines()) == 2)
        eventually(lambda: not old.ask("CLIENT", "LIST", "TYPE", "pubsub"))
        eventually(lambda: all(metric(node, "gatecast_redis_up") == 1 for node in nodes))
        assert near.node.post(far.id, b"hello") == 200 and far.recv(timeout=10) == "hello"
        throughout(0.5, lambda: all(ready(node)[0] == 200 for node in nodes))
    address.end()


def waits(start, server, said, kind):
    """Starts a node that Redis does not serve: it is alive, not ready, says why once, and lets nobody in."""
    node = start(GATECAST_REDIS_URL=f"redis://{server.address}", **SHORT_LEASE)
    eventually(lambda: refusals(node, kind) > 0)
    throughout(0.5, lambda: node.page("/live")[0] == 200 and ready(node)[0] == 503)
    [line] = warnings(node, "Redis refuses what it is asked")
    assert said in line and server.address in line and not warnings(node, "Redis is away")
    assert "Redis refuses" in ready(node)[1]["reason"]
    return node


@pytest.fixture
def serve(tmp_path):
    """Starts servers with options, and ends them with the test."""
    servers = []

    def serve(*options):
        servers.append(Server(tmp_path / f"server-{len(servers)}", *options))
        return servers[-1]

    yield serve
    for server in servers:
        server.kill()


def test_a_replica_is_no_place_to_start(serve, start):
    server = serve("--replicaof", "127.0.0.1 1", "--replica-read-only", "no")
    node = waits(start, server, "role:slave", "readonly")
    server.ask("REPLICAOF", "NO", "ONE")
    eventually(lambda: ready(node)[0] == 200)
    node.serves()


@pytest.mark.parametrize("word", ["EVALSHA", "PSETEX", "SUBSCRIBE"])
def test_a_server_without_a_command_is_none_to_start_with(serve, start, word):
    waits(start, serve("--rename-command", word, ""), "unknown command", "unknown_command")


def too_old(node, address, said, reason="it is too old"):
    """A node that waits for a newer server says which will do."""
    eventually(lambda: refusals(node, "too_old") > 0)
    assert ready(node)[0] == 503 and reason in ready(node)[1]["reason"] and node.page("/live")[0] == 200
    [line] = warnings(node, "Redis refuses what it is asked")
    assert address in line and said in line and "use Redis 6.2 or later; for a Cluster 7.0 or later" in line


def saying(version):
    """Edits what a server says of its version."""
    return lambda data: re.sub(rb"redis_version:[\d.]+", lambda found: b"redis_version:" + version.ljust(len(found[0]) - 14, b"0"), data)


def test_a_server_of_an_old_version_is_told_which_is_needed(redis, impostors, start):
    impostor = impostors(redis.port, saying(b"6.0.16"))
    node = start(GATECAST_REDIS_URL=impostor.url, **SHORT_LEASE)
    too_old(node, impostor.address, "the server's version is 6.0.16, and 6.2 or later is needed")
    impostor.edit = saying(b"6.2.1")
    eventually(lambda: ready(node)[0] == 200)
    node.serves()


@pytest.mark.parametrize("said", ["-ERR unknown command `HELLO`, with args beginning with: `3`, ", "-NOPROTO unsupported protocol version"])
def test_a_server_that_does_not_speak_the_newer_protocol_is_told_which_is_needed(impostor, redis, start, said):
    impostor.turn(lambda data: [f"{said}\r\n".encode() * commands_in(data)])
    node = start(GATECAST_REDIS_URL=impostor.url, **SHORT_LEASE)
    too_old(node, impostor.address, "6" if "HELLO" in said else "NOPROTO")
    impostor.mend(redis.port)
    eventually(lambda: ready(node)[0] == 200)


def small_cluster(serve, port, *options):
    """A Cluster of one server, which is whole once it has all slots."""
    # A master takes writes a timeout after the Cluster is whole.
    own = ("--cluster-enabled", "yes", "--cluster-port", free_port(), "--cluster-node-timeout", 500)
    server = serve(*own, "--cluster-announce-port", port, *options)
    assert server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16_383) == "OK"
    eventually(lambda: cluster_info(server, "cluster_state") == "ok")
    return server


def test_a_cluster_needs_a_newer_version_than_a_server_alone(serve, impostors, start):
    impostor = impostors(None, saying(b"6.2.14"))
    impostor.redis = small_cluster(serve, impostor.address.split(":")[1]).port
    node = start(GATECAST_REDIS_URL=f"redis+cluster://{impostor.address}", **SHORT_LEASE)
    too_old(node, impostor.address, "the server's version is 6.2.14, and 7.0 or later is needed")
    impostor.edit = bytes
    eventually(lambda: ready(node)[0] == 200)
    node.serves()


@pytest.mark.parametrize("coverage", ["yes", "no"])
def test_a_cluster_that_is_not_whole_is_named(serve, start, coverage):
    server = small_cluster(serve, 0, "--cluster-require-full-coverage", coverage)
    assert server.ask("CLUSTER", "DELSLOTSRANGE", 0, 16_383) == "OK"
    eventually(lambda: cluster_info(server, "cluster_slots_assigned") == "0")
    node = start(GATECAST_REDIS_URL=f"redis+cluster://{server.address}", **SHORT_LEASE)

    def is_named(status):
        eventually(lambda: ready(node)[0] == status and "the Cluster is not whole" in ready(node)[1]["reason"])
        assert handshake_status(node.address) == 503 and node.page("/live")[0] == 200
        response, body = request(node.address, "POST", "/beta/@broadcast", b"hello")
        assert response.status == 503 and b"the Cluster is not whole" in body, body

    eventually(lambda: ready(node)[1].get("reason"))
    is_named(503)
    assert server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16_383) == "OK"
    eventually(lambda: ready(node) == (200, {"status": "ready"}), within=20)
    node.serves()
    with clients_of([node]) as (client,):
        assert server.ask("CLUSTER", "DELSLOTSRANGE", 0, 16_383) == "OK"
        eventually(lambda: metric(node, "gatecast_redis_up") == 0 and refusals(node, "cluster_down") > 0)
        is_named(503)
        assert is_internal_error(ask(client, "hello"))
        assert node.post(client.id, b"near") == 200 and client.recv(timeout=10) == "near"
        assert [line for line in warnings(node, "Redis refuses what it is asked: the Cluster is not whole") if server.address in line]
        assert server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16_383) == "OK"
        eventually(lambda: ready(node) == (200, {"status": "ready"}), within=20)
        eventually(lambda: publish(node, "@broadcast", "after")[0] == 200)
        assert client.recv(timeout=10) == "after"


def test_a_server_that_reads_its_data_is_waited_for(serve, start):
    slowly = ("--save", "3600 1", "--rdbcompression", "no", "--loading-process-events-interval-bytes", "1024")
    server = serve(*slowly)
    for number in range(40):
        server.ask("SET", f"key {number}", "x" * 2_000)
    assert server.ask("SAVE") == "OK"
    node = start(GATECAST_REDIS_URL=f"redis://{server.address}", **LONG_LEASE)
    eventually(lambda: ready(node)[0] == 200)
    server.kill()
    server.options = (*slowly, "--key-load-delay", "100000")
    assert server.start()
    eventually(lambda: refusals(node, "loading") > 0)
    assert handshake_status(node.address) == 503 and node.page("/live")[0] == 200
    eventually(lambda: metric(node, "gatecast_redis_up") == 1, within=30)
    node.serves()
    assert len(warnings(node, "it is reading its data from disk")) == 1


def test_a_right_to_subscribe_that_is_lost_concerns_who_joins(redis, start_on):
    node, _ = start_on(redis, 2)
    with clients_of([node], each=2) as (near, far):
        join = '{"action":"joinGroup","group":"%s"}'
        assert ask(near, join % "moon") == "joined moon"
        mend = forbid("subscribe")(redis)
        assert is_internal_error(ask(near, join % "mars"))
        assert refusals(node, "noperm") == 1 and warnings(node, "subscribe")
        # Who is in already has what is sent.
        assert ask(far, join % "moon") == "joined moon"
        assert publish(node, "@groups/moon", "hello")[0] == 200
        assert near.recv(timeout=10) == far.recv(timeout=10) == "hello"
        assert metric(node, "gatecast_redis_up") == 1
        redis.cut_subscribers()
        eventually(lambda: metric(node, "gatecast_redis_up") == 0)
        mend()
        eventually(lambda: metric(node, "gatecast_redis_up") == 1)
        assert ask(near, join % "mars") == "joined mars"
        assert publish(node, "@groups/moon", "again")[0] == 200
        assert near.recv(timeout=10) == far.recv(timeout=10) == "again"


def test_records_that_may_not_be_written_let_nobody_in(redis, start_on):
    (node,) = start_on(redis, 1)
    mend = forbid("hset")(redis)
    with Socket(node.address) as client:
        status, headers, body = client.send(handshake()).response()
        assert status == 503 and int(headers["retry-after"]) > 0 and b"Redis refuses" in body
    assert metric(node, "gatecast_handshakes_rejected_total", reason="redis_refused") == 1
    assert metric(node, "gatecast_handshakes_rejected_total", reason="unavailable") == 0
    assert refusals(node, "noperm") == 1 and metric(node, "gatecast_redis_command_errors_total") == 1
    [line] = warnings(node, "Redis refuses what it is asked: the user lacks a right")
    assert "hset" in line and f"127.0.0.1:{redis.port}" in line
    mend()
    node.serves()


def test_a_lease_that_may_not_be_renewed_is_not_well(redis, start_on):
    (node,) = start_on(redis, 1)
    mend = forbid("hlen")(redis)
    eventually(lambda: metric(node, "gatecast_redis_up") == 0)
    throughout(0.5, lambda: metric(node, "gatecast_redis_up") == 0)
    assert "right" in ready(node)[1]["reason"]
    mend()
    eventually(lambda: metric(node, "gatecast_redis_up") == 1)


def test_keys_of_somebody_else_are_named_and_concern_no_more_than_they_must(redis, start_on):
    nodes = start_on(redis, 2)
    keys = redis.ask("KEYS", "*:lease").split()
    with clients_of(nodes) as clients:
        tags = [client.node and next(key for key in redis.ask("KEYS", "*:connections").split() if redis.ask("HEXISTS", key, client.id) == "1")
                for client in clients]
        redis.ask("SET", tags[0], "mine")
        assert handshake_status(nodes[0].address) == 503
        nodes[1].serves()
        assert refusals(nodes[0], "wrongtype") > 0 and refusals(nodes[1], "wrongtype") == 0
        assert publish(nodes[0], "@broadcast", "hello")[0] == 200
        redis.ask("DEL", tags[0])
        nodes[0].serves()
        # Leases are written whole, whatever is there.
        for key in keys:
            redis.ask("DEL", key)
            redis.ask("RPUSH", key, "mine")
        redis.ask("DEL", "gatecast:nodes")
        redis.ask("SET", "gatecast:nodes", "mine")
        response, body = request(nodes[0].address, "GET", "/beta/@connections")
        assert response.status == 503 and b"WRONGTYPE" in body
        eventually(lambda: metric(nodes[0], "gatecast_redis_up") == 0)
        redis.ask("DEL", "gatecast:nodes")
        eventually(lambda: all(metric(node, "gatecast_redis_up") == 1 for node in nodes))
        assert len(json.loads(request(nodes[0].address, "GET", "/beta/@connections")[1])["connections"]) == 2


def test_a_connection_that_is_cut_is_not_called_away(redis, start_on):
    (node,) = start_on(redis, 1)
    reconnects = metric(node, "gatecast_redis_reconnects_total")
    redis.cut_subscribers()
    redis.ask("CLIENT", "KILL", "TYPE", "normal")
    eventually(lambda: metric(node, "gatecast_redis_reconnects_total") > reconnects)
    eventually(lambda: metric(node, "gatecast_redis_up") == 1)
    assert publish(node, "@broadcast", "hello")[0] == 200
    assert "connecting anew" in node.log() and "Redis is away" not in node.log()
