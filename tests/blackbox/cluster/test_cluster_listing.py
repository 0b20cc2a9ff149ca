"""Lists, memberships and records of several nodes on one real Redis."""

import json
import random
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from cluster import SHORT_LEASE, clients_of, metric, paused, publish
from gatecast import ask, eventually, lasts, request
from listing import call, count, everything, fits, identified, pages
from management import KEYS, signed
from wire import Socket

JOIN = '{"action":"joinGroup","group":"%s"}'


@pytest.fixture
def nodes(redis, start_on):
    return start_on(redis)


@contextmanager
def sockets_of(nodes, each):
    """Sockets of every node, by their ids."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(Socket(node.address)).upgrade() for node in nodes for _ in range(each)]
        yield {socket.connection_id(): socket for socket in sockets}


def tag_of(node, own):
    """The tag of the node that a connection says it is on."""
    return next(row["node"] for row in everything(node, "@connections") if row["connectionId"] == own)


def records(redis):
    """The ids of the records in Redis, by node."""
    keys = redis.ask("KEYS", "*:connections").split()
    return {key: set(redis.ask("HKEYS", key).split()) for key in keys}


def test_every_node_pages_through_the_connections_of_all(nodes, note):
    with sockets_of(nodes, 90) as sockets:
        for node in nodes:
            began = time.monotonic()
            got = list(pages(node, "@connections", 7))
            took = time.monotonic() - began
            assert all(len(page["connections"]) <= 7 and page["incomplete"] == [] for page in got)
            rows = [row for page in got for row in page["connections"]]
            assert sorted(row["connectionId"] for row in rows) == sorted(sockets)
            assert len({row["node"] for row in rows}) == 3
            note(f"lists: 270 connections of 3 nodes in {len(got)} pages of 7: {took / len(got) * 1000:.1f} ms a page")
            assert count(node) == 270
            assert {each["connections"] for each in call(node, "GET", "@counts")["nodes"]} == {90}
    eventually(lambda: [count(node) for node in nodes] == [0, 0, 0])
    assert everything(nodes[0], "@connections") == []


def test_groups_and_users_are_listed_with_members_on_many_nodes(redis, start_on):
    nodes = start_on(redis, config='trusted_proxies = ["127.0.0.1"]\nauth.user_header = "x-user"')
    with ExitStack() as stack:
        clients = []
        for number in range(9):
            headers = {"X-User": f"user {number % 2}"}
            clients.append(stack.enter_context(nodes[number % 3].connect(additional_headers=headers)))
        ids = identified(clients)
        expected = {}
        for number, client in enumerate(clients):
            for group in range(number + 1):
                ask(client, JOIN % f"group {group}")
                expected[f"group {group}"] = 9 - group
        for node in nodes:
            fits(node, "GroupPage", call(node, "GET", "@groups"))
            fits(node, "ConnectionPage", call(node, "GET", "@users/user%201/connections"))
            fits(node, "Counts", call(node, "GET", "@counts"))
            for limit in (1, 4, 100):
                got = [(row["group"], row["connections"]) for row in everything(node, "@groups", limit)]
                assert got == sorted(expected.items())
                members = everything(node, "@groups/group%204/connections", limit)
                assert sorted(row["connectionId"] for row in members) == sorted(ids[4:])
                of_user = everything(node, "@users/user%201/connections", limit)
                assert sorted(row["connectionId"] for row in of_user) == sorted(ids[1::2])
                assert {row["user"] for row in of_user} == {"user 1"}


def test_a_signature_reaches_every_page(redis, start_on):
    nodes = start_on(redis, **KEYS)
    with sockets_of(nodes, 5) as sockets:
        seen, cursor = [], ""
        while cursor is not None:
            path = f"/beta/@connections?limit=2{cursor and '&cursor=' + cursor}"
            response, body = signed(random.choice(nodes).address, "GET", path)
            assert response.status == 200, body
            page = json.loads(body)
            seen += [row["connectionId"] for row in page["connections"]]
            cursor = page["cursor"]
        assert sorted(seen) == sorted(sockets)


def test_a_node_killed_amid_paging_is_named_until_it_is_gone(redis, start_on):
    nodes = start_on(redis, **SHORT_LEASE)
    victim = nodes[2]
    with sockets_of(nodes, 40) as sockets:
        with ExitStack() as stack:
            [own] = [stack.enter_context(Socket(victim.address)).upgrade().connection_id()]
            tag = tag_of(nodes[0], own)
        eventually(lambda: count(nodes[0]) == 120)
        listed = {row["connectionId"]: row["node"] for row in everything(nodes[0], "@connections")}
        staying = {each for each, node in listed.items() if node != tag}
        seen, incomplete = [], set()
        for number, page in enumerate(pages(nodes[0], "@connections", 3)):
            if number == 3:
                victim.is_ended_by_test = True
                victim.process.kill()
                victim.wait()
            seen += [row["connectionId"] for row in page["connections"]]
            incomplete |= set(page["incomplete"])
        assert len(seen) == len(set(seen)), "listed twice"
        assert staying <= set(seen) <= set(sockets)
        assert incomplete == {tag} or set(seen) == set(sockets)

        def is_gone():
            got = list(pages(nodes[1], "@connections"))
            assert {tag} >= {name for page in got for name in page["incomplete"]}
            rows = [row["connectionId"] for page in got for row in page["connections"]]
            assert sorted(rows) == sorted(staying)
            return not any(page["incomplete"] for page in got)

        eventually(is_gone)
        assert count(nodes[0]) == 80


def test_a_node_that_stands_still_is_named_and_the_rest_is_listed(redis, start_on):
    # Each of the four calls waits for it.
    nodes = start_on(redis, GATECAST_REDIS_LEASE="60s")
    with clients_of(nodes, each=3) as clients:
        for client in clients:
            ask(client, JOIN % "moon")
        tag = tag_of(nodes[0], clients[0].id)
        others = {client.id for client in clients if client.node is not nodes[0]}
        with paused(nodes[0].process):
            for path in ("@connections", "@groups/moon/connections"):
                got = list(pages(nodes[1], path, 2))
                assert {row["connectionId"] for page in got for row in page["connections"]} == others
                assert [name for page in got for name in page["incomplete"]] == [tag]
            groups = call(nodes[1], "GET", "@groups")
            assert (groups["groups"], groups["incomplete"]) == ([{"group": "moon", "connections": 6}], [tag])
            counts = call(nodes[1], "GET", "@counts")
            assert (counts["connections"], counts["incomplete"]) == (6, [tag])
        eventually(lambda: call(nodes[1], "GET", "@counts")["incomplete"] == [])
        assert len(everything(nodes[1], "@groups/moon/connections", 2)) == 9


def test_who_stays_is_listed_once_while_others_come_and_go_on_all_nodes(nodes):
    is_over = threading.Event()
    changes = []

    def churn(node):
        others = []
        while not is_over.is_set():
            others.append(Socket(node.address).upgrade())
            own = others[-1].connection_id()
            call(node, "PUT", f"@connections/{own}/groups/group%20{random.randrange(5)}")
            if len(others) > 8:
                others.pop(random.randrange(len(others))).reset()
                changes.append(1)
        for other in others:
            other.raw.close()

    with sockets_of(nodes, 15) as sockets:
        for own in sockets:
            call(nodes[0], "PUT", f"@connections/{own}/groups/staying")
        threads = [threading.Thread(target=churn, args=[node]) for node in nodes]
        for thread in threads:
            thread.start()
        try:
            for node in nodes:
                before = len(changes)
                listed = [row["connectionId"] for row in everything(node, "@connections", 4)]
                assert set(sockets) <= set(listed)
                assert len(listed) == len(set(listed)), "listed twice"
                members = [row["connectionId"] for row in everything(node, "@groups/staying/connections", 4)]
                assert sorted(members) == sorted(sockets)
                groups = [row["group"] for row in everything(node, "@groups", 2)]
                assert groups == sorted(set(groups)) and "staying" in groups
                eventually(lambda: len(changes) > before)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
    gauges = ["gatecast_connections", "gatecast_group_members", "gatecast_channels", "gatecast_outbox_bytes"]
    for node in nodes:
        eventually(lambda: [metric(node, name) for name in gauges] == [0] * 4)


def test_a_join_through_any_node_stands_when_it_is_answered(nodes):
    with clients_of(nodes) as clients:
        for number in range(30):
            client = clients[number % 3]
            # A group that nobody was in: the subscription has to be made first.
            call(nodes[(number + 1) % 3], "PUT", f"@connections/{client.id}/groups/group%20{number}")
            assert publish(nodes[(number + 2) % 3], f"@groups/group%20{number}", f"{number}")[0] == 200
            assert client.recv(timeout=10) == f"{number}"
        for node in nodes:
            for at, client in enumerate(clients):
                groups = call(node, "GET", f"@connections/{client.id}/groups")["groups"]
                assert sorted(groups) == groups
                assert set(groups) == {f"group {number}" for number in range(at, 30, 3)}
        for number in range(30):
            call(nodes[(number + 2) % 3], "DELETE", f"@connections/{clients[number % 3].id}/groups/group%20{number}", 204)
            publish(nodes[0], f"@groups/group%20{number}", "not for you")
        for client in clients:
            assert ask(client, '{"action":"joinGroup","group":"end"}') == "joined end"
        assert [(row["group"], row["connections"]) for row in everything(nodes[0], "@groups")] == [("end", 3)]
        client = clients[0]
    for node in nodes:
        call(node, "PUT", f"@connections/{client.id}/groups/moon", 410, "GoneException")
        call(node, "DELETE", f"@connections/{client.id}/groups/moon", 410, "GoneException")
        call(node, "GET", f"@connections/{client.id}/groups", 410, "GoneException")


def test_without_redis_lists_and_joins_are_unavailable_and_come_back(redis, start_on):
    nodes = start_on(redis)
    with clients_of(nodes) as clients:
        redis.kill()
        eventually(lambda: metric(nodes[0], "gatecast_redis_up") == 0)
        for path in ("@connections", "@groups", "@counts", f"@connections/{clients[1].id}/groups"):
            call(nodes[0], "GET", path, 503, "ServiceUnavailableException")
        for own in (clients[0].id, clients[1].id):
            call(nodes[0], "PUT", f"@connections/{own}/groups/moon", 503, "ServiceUnavailableException")
        call(nodes[0], "GET", f"@connections/{clients[0].id}/groups")
        call(nodes[0], "DELETE", f"@connections/{clients[0].id}/groups/moon", 204)
        assert redis.start()
        eventually(lambda: count(nodes[0]) == 3 and call(nodes[0], "GET", "@counts")["incomplete"] == [], within=20)
        eventually(lambda: request(nodes[0].address, "PUT", f"/beta/@connections/{clients[1].id}/groups/moon")[0].status == 200)
        assert publish(nodes[2], "@groups/moon", "hello")[0] == 200
        assert clients[1].recv(timeout=10) == "hello"


def test_records_that_redis_lost_or_held_too_many_are_put_right(redis, start_on):
    nodes = start_on(redis, **SHORT_LEASE)

    def written(node):
        return metric(node, "gatecast_registry_reconciled_total", result="written")

    def removed(node):
        return metric(node, "gatecast_registry_reconciled_total", result="removed")

    with clients_of(nodes, each=4) as clients:
        truth = records(redis)
        assert set().union(*truth.values()) == {client.id for client in clients}
        key_of = {own: key for key, ids in truth.items() for own in ids}
        lost, short, much = (key_of[client.id] for client in clients[::4])

        assert redis.ask("DEL", lost) == "1"
        assert redis.ask("HDEL", short, clients[4].id) == "1"
        stranger = "AAAAAAAAAAAAAAA="
        for field in (stranger, "not an id"):
            assert redis.ask("HSET", much, field, redis.ask("HGET", much, clients[8].id)) == "1"
        eventually(lambda: records(redis) == truth)
        assert [written(node) for node in nodes] == [4, 1, 0]
        assert [removed(node) for node in nodes] == [0, 0, 2]
        for node in nodes[:3]:
            assert node.log().count("Redis did not hold this node's records") == 1
        for node in nodes:
            assert {row["connectionId"] for row in everything(node, "@connections")} == set(key_of)
        assert "user" in redis.ask("HGET", short, clients[4].id), "the record itself is back"

        # Nobody was disconnected, and a death is still cleaned up after, down to the records that came back.
        for client in clients:
            client.ping().wait(timeout=10)
        nodes[0].is_ended_by_test = True
        nodes[0].process.kill()
        eventually(lambda: lost not in records(redis))
        eventually(lambda: metric(nodes[1], "gatecast_connections_reaped_total")
                   + metric(nodes[2], "gatecast_connections_reaped_total") == 4)


def test_churn_of_connections_is_not_taken_for_loss(redis, start_on):
    nodes = start_on(redis, **SHORT_LEASE)
    deadline = time.monotonic() + 3
    with clients_of(nodes):
        while time.monotonic() < deadline:
            with sockets_of(nodes, 10):
                pass
        expected = {row["connectionId"] for row in everything(nodes[0], "@connections")}
        eventually(lambda: set().union(*records(redis).values())
                   == {row["connectionId"] for row in everything(nodes[0], "@connections")})
        assert expected
        for node in nodes:
            assert metric(node, "gatecast_registry_reconciled_total") == 0
            assert metric(node, "gatecast_connections") == 1


def test_gauges_tell_the_truth_after_the_death_of_clients_and_nodes(redis, start_on):
    nodes = start_on(redis, **SHORT_LEASE)
    gauges = ["gatecast_connections", "gatecast_group_members", "gatecast_channels", "gatecast_outbox_bytes"]
    assert [metric(node, name) for node in nodes for name in gauges] == [0] * 12
    with sockets_of(nodes, 10) as sockets:
        for number, own in enumerate(sockets):
            for group in range(3):
                call(nodes[number % 3], "PUT", f"@connections/{own}/groups/group%20{(number + group) % 5}")
        assert [metric(node, "gatecast_group_members") for node in nodes] == [30] * 3
        assert [metric(node, "gatecast_channels") for node in nodes] == [5] * 3
        nodes[0].is_ended_by_test = True
        nodes[0].process.kill()
        # Its connections are ended by another, whose own gauges must not move.
        eventually(lambda: sum(metric(node, "gatecast_connections_reaped_total") for node in nodes[1:]) == 10)
        for node in nodes[1:]:
            assert [metric(node, name) for name in gauges] == [10, 30, 5, 0]
        for number, socket in enumerate(sockets.values()):
            socket.reset() if number % 2 else socket.raw.close()
        for node in nodes[1:]:
            eventually(lambda: [metric(node, name) for name in gauges] == [0] * 4)
        eventually(lambda: records(redis) == {})
        assert everything(nodes[1], "@connections") == everything(nodes[2], "@groups") == []


def test_a_node_that_lets_clients_in_is_known_to_the_others(redis, start):
    """Also if Redis was away when it first wanted to say that it is there."""
    redis.kill()
    nodes = [start(GATECAST_REDIS_URL=redis.url, GATECAST_REDIS_LEASE="60s") for _ in range(2)]
    assert all(node.page("/ready")[0] == 503 for node in nodes)
    assert redis.start()
    with ExitStack() as stack:
        for node in nodes:
            eventually(lambda: node.page("/ready")[0] == 200)
            stack.enter_context(Socket(node.address)).upgrade().connection_id()
        for node in nodes:
            assert len(everything(node, "@connections")) == 2
            assert call(node, "GET", "@counts")["connections"] == 2


def test_nodes_that_redis_has_forgotten_are_asked_all_the_same(redis, start_on):
    nodes = start_on(redis)
    with sockets_of(nodes, 3) as sockets:
        assert [count(node) for node in nodes] == [9] * 3
        for _ in range(3):
            assert redis.ask("FLUSHALL") == "OK"
            for node in nodes:
                [page] = pages(node, "@connections", 100)
                assert page["incomplete"] == []
                assert sorted(row["connectionId"] for row in page["connections"]) == sorted(sockets)
            counts = call(nodes[0], "GET", "@counts")
            assert (counts["connections"], counts["incomplete"]) == (9, [])


def test_a_node_that_redis_has_forgotten_and_that_does_not_answer_is_named(redis, start_on):
    nodes = start_on(redis)
    with clients_of(nodes) as (near, _, lost):
        tag = tag_of(nodes[0], lost.id)
        with paused(lost.node.process):
            redis.ask("FLUSHALL")
            got = list(pages(nodes[0], "@connections"))
            assert len([row for page in got for row in page["connections"]]) == 2
            assert [name for page in got for name in page["incomplete"]] == [tag]
            counts = call(nodes[1], "GET", "@counts")
            assert (counts["connections"], counts["incomplete"]) == (2, [tag])
            # Nor is its connection gone for certain.
            assert nodes[0].post(lost.id, b"hello") == 503
        eventually(lambda: call(nodes[0], "GET", "@counts") | {"nodes": []} == {"connections": 3, "nodes": [], "incomplete": []})


def test_a_list_from_a_redis_that_came_back_empty_is_whole_or_says_what_it_lacks(redis, start_on):
    nodes = start_on(redis, GATECAST_REDIS_LEASE="3s")
    with sockets_of(nodes, 2):
        tags = {row["node"] for row in everything(nodes[0], "@connections")}
        redis.kill()
        # Longer than a lease: what is not looked for is not forgotten.
        lasts(3.2)
        assert redis.start()

        def is_whole():
            held, incomplete, cursor = set(), [], ""
            # A node that does not answer in time ends the page: the next one goes on behind it.
            while cursor is not None:
                response, body = request(nodes[0].address, "GET", f"/beta/@connections?limit=100{cursor and '&cursor=' + cursor}")
                if response.status != 200:
                    return False
                page = json.loads(body)
                held |= {row["node"] for row in page["connections"]}
                incomplete += page["incomplete"]
                cursor = page["cursor"]
            assert held | set(incomplete) == tags
            return incomplete == []

        eventually(is_whole, within=20)


def test_a_node_that_has_left_is_not_missed(nodes):
    with sockets_of(nodes[:2], 2):
        nodes[2].is_ended_by_test = True
        nodes[2].process.terminate()
        assert nodes[2].wait() == 0
        [page] = pages(nodes[0], "@connections")
        assert len(page["connections"]) == 4 and page["incomplete"] == []
