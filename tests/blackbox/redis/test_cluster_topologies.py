"""The same gateway on every form of Redis, and what is left of its promises when a form changes under load."""

import json

import pytest

from cluster import (ANNOUNCED, BROADCAST_AND_MOON, JOIN_MOON, SHORT_LEASE, Publisher, clients_of, metric, publish,
                     received_until_now, throughout)
from gatecast import EXAMPLES, ask, command, eventually
from topologies import PASSWORD

CHAT = (EXAMPLES / "chat.toml").read_text() + ANNOUNCED
# A change of masters takes a few seconds; nobody is to be taken for dead meanwhile.
PATIENT = {"GATECAST_REDIS_LEASE": "25s", "GATECAST_REDIS_STREAM_ENTRIES": "100000"}


def test_messages_of_all_kinds_reach_all_nodes(form, start_on_form):
    nodes = start_on_form(form, GATECAST_AUTH_USER_HEADER="X-User", GATECAST_TRUSTED_PROXIES="127.0.0.1")
    with clients_of(nodes, each=2) as clients, nodes[2].connect(additional_headers={"X-User": "tom"}) as tom:
        everybody = [*clients, tom]
        for number, sender in enumerate(clients[::2]):
            sender.send(json.dumps({"action": "sendMessage", "data": f"frame {number}"}))
            assert [client.recv(timeout=10) for client in everybody] == [f"frame {number}"] * 7
            assert publish(nodes[number], "@broadcast", f"post {number}")[0] == 200
            assert [client.recv(timeout=10) for client in everybody] == [f"post {number}"] * 7
        members = clients[::2]
        for number in range(20):
            group = f"group {number}"
            for member in members:
                assert ask(member, json.dumps({"action": "joinGroup", "group": group})) == f"joined {group}"
            assert publish(nodes[number % 3], f"@groups/group%20{number}", group)[0] == 200
            assert [member.recv(timeout=10) for member in members] == [group] * 3
        for node in nodes:
            assert publish(node, "@users/tom", "to tom")[0] == 200
            assert tom.recv(timeout=10) == "to tom"
        assert received_until_now(everybody, nodes[0]) == [[]] * 7


def test_every_node_answers_for_every_connection(form, start_on_form):
    nodes = start_on_form(form)
    with clients_of(nodes) as clients:
        for node in nodes:
            for client in clients:
                assert node.post(client.id, b"hello") == 200
                assert client.recv(timeout=10) == "hello"
        gone = clients[0].id
        clients[0].close()
        eventually(lambda: [node.post(gone, b"hello") for node in nodes] == [410] * 3)
        eventually(lambda: not form.mentions(gone))


def test_a_node_that_is_ready_holds_its_lease(form, start_on_form):
    """Else nobody would look after its connections, should it die now."""
    for lease in ("2s", "10s"):
        (node,) = start_on_form(form, 1, GATECAST_REDIS_LEASE=lease, GATECAST_REDIS_PREFIX=f"gatecast:{lease}")
        with node.connect():
            keys = [key for server in form.data_servers() for key in server.ask("KEYS", f"gatecast:{lease}:*").split()]
            assert [key for key in keys if key.endswith(":lease")] and f"gatecast:{lease}:nodes" in keys, keys


def test_disconnect_runs_once_for_the_connections_of_a_killed_node(form, start_on_form):
    dead, *alive = start_on_form(form, config=CHAT, **SHORT_LEASE)
    with clients_of([dead], each=8) as lost, clients_of(alive) as watchers:
        dead.is_ended_by_test = True
        dead.process.kill()
        expected = sorted(f"{client.id} left" for client in lost)
        for watcher in watchers:
            assert sorted(watcher.recv(timeout=15) for _ in lost) == expected
        throughout(1.5, lambda: all(node.page("/ready")[0] == 200 for node in alive))
        assert received_until_now(watchers, alive[0]) == [[], []]
        assert alive[0].post(lost[0].id, b"hello") == alive[1].post(lost[1].id, b"hello") == 410


def test_what_was_published_while_subscribers_were_cut_is_repaired(form, start_on_form):
    nodes = start_on_form(form, **PATIENT)
    with clients_of(nodes, each=2) as clients:
        join_moon(clients)
        with Publisher(nodes, name="broadcast") as all_of_them, Publisher(nodes, "@groups/moon", "moon") as members:
            for _ in range(3):
                all_of_them.more(20)
                members.more(20)
                assert form.cut_subscribers() >= 1
                eventually(lambda: all(metric(node, "gatecast_redis_up") == 1 for node in nodes))
            all_of_them.more(20)
            members.more(20)
        for number, received in enumerate(received_until_now(clients, nodes[0], BROADCAST_AND_MOON)):
            all_of_them.check(received, f"client {number}")
            members.check(received, f"client {number}")


def test_gateways_with_other_prefixes_in_one_redis_do_not_hear_each_other(form, start_on_form):
    ours, theirs = start_on_form(form, 2, CHAT), start_on_form(form, 1, CHAT)
    with clients_of(ours) as us, clients_of(theirs) as them:
        join_moon(us + them)
        for number, node in enumerate([*ours, *theirs]):
            publish(node, "@broadcast", f"broadcast of {number}")
            publish(node, "@groups/moon", f"moon of {number}")
        both = BROADCAST_AND_MOON
        assert [sorted(texts) for texts in received_until_now(us, ours[0], both)] == [
            ["broadcast of 0", "broadcast of 1", "moon of 0", "moon of 1"]] * 2
        assert [sorted(texts) for texts in received_until_now(them, theirs[0], both)] == [["broadcast of 2", "moon of 2"]]
        assert theirs[0].post(us[0].id, b"hello") == 410


def join_moon(clients):
    for client in clients:
        assert ask(client, JOIN_MOON) == "joined moon"


# Who may not in.


def says_why_it_waits(node, text="Redis is away"):
    """A node that Redis does not let in is alive, not ready, and says why."""
    eventually(lambda: text in node.log())
    throughout(1, lambda: node.page("/live")[0] == 200 and node.page("/ready")[0] == 503)
    assert PASSWORD not in node.log()
    return node.log()


@pytest.mark.parametrize("name", ["password", "few_rights"])
def test_a_wrong_password_is_refused_with_a_clear_text(start_form, start, name):
    form = start_form(name)
    log = says_why_it_waits(start(GATECAST_REDIS_URL=form.wrong_url, **SHORT_LEASE), "Redis refuses what it is asked: the login is wrong")
    assert "WRONGPASS" in log and "Redis is away" not in log, log


@pytest.mark.parametrize("authority", ["stranger", None])
def test_a_server_that_no_known_authority_vouches_for_is_refused_with_a_clear_text(start_form, start, authority):
    form = start_form("tls")
    settings = {"GATECAST_REDIS_TLS_CA_FILE": str(form.certificates.stranger)} if authority else {}
    log = says_why_it_waits(start(GATECAST_REDIS_URL=form.url, **settings, **SHORT_LEASE))
    assert "certificate" in log.lower(), log


def test_a_client_without_the_certificate_that_the_server_asks_for_is_refused_with_a_clear_text(start_form, start):
    form = start_form("tls_with_client_certificate")
    settings = {"GATECAST_REDIS_TLS_CA_FILE": str(form.certificates.authority)}
    log = says_why_it_waits(start(GATECAST_REDIS_URL=form.url, **settings, **SHORT_LEASE))
    assert "certificate" in log.lower(), log


def test_a_missing_certificate_file_is_a_fault_of_the_configuration(tmp_path):
    done = command("check", GATECAST_REDIS_URL="rediss://127.0.0.1:1", GATECAST_REDIS_TLS_CA_FILE=str(tmp_path / "none.pem"))
    assert done.returncode == 64 and "none.pem" in done.stderr


# Masters change under load.


class Books:
    """Publishers through all nodes on two channels, and what every client may say of it afterwards."""

    def __init__(self, form, nodes, clients):
        self.form, self.nodes, self.clients = form, nodes, clients
        self.publishers = [Publisher(nodes, path, name) for path, name in zip(BROADCAST_AND_MOON, ("broadcast", "moon"))]

    def __enter__(self):
        join_moon(self.clients)
        for publisher in self.publishers:
            publisher.__enter__()
        self.more(20)
        return self

    def __exit__(self, *error):
        for publisher in self.publishers:
            publisher.__exit__(*error)

    def more(self, count):
        for publisher in self.publishers:
            publisher.more(count)

    def lost(self):
        """Checks order and that nothing came twice; returns what was accepted and did not come, by client.

        While two masters are there, a publication may be answered by the one that is to go: it is not in the history of
        the channel, and has no place in its order.
        """
        histories = {}
        for publisher, channel in zip(self.publishers, ("{all}", "{group:moon}")):
            kept = self.form.history(channel)
            histories[publisher] = [text for text in kept if text in set(publisher.accepted())]
            assert len(kept) == len(set(kept)), "kept twice"
        lost = []
        for number, received in enumerate(received_until_now(self.clients, self.nodes[0], BROADCAST_AND_MOON)):
            missing = []
            for publisher in self.publishers:
                own = [text for text in received if text.rsplit(" ")[0] == publisher.name]
                assert len(own) == len(set(own)), f"client {number}: more than once: {sorted(t for t in set(own) if own.count(t) > 1)}"
                history = [text for text in histories[publisher] if text in set(own)]
                assert [text for text in own if text in set(history)] == history, f"client {number}: another order"
                missing += sorted(set(publisher.accepted()) - set(own), key=publisher.accepted().index)
            lost.append(missing)
        return lost


def changes(form, change, nodes, note):
    """Lets a change happen under load; returns what was lost of what was accepted, by client."""
    with clients_of(nodes, each=2) as clients:
        with Books(form, nodes, clients) as books:
            change()
            # From the first message that is accepted again.
            books.more(60)
            eventually(lambda: all(metric(node, "gatecast_redis_up") == 1 for node in nodes), within=20)
            since = [len(publisher.accepted()) for publisher in books.publishers]
            books.more(60)
        lost = books.lost()
        recent = {text for publisher, count in zip(books.publishers, since) for text in publisher.accepted()[count:]}
        assert not [text for texts in lost for text in texts if text in recent], "lost after everything is up again"
        for client in clients:
            for node in nodes:
                eventually(lambda: node.post(client.id, b"hello") == 200)
                assert client.recv(timeout=10) == "hello"
            assert ask(client, '{"action":"joinGroup","group":"mars"}') == "joined mars"
        refused = sum(status != 200 for publisher in books.publishers for _, status, _ in publisher.answers)
        accepted = sum(len(publisher.accepted()) for publisher in books.publishers)
        note(f"{type(form).__name__}, {change.__name__}: {accepted} accepted, {refused} refused, lost by client {list(map(len, lost))}")
        return list(zip(clients, lost))


def admits_losses(outcome):
    """An asynchronous replica may lag: what its master had accepted is lost then, and the nodes that missed it count that."""
    for client, lost in outcome:
        if lost:
            assert metric(client.node, "gatecast_recoveries_total", result="lost") >= 1, f"lost in silence: {lost}"


@pytest.mark.parametrize("change", ["fail_over", "kill_master"])
def test_sentinel_names_another_master_and_clients_stay(start_form, start_on_form, note, change):
    form = start_form("sentinel")
    nodes = start_on_form(form, **PATIENT)
    admits_losses(changes(form, getattr(form, change), nodes, note))


def test_sentinel_names_another_master_twice(start_form, start_on_form, note):
    """The second time the first master, now a replica, may be the one."""
    form = start_form("sentinel")
    nodes = start_on_form(form, **PATIENT)

    def fail_over_twice():
        form.fail_over()
        eventually(form.knows_all, within=20)
        form.fail_over()

    admits_losses(changes(form, fail_over_twice, nodes, note))


def test_one_sentinel_of_three_is_enough_to_start(start_form, start_on_form):
    form = start_form("sentinel")
    form.sentinels[0].kill()
    form.sentinels[1].kill()
    nodes = start_on_form(form, 2)
    with clients_of(nodes) as clients:
        assert publish(nodes[0], "@broadcast", "hello")[0] == 200
        assert [client.recv(timeout=10) for client in clients] == ["hello"] * 2


@pytest.mark.parametrize("channel", ["{all}", "{group:moon}"])
def test_a_slot_moves_to_another_master_under_load_and_nothing_is_lost(start_form, start_on_form, note, channel):
    form = start_form("cluster")
    nodes = start_on_form(form, GATECAST_REDIS_PREFIX="gatecast", **PATIENT)

    def move():
        for _ in range(3):
            form.move(f"gatecast:{channel}")

    outcome = changes(form, move, nodes, note)
    assert [lost for _, lost in outcome] == [[]] * 6


def test_a_master_of_the_cluster_is_killed_and_its_replica_takes_over(start_form, start_on_form, note):
    form = start_form("cluster")
    nodes = start_on_form(form, GATECAST_REDIS_PREFIX="gatecast", **PATIENT)

    def kill_owner():
        form.kill_owner("gatecast:{all}")

    admits_losses(changes(form, kill_owner, nodes, note))


def test_groups_are_spread_over_all_masters_of_a_cluster(start_form, start_on_form):
    form = start_form("cluster")
    nodes = start_on_form(form, 2, GATECAST_REDIS_PREFIX="gatecast")
    with clients_of(nodes) as (one, two):
        for number in range(60):
            for client in (one, two):
                assert ask(client, json.dumps({"action": "joinGroup", "group": str(number)})) == f"joined {number}"
        for number in range(60):
            assert publish(nodes[number % 2], f"@groups/{number}", str(number))[0] == 200
            assert one.recv(timeout=10) == two.recv(timeout=10) == str(number)
    streams = [len([key for key in server.ask("KEYS", "gatecast:{group:*:stream").split()]) for server in form.masters()]
    assert sum(streams) == 60 and min(streams) >= 5, streams
