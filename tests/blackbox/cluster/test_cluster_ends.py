"""`$disconnect` is published once for each connection that was let in, whatever Redis and the nodes go through."""

import itertools
import signal
import socket
from functools import partial

import pytest

from cluster import ANNOUNCED, LONG_LEASE, SHORT_LEASE, clients_of, metric, paused, publish, throughout
from crowd import crowd_of, hear, say
from gatecast import eventually, request

LEASE = 1
BUFFER = {"GATECAST_REDIS_ON_OUTAGE": "buffer"}
LOCAL = {"GATECAST_REDIS_ON_OUTAGE": "local"}


@pytest.fixture
def start_on(start_on):
    """Here nodes are found dead, or find that they may be."""
    return partial(start_on, **SHORT_LEASE)


def names(server):
    """Keys that say that an end was published."""
    return [key for key in server.ask("KEYS", "*").split() if ":end:" in key]


def records(server):
    return sum(int(server.ask("HLEN", key)) for key in server.ask("KEYS", "*:connections").split())


class Observer:
    """A client of a node to which nothing happens; it notes what it is told."""

    def __init__(self, node):
        self.node, self.heard, self.numbers = node, [], itertools.count()

    def __enter__(self):
        self.client = self.node.connect(max_queue=None)
        return self

    def __exit__(self, *_):
        self.client.close()

    def hear(self):
        """Everything that was accepted until now."""
        end = f"end {next(self.numbers)}"
        eventually(lambda: publish(self.node, "@broadcast", end)[0] == 200, within=20)
        while (text := self.client.recv(timeout=10)) != end:
            self.heard.append(text)
        return self.heard

    def expects(self, ids, within=20, quiet=2 * LEASE):
        """Each of these has left, once; and none is told a second time for a while."""
        left = sorted(f"{each} left" for each in ids)
        is_all = lambda: set(left) <= set(self.hear())
        try:
            eventually(is_all, within)
        finally:
            missing = sorted(set(left) - set(self.heard))
            assert not missing, f"{len(missing)} of {len(left)} are missing"
        throughout(quiet, lambda: self.node.page("/live")[0] == 200)
        assert sorted(text for text in self.hear() if text.endswith(" left")) == left


def close_all(clients):
    """Ends the clients' streams at once, without a word."""
    for client in clients:
        client.socket.shutdown(socket.SHUT_RDWR)


def ids(clients):
    return [client.id for client in clients]


def retried(node):
    return metric(node, "gatecast_disconnects_retried_total")


def is_over(node):
    node.is_ended_by_test = True
    return node.process.poll() is not None


def test_an_end_leaves_nothing_behind(redis, start_on):
    node, other = start_on(redis, 2, ANNOUNCED)
    with Observer(other) as observer:
        with clients_of([node], each=8) as clients:
            assert records(redis) == 9
        observer.expects(ids(clients), quiet=0)
        eventually(lambda: records(redis) == 1 and names(redis) == [])
        assert retried(node) == 0


def test_a_node_that_was_frozen_past_its_lease_while_its_clients_left(redis, start_on):
    ghost, *others = start_on(redis, 3, ANNOUNCED)
    with Observer(others[0]) as observer, clients_of([ghost], each=8) as clients:
        with paused(ghost.process):
            for number, client in enumerate(clients):
                client.send(f"message {number}")
            close_all(clients)
            eventually(lambda: others[0].post(clients[0].id, b"hello") == 410, within=20)
            observer.expects(ids(clients))
        eventually(lambda: is_over(ghost))
        observer.expects(ids(clients))
        left = {client.id: observer.heard.index(f"{client.id} left") for client in clients}
        late = [number for number, client in enumerate(clients)
                if f"message {number}" in observer.heard[left[client.id]:]]
        assert not late, "a message of a client comes after it has left"


@pytest.mark.parametrize("outage", ["reject", "buffer"])
@pytest.mark.parametrize("way", ["refuse", "silence", "deafen", "hold"])
def test_a_node_that_was_cut_off_past_its_lease_while_its_clients_left(redis, proxy, start_on, outage, way):
    """`hold`: what it sends is held for longer than a lease, and then comes."""
    (observing, _) = start_on(redis, 2, ANNOUNCED)
    (lonely,) = start_on(proxy, 1, ANNOUNCED, GATECAST_REDIS_ON_OUTAGE=outage)
    lonely.is_ended_by_test = True
    with Observer(observing) as observer, clients_of([lonely], each=8) as clients:
        proxy.to_redis.clear() if way == "hold" else getattr(proxy, way)()
        for client in clients:
            client.send("a last word")
        close_all(clients)
        if way != "deafen":
            eventually(lambda: observing.post(clients[0].id, b"hello") == 410, within=20)
        else:
            throughout(3 * LEASE, lambda: observing.page("/live")[0] == 200)
        proxy.heal()
        observer.expects(ids(clients), quiet=3 * LEASE)


def test_clients_that_leave_while_redis_restarts(start_redis, start_on):
    server = start_redis(is_persistent=True)
    nodes = start_on(server, 3, ANNOUNCED, **LONG_LEASE)
    with Observer(nodes[0]) as observer, clients_of(nodes[1:], each=30) as clients:
        close_all(clients[:10])
        server.kill()
        close_all(clients[10:40])
        eventually(lambda: sum(map(retried, nodes)) > 0)
        assert server.start()
        close_all(clients[40:])
        observer.expects(ids(clients), quiet=1)
        eventually(lambda: records(server) == 1)
        assert sum(metric(node, "gatecast_disconnects_given_up_total") for node in nodes) == 0


def test_a_node_that_drains_while_redis_restarts(start_redis, start_on):
    server = start_redis(is_persistent=True)
    # Who stays takes ten a second: some leave before Redis is away, some meanwhile, and some later.
    [other] = start_on(server, 1, ANNOUNCED, GATECAST_LIMITS_HANDSHAKE_RATE="20", **LONG_LEASE)
    [ending] = start_on(server, 1, ANNOUNCED, **LONG_LEASE)
    with Observer(other) as observer, clients_of([ending], each=30) as clients:
        ending.is_ended_by_test = True
        ending.signal(signal.SIGTERM)
        eventually(lambda: metric(ending, "gatecast_connections") < 30)
        server.kill()
        eventually(lambda: retried(ending) > 0)
        assert server.start()
        assert ending.wait() == 0
        observer.expects(ids(clients), quiet=1)
        assert records(server) == 1


def test_a_node_that_ends_without_redis_leaves_the_rest_to_others(start_redis, start_on):
    server = start_redis(is_persistent=True)
    ending, other = start_on(server, 2, '[drain]\nwindow = "0s"\n' + ANNOUNCED)
    with Observer(other) as observer, clients_of([ending], each=8) as clients:
        ending.is_ended_by_test = True
        server.kill()
        ending.signal(signal.SIGTERM)
        assert ending.wait() == 0
        assert server.start()
        observer.expects(ids(clients))


def test_a_node_that_is_killed_while_redis_stalls(redis, start_on):
    dying, other = start_on(redis, 2, ANNOUNCED)
    with Observer(other) as observer, clients_of([dying], each=30) as clients:
        dying.is_ended_by_test = True
        with paused(redis.process):
            close_all(clients[:20])
            # What it sends is on its way then, and is carried out when Redis goes on.
            eventually(lambda: metric(dying, "gatecast_connections") == 10)
            dying.process.kill()
        observer.expects(ids(clients))


def test_a_reaper_that_dies_in_the_middle(redis, start_on):
    nodes = start_on(redis, 4, ANNOUNCED)
    with Observer(nodes[0]) as observer, crowd_of([nodes[1]], 600) as crowd, clients_of([nodes[1]], each=4) as clients:
        nodes[1].is_ended_by_test = True
        nodes[1].process.kill()

        def reaper():
            """The one of the others that has begun; the observer's own may finish it."""
            return next((node for node in nodes[2:] if metric(node, "gatecast_connections_reaped_total") > 0),
                        metric(nodes[0], "gatecast_connections_reaped_total") > 0)

        if (reaping := eventually(reaper, within=20)) is not True:
            reaping.is_ended_by_test = True
            reaping.process.kill()
        heard = lambda: [text for text in observer.hear() if text.endswith(" left")]
        eventually(lambda: len(set(heard())) == 604, within=30)
        throughout(2 * LEASE, lambda: nodes[0].page("/live")[0] == 200)
        assert len(heard()) == 604
        eventually(lambda: records(redis) == 1, within=20)


def test_clients_that_leave_before_redis_forgets_all(redis, proxy, start_on):
    (observing,) = start_on(redis, 1, ANNOUNCED)
    (node,) = start_on(proxy, 1, ANNOUNCED, **LONG_LEASE)
    with Observer(observing) as observer, clients_of([node], each=8) as clients:
        proxy.refuse()
        close_all(clients)
        eventually(lambda: metric(node, "gatecast_disconnects_retried_total") > 0)
        assert redis.ask("FLUSHALL") == "OK"
        proxy.heal()
        observer.expects(ids(clients))
        eventually(lambda: records(redis) == 1)


@pytest.mark.parametrize("outage", [{}, BUFFER])
def test_clients_that_leave_while_redis_takes_no_writes(redis, start_on, outage):
    nodes = start_on(redis, 2, ANNOUNCED, **LONG_LEASE, **outage)
    with Observer(nodes[0]) as observer, clients_of(nodes[1:], each=8) as clients:
        assert redis.ask("CONFIG", "SET", "maxmemory", "1") == "OK"
        close_all(clients)
        for client in clients:
            eventually(lambda: nodes[0].post(client.id, b"hello") == 410)
        eventually(lambda: metric(nodes[1], "gatecast_disconnects_retried_total") >= 2 * len(clients))
        assert metric(nodes[1], "gatecast_messages_dropped_total", reason="unavailable") == 0, "nothing is lost"
        assert redis.ask("CONFIG", "SET", "maxmemory", "0") == "OK"
        observer.expects(ids(clients), quiet=1)
        eventually(lambda: records(redis) == 1)


def test_alone_a_node_tells_its_own_members_and_nobody_a_second_time(start_redis, start_on):
    server = start_redis(is_persistent=True)
    nodes = start_on(server, 2, ANNOUNCED, **LOCAL, **LONG_LEASE)
    with Observer(nodes[0]) as near, Observer(nodes[1]) as far, clients_of(nodes[:1], each=8) as clients:
        server.kill()
        # From the first that is refused on, it knows that it is alone.
        eventually(lambda: request(nodes[0].address, "POST", "/beta/@broadcast", b"alone?")[0].status == 202)
        close_all(clients)
        left = {f"{client.id} left" for client in clients}
        heard = []
        while not left <= set(heard):
            heard.append(near.client.recv(timeout=10))
        assert server.start()
        near.heard += heard
        near.expects(ids(clients), quiet=1)
        assert not left & set(far.hear())
        eventually(lambda: records(server) == 2)


@pytest.mark.parametrize("replay", ["on", "off"])
def test_members_of_a_group_are_told_once(redis, proxy, start_on, replay):
    config = f"""
[[groups]]
pattern = "room"
replay = "{replay}"
[routes.enter]
integration = "join"
group = "room"
reply = "entered"
[routes."$disconnect"]
integration = "send_group"
group = "room"
data = "${{context.connectionId}} left"
[routes."$default"]
integration = "reply"
reply = "$context.connectionId"
"""
    (observing,) = start_on(redis, 1, config, **LONG_LEASE)
    (node,) = start_on(proxy, 1, config, **LONG_LEASE)
    with crowd_of([observing], 1) as (observer,), crowd_of([node], 20) as crowd:
        say(observer, '{"action":"enter"}')
        assert hear(observer) == ["entered"]
        own = []
        for client in crowd:
            say(client, "who am I?")
            own += hear(client)
        # Redis hears of the end, and the node does not hear that it has.
        proxy.deafen()
        for client in crowd:
            client.raw.close()
        eventually(lambda: metric(node, "gatecast_connections") == 0)
        eventually(lambda: metric(node, "gatecast_disconnects_retried_total") > 0)
        proxy.refuse()
        proxy.heal()
        eventually(lambda: records(redis) == 1, within=20)
        heard = []
        while len(heard) < 20:
            heard += hear(observer)
        assert publish(observing, "@groups/room", "the end")[0] == 200
        assert hear(observer) == ["the end"]
        assert sorted(heard) == sorted(f"{each} left" for each in own)


def test_an_idempotency_key_is_never_the_name_of_an_end(redis, start_on):
    (node,) = start_on(redis, 1, ANNOUNCED)
    with Observer(node) as observer, clients_of([node]) as (client,):
        for key in (client.id, client.id.rstrip("="), f"end:{client.id}", f"}}:end:{client.id}"):
            response, _ = request(node.address, "POST", "/beta/@broadcast", b"named", {"Idempotency-Key": key})
            assert response.status == 200
        client.close()
        observer.expects([client.id], quiet=0)
