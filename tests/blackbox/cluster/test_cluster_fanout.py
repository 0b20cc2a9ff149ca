"""Broadcasts, groups and users reach everybody on all nodes: none lost, none twice, all in one order."""

import json

import pytest

from cluster import JOIN_MOON, Publisher, clients_of, publish, received_until_now
from gatecast import ask, connection_id


@pytest.fixture
def nodes(redis, start_on):
    return start_on(redis)


def test_a_broadcast_reaches_every_client_of_every_node_once(nodes):
    with clients_of(nodes, each=2) as clients:
        for number, node in enumerate(nodes):
            status, offset = publish(node, "@broadcast", f"post {number}")
            assert (status, type(offset)) == (200, int)
            assert [client.recv(timeout=10) for client in clients] == [f"post {number}"] * len(clients)
        for number, sender in enumerate(clients):
            sender.send(json.dumps({"action": "sendMessage", "data": f"frame {number}"}))
            assert [client.recv(timeout=10) for client in clients] == [f"frame {number}"] * len(clients)
        assert received_until_now(clients, nodes[0]) == [[]] * len(clients)


def test_all_nodes_see_one_order_whoever_publishes(nodes):
    with clients_of(nodes, each=2) as clients:
        publishers = [Publisher([node], name=f"from-{number}") for number, node in enumerate(nodes)]
        with publishers[0], publishers[1], publishers[2]:
            for number in range(100):
                clients[number % 6].send(f"frame {number}")
            for publisher in publishers:
                publisher.more(60)
        received = received_until_now(clients, nodes[1])
    assert all(texts == received[0] for texts in received)
    assert sorted(text for text in received[0] if text.startswith("frame ")) == sorted(f"frame {n}" for n in range(100))
    answers = [answer for publisher in publishers for answer in publisher.answers]
    assert {status for _, status, _ in answers} == {200}
    by_offset = [text for text, _, _ in sorted(answers, key=lambda answer: answer[2])]
    assert [text for text in received[0] if text.startswith("from-")] == by_offset


def test_offsets_of_a_channel_rise_by_one_on_whatever_node(nodes):
    offsets = [publish(nodes[number % 3], "@groups/moon", "hello")[1] for number in range(30)]
    assert offsets == list(range(offsets[0], offsets[0] + 30))


def test_a_group_message_reaches_the_members_on_all_nodes_only(nodes):
    with clients_of(nodes, each=2) as clients:
        members, others = clients[::2], clients[1::2]
        for member in members:
            assert ask(member, JOIN_MOON) == "joined moon"
        for sender in clients:
            sender.send('{"action":"sendToGroup","group":"moon","data":"from a client"}')
            assert [member.recv(timeout=10) for member in members] == ["from a client"] * 3
        for node in nodes:
            assert publish(node, "@groups/moon", "from a back end")[0] == 200
            assert [member.recv(timeout=10) for member in members] == ["from a back end"] * 3
        assert ask(members[0], '{"action":"leaveGroup","group":"moon"}') == "left moon"
        assert publish(nodes[1], "@groups/moon", "to two")[0] == 200
        assert received_until_now(members[1:], nodes[2], ["@groups/moon"]) == [["to two"], ["to two"]]
        assert received_until_now(members[:1] + others, nodes[2]) == [[]] * 4


def test_a_user_is_reached_on_all_nodes(redis, start_on):
    nodes = start_on(redis, GATECAST_AUTH_USER_HEADER="X-User", GATECAST_TRUSTED_PROXIES="127.0.0.1")
    with nodes[0].connect(additional_headers={"X-User": "tom"}) as one, nodes[2].connect() as other:
        with nodes[2].connect(additional_headers={"X-User": "tom"}) as two:
            assert connection_id(other)
            for node in nodes:
                assert publish(node, "@users/tom", "to tom")[0] == 200
                assert one.recv(timeout=10) == two.recv(timeout=10) == "to tom"
        # Tom has left one node; the other goes on hearing of him.
        assert publish(nodes[1], "@users/tom", "still")[0] == 200
        assert one.recv(timeout=10) == "still"
        assert received_until_now([one, other], nodes[1]) == [[], []]


def test_a_handshake_that_was_answered_is_a_membership(nodes):
    """A client misses nothing from its 101 on, though its node had no client before."""
    for number in range(20):
        with nodes[number % 3].connect() as client:
            assert publish(nodes[(number + 1) % 3], "@broadcast", f"welcome {number}")[0] == 200
            assert client.recv(timeout=10) == f"welcome {number}"


def test_the_first_client_of_a_node_that_just_started_misses_nothing(redis, start_on):
    (old,) = start_on(redis, 1)
    for number in range(8):
        (new,) = start_on(redis, 1)
        with new.connect() as client:
            assert publish(old, "@broadcast", f"welcome {number}")[0] == 200
            assert client.recv(timeout=10) == f"welcome {number}"


def test_what_is_sent_after_joined_was_answered_arrives(nodes):
    """However often a node's first member comes and its last one goes."""
    with nodes[0].connect() as one, nodes[1].connect() as two:
        for number in range(40):
            group = f"group-{number % 4}"
            for joiner, node in ((one, nodes[2]), (two, nodes[0])):
                assert ask(joiner, json.dumps({"action": "joinGroup", "group": group})) == f"joined {group}"
                assert publish(node, f"@groups/{group}", f"{number}")[0] == 200
                assert joiner.recv(timeout=10) == f"{number}"
                assert ask(joiner, json.dumps({"action": "leaveGroup", "group": group})) == f"left {group}"


def test_two_clusters_with_different_prefixes_do_not_hear_each_other(redis, start_on):
    here, there = (start_on(redis, 2, GATECAST_REDIS_PREFIX=prefix) for prefix in ("apollo", "soyuz"))
    with clients_of(here) as ours, clients_of(there) as theirs:
        for client in ours + theirs:
            assert ask(client, JOIN_MOON) == "joined moon"
        for nodes, word in ((here, "apollo"), (there, "soyuz")):
            for path in ("@broadcast", "@groups/moon"):
                assert publish(nodes[0], path, word)[0] == 200
        assert received_until_now(ours, here[1]) == [["apollo"] * 2] * 2
        assert received_until_now(theirs, there[1]) == [["soyuz"] * 2] * 2
        assert there[0].post(ours[0].id, b"hello") == here[0].post(theirs[0].id, b"hello") == 410
    keys = redis.ask("KEYS", "*").split()
    assert keys and not [key for key in keys if not key.startswith(("apollo", "soyuz"))]
