"""A Redis that is there and says no: who is told what, what is counted and logged, and that all is well once it is mended."""

import json
import re
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest

from cluster import (LEASE, LONG_LEASE, ask, clients_of, is_internal_error, metric, publish, redis, start_on, start_redis,
                     throughout)
from conftest import eventually, request
from test_cluster_partitions import Proxy, proxy
from topologies import Server
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


def refusals(node, kind):
    return metric(node, "gatecast_redis_refusals_total", **{"class": kind})


def handshake_status(node):
    with Socket(node.address) as client:
        return client.send(handshake()).response(has_body=False)[0]


def ready(node):
    status, body = node.page("/ready")
    return status, json.loads(body)


def warnings(node, text):
    return [line for line in node.log().splitlines() if " WARN " in line and text in line]


@pytest.mark.parametrize("name", AILMENTS)
def test_a_refusal_is_told_counted_and_over_when_it_is_mended(redis, start_on, name):
    ail, kind, said = AILMENTS[name]
    nodes = start_on(redis, 2)
    node = nodes[0]
    with clients_of(nodes) as (near, far):
        assert metric(node, "gatecast_redis_up") == 1 and refusals(node, kind) == 0
        assert publish(node, "@broadcast", "before")[0] == 200
        assert near.recv(timeout=10) == far.recv(timeout=10) == "before"
        mend = ail(redis)
        try:
            eventually(lambda: all(metric(each, "gatecast_redis_up") == 0 for each in nodes))
            eventually(lambda: refusals(node, kind) > 0)
            # Ready for the grace of three leases, and it says what is wrong.
            status, body = ready(node)
            assert status == 200 and "Redis" in body["reason"], body
            if name not in HANDSHAKES_GO_ON:
                assert handshake_status(node) == 503
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
