"""What many connections and many groups cost; and that a node pays only for its own."""

import json
import re
import subprocess
import time

from cluster import metric, publish
from crowd import crowd_of, hear, say
from gatecast import eventually, request

# A full subscription again takes a moment; nobody is to be taken for dead meanwhile.
# Clients that are looked at one after the other do not answer pings meanwhile.
PATIENT = {"GATECAST_REDIS_LEASE": "30s", "GATECAST_LIMITS_PING_INTERVAL": "off"}
MANY_GROUPS = {"GATECAST_LIMITS_GROUPS_PER_CONNECTION": "10000"}


def records(server):
    return sum(int(server.ask("HLEN", key)) for key in server.ask("KEYS", "*:connections").split())


def subscriptions(server):
    """Of all connections together; asking Redis for the channels' names would cost it more than what is measured."""
    return sum(map(int, re.findall(r" s?sub=(\d+)", server.ask("CLIENT", "LIST", "TYPE", "pubsub"))))


def calls(server, command):
    found = re.search(rf"^cmdstat_{command}:calls=(\d+)", server.ask("INFO", "commandstats"), re.M)
    return int(found[1]) if found else 0


def bytes_from_redis(node, server):
    """What a node's open connections to Redis have received."""
    line = ["ss", "--tcp", "--info", "--processes", "--no-header", "--oneline", "dst", f"127.0.0.1:{server.port}"]
    rows = subprocess.run(line, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    own = [row for row in rows if f"pid={node.process.pid}," in row]
    assert own, rows
    return sum(int(count) for row in own for count in re.findall(r"bytes_received:(\d+)", row))


def resident(node):
    with open(f"/proc/{node.process.pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1])


def join_groups(clients, each):
    """Joins groups that are nobody else's; returns the names, by client."""
    names = [[f"group {number} {index}" for index in range(each)] for number in range(len(clients))]
    for client, own in zip(clients, names):
        for first in range(0, each, 500):
            part = own[first : first + 500]
            say(client, *(json.dumps({"action": "joinGroup", "group": name}) for name in part))
            assert sorted(hear(client, len(part))) == sorted(f"joined {name}" for name in part)
    return names


def test_a_storm_of_handshakes_on_three_nodes_leaves_a_record_each(redis, start_on, note):
    nodes, each = start_on(redis, **PATIENT), 1_000
    before, began = calls(redis, "evalsha"), time.monotonic()
    with crowd_of(nodes, each) as clients:
        took = time.monotonic() - began
        note(f"scale: {3 * each} handshakes at once on three nodes took {took:.2f} s")
        assert records(redis) == 3 * each == len(clients)
        assert [metric(node, "gatecast_connections") for node in nodes] == [each] * 3
        assert calls(redis, "evalsha") - before < 100, "a handshake needs no script"
        # All are members of everything from their first moment.
        assert publish(nodes[0], "@broadcast", "welcome")[0] == 200
        assert {text for client in clients for text in hear(client)} == {"welcome"}
    eventually(lambda: records(redis) == 0)
    assert [metric(node, "gatecast_connections") for node in nodes] == [0] * 3


def test_a_group_with_one_member_on_each_node_costs_one_script_a_message(redis, start_on):
    nodes = start_on(redis, **PATIENT)
    with crowd_of(nodes, 5) as clients:
        members, others = clients[:3], clients[3:]
        for member in members:
            say(member, '{"action":"joinGroup","group":"moon"}')
            assert hear(member) == ["joined moon"]
        assert redis.ask("PUBSUB", "NUMSUB", "gatecast:{group:moon}").split()[-1] == "3"
        before = calls(redis, "xadd")
        for number in range(300):
            assert publish(nodes[number % 3], "@groups/moon", str(number))[0] == 200
        for member in members:
            assert hear(member, 300) == [str(number) for number in range(300)]
        assert calls(redis, "xadd") - before == 300
        assert publish(nodes[0], "@broadcast", "the first that the others hear")[0] == 200
        assert {text for client in others for text in hear(client)} == {"the first that the others hear"}


def test_many_groups_on_one_node_are_joined_heard_and_subscribed_to_again(redis, start_on, note):
    nodes = start_on(redis, 2, **PATIENT, **MANY_GROUPS)
    node, other = nodes
    empty = resident(node)
    with crowd_of([node], 4) as clients:
        began = time.monotonic()
        names = join_groups(clients, 5_000)
        joined = time.monotonic() - began
        assert metric(node, "gatecast_channels") >= 20_000
        assert subscriptions(redis) >= 20_000

        def reach(text):
            for client, own in zip(clients, names):
                for name in own[::500]:
                    status = eventually(lambda: publish(other, f"@groups/{name.replace(' ', '%20')}", f"{text} {name}")[0] == 200)
                    assert status and hear(client) == [f"{text} {name}"]

        reach("before")
        began = time.monotonic()
        assert redis.cut_subscribers() >= 2
        # At once, while the node is deaf: it reads what it missed.
        reach("after")
        eventually(lambda: subscriptions(redis) >= 20_000, within=30)
        eventually(lambda: metric(node, "gatecast_redis_up") == 1, within=30)
        subscribed = time.monotonic() - began
        assert metric(node, "gatecast_messages_lost_total") == 0
        growth = (resident(node) - empty) / 20_000
        note(f"scale: 20,000 groups on one node: joined in {joined:.1f} s, again after a cut in {subscribed:.1f} s, {growth:.2f} KiB each")
        for client in clients:
            client.raw.close()
        eventually(lambda: metric(node, "gatecast_channels") <= 1, within=30)
        # Of each node: everybody's channel, its own, and its heartbeat's.
        eventually(lambda: subscriptions(redis) <= 6, within=30)


def test_a_node_without_members_of_anything_is_sent_nothing_but_heartbeats(redis, start_on, note):
    # The client does not read until all has been sent.
    idle, busy = start_on(redis, 2, **PATIENT, GATECAST_LIMITS_OUTBOX_BYTES="8388608")
    body = b"x" * 10_000
    with crowd_of([busy], 1) as (client,):
        say(client, '{"action":"joinGroup","group":"moon"}')
        assert hear(client) == ["joined moon"]
        assert redis.ask("PUBSUB", "NUMSUB", "gatecast:{group:moon}").split()[-1] == "1"
        quiet, loud = bytes_from_redis(idle, redis), bytes_from_redis(busy, redis)
        # Through the idle node too: it is answered with an offset, not with the message.
        for number in range(400):
            assert request((idle, busy)[number % 2].address, "POST", "/beta/@groups/moon", body)[0].status == 200
        assert {len(text) for text in hear(client, 400)} == {10_000}
        quiet, loud = bytes_from_redis(idle, redis) - quiet, bytes_from_redis(busy, redis) - loud
    note(f"scale: 4,000,000 bytes to a group: {loud} to the node with the member, {quiet} to the node without")
    assert loud >= 4_000_000 and quiet < 200_000
    assert metric(idle, "gatecast_messages_sent_total") == 0
