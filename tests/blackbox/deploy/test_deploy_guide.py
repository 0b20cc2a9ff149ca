"""What docs/operations.md says: Redis takes the settings, the rights suffice and are needed, and what it names exists."""

import re
import signal
from types import SimpleNamespace

import pytest

from cluster import JOIN_MOON, clients_of, metric, publish
from gatecast import ROOT, ask, eventually, request

README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs/operations.md").read_text()
SECRET = "onlyforthistest"
RIGHTS = re.search(r"^The least rights that a user needs: `([^`]+)`", README, re.M)[1].split()
# The driver selects where a URL names a database, and pings connections that it has kept.
UNUSED = {"select", "ping"}
# What this test calls itself, and what everybody may.
OWN = {"config|resetstat", "client|kill", "acl|log", "hello"}


def block(beginning):
    """The indented block of the guide that begins so."""
    return re.search(rf"^```\n({re.escape(beginning)}.*?)^```$", GUIDE, re.M | re.S)[1]


@pytest.fixture
def guarded(redis):
    """A Redis with the README's user, and a password."""
    assert redis.ask("ACL", "SETUSER", "gatecast", "on", f">{SECRET}", *RIGHTS) == "OK"
    redis.guarded_url = f"redis://gatecast:{SECRET}@127.0.0.1:{redis.port}"
    return redis


def settings():
    """Of the guide, without comments."""
    lines = [line.split("#")[0].strip() for line in block("appendonly").splitlines()]
    return [line.split(maxsplit=1) for line in lines]


def test_the_rights_are_enough_for_all_that_nodes_do_and_no_more(guarded, start_on):
    guarded.ask("CONFIG", "RESETSTAT")
    nodes = start_on(SimpleNamespace(url=guarded.guarded_url))
    with clients_of(nodes) as clients:
        assert [ask(client, JOIN_MOON) for client in clients] == ["joined moon"] * 3
        assert [publish(nodes[0], path, "x")[0] for path in ("@broadcast", "@groups/moon", "@users/tom")] == [200] * 3
        for path in ("@connections", "@groups", "@counts", "@groups/moon/connections", "@groups/moon/history", "@users/tom/connections",
                     f"@connections/{clients[1].id}", f"@connections/{clients[1].id}/groups"):
            assert request(nodes[0].address, "GET", f"/beta/{path}")[0].status == 200, path
        for path, key in (("@broadcast", {"Idempotency-Key": "once"}), (f"@connections/{clients[1].id}", {})):
            assert request(nodes[0].address, "POST", f"/beta/{path}", b"x", key)[0].status == 200, path
        guarded.cut_subscribers()
        nodes[2].is_ended_by_test = True
        nodes[2].kill()
        eventually(lambda: sum(metric(node, "gatecast_connections_reaped_total") for node in nodes[:2]) == 1, within=20)
        eventually(lambda: publish(nodes[0], "@groups/moon", "after")[0] == 200)
        assert clients[0].recv(timeout=10)
        clients[0].send('{"action":"leaveGroup","group":"moon"}')
        eventually(lambda: "cmdstat_pubsub" in guarded.ask("INFO", "commandstats"))
    nodes[1].is_ended_by_test = True
    nodes[1].signal(signal.SIGTERM)
    assert nodes[1].wait() == 0
    # The driver introduces itself, and takes a refusal of that.
    assert set(re.findall(r"^object\n(.*)$", guarded.ask("ACL", "LOG"), re.M)) <= {"client|setinfo", "client"}
    # Counted where a script calls them, too.
    used = set(re.findall(r"^cmdstat_([^:]+):", guarded.ask("INFO", "commandstats"), re.M)) - OWN
    assert {right.removeprefix("+") for right in RIGHTS if right.startswith("+")} == used | UNUSED


def test_the_settings_are_ones_that_redis_takes(start_redis):
    redis = start_redis()
    for name, value in settings():
        assert redis.ask("CONFIG", "SET", name, value) == "OK", name
    told = dict(zip(*[iter(redis.ask("CONFIG", "GET", "maxmemory-policy", "appendonly").split())] * 2))
    assert told == {"maxmemory-policy": "noeviction", "appendonly": "yes"}


def test_the_metrics_and_settings_that_it_names_exist():
    known = set(re.findall(r"^\| `([a-z_.]+)` \|", README, re.M))
    metrics = {name for name in re.findall(r"gatecast_[a-z_]+", GUIDE)}
    assert metrics and metrics <= known, metrics - known
    settings = set(re.findall(r"`((?:limits|drain|redis|auth|management)\.[a-z_]+)`", GUIDE)) | {"proxy_protocol", "trusted_proxies"}
    assert settings <= known, settings - known
    # Reasons of closes and of refusals, in the second column.
    reasons = re.search(r"^\| `gatecast_handshakes_rejected_total` \| reason \| (.*) \|$", README, re.M)[1].split(", ")
    assert {"capacity", "unavailable", "rate", "draining", "origin", "connect"} <= set(reasons)
    assert {"lost", "ping_timeout", "idle", "max_lifetime"} <= known
