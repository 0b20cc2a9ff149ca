"""How many nodes and Redis servers a load needs, and what is exhausted first: the arithmetic; `tables.py` prints it.

Rule: no figure stands here. What is measured is in `constants.toml`, what is chosen in `assumptions.toml`. Each demand is so much
a second divided by what there is; a load needs so many nodes, and servers, that none is used beyond `target`.
"""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).parent
# Microseconds of a core in a second.
CORE = 1_000_000
# What no further server of Redis takes off one.
KEPT = {"every": "heartbeats", "broadcast": "broadcasts", "names": "names of nodes"}


@dataclass(frozen=True)
class Load:
    """What connections do; each a connection and second, but `broadcasts`, which are a second."""

    name: str
    title: str
    payload: int
    session_seconds: float
    sends: float = 0
    members: int = 1
    groups: float = 0
    notices: float = 0
    users: bool = False
    posts: float = 0
    broadcasts: float = 0


@dataclass(frozen=True)
class Plan:
    """One gateway: what is used of a node and of the fullest server of Redis, as parts of what there is."""

    nodes: int
    node: dict
    # `None` where no number of them does; `blocked` is why.
    servers: int | None
    blocked: str | None
    redis: dict
    demand: SimpleNamespace


def read(folder=HERE):
    """The constants by name, and the assumptions."""
    measured = tomllib.loads((folder / "constants.toml").read_text())
    assumed = tomllib.loads((folder / "assumptions.toml").read_text())
    loads = [Load(**load) for load in assumed.pop("loads")]
    constants = SimpleNamespace(**{name: each["value"] for name, each in measured["constants"].items()})
    spaces = {name: SimpleNamespace(**each) if isinstance(each, dict) else each for name, each in assumed.items()}
    return constants, SimpleNamespace(**spaces), loads, measured


def reach(members, nodes):
    """How many of the nodes have a member of a group, if each member is on any of them: a message goes to so many."""
    return nodes * -math.expm1(members * math.log1p(-1 / nodes)) if nodes > 1 and members > 1 else 1.0


def events(load, connections, nodes):
    """What happens in a second on all nodes together."""
    opened = connections / load.session_seconds
    sends, notices = connections * load.sends, connections * load.notices
    # A join that is the first of its node subscribes.
    alone = (1 - 1 / nodes) ** (load.members - 1)
    spread = reach(load.members, nodes)
    return SimpleNamespace(
        opened=opened, sends=sends, notices=notices, posts=connections * load.posts, broadcasts=load.broadcasts,
        subscribed=opened * (load.groups * alone + load.users), spread=spread,
        delivered=sends * load.members + load.broadcasts * connections,
        heard=sends * spread + load.broadcasts * nodes,
        published=sends + load.broadcasts,
        # Channels that a node is subscribed to, summed up over nodes, and channels that there are.
        subscriptions=connections * (load.groups / load.members * spread + load.users) + nodes * bool(load.broadcasts),
        channels=connections * (load.groups / load.members + load.users) + bool(load.broadcasts),
    )


def node_demand(load, connections, nodes, c, a):
    """What one of the nodes is asked for."""
    e, wire = events(load, connections, nodes), a.wire
    away = 1 - 1 / nodes
    cpu = c.node_us + (
        e.delivered * c.deliver_us + e.published * c.publish_us + e.heard * c.hear_us
        + e.notices * c.post_many_us + e.posts * (c.post_here_us / nodes + (c.post_away_us + c.post_target_us) * away)
        + e.opened * c.open_with_redis_us + e.subscribed * c.join_us + connections / a.node.ping_seconds * c.ping_us
    ) / nodes
    packet = load.payload + wire.packet_bytes
    received = e.delivered + e.notices + e.posts
    heard, through = e.heard + e.notices + e.posts * away, e.published + e.notices + e.posts * away
    pings = connections / a.node.ping_seconds
    out = received * (packet + wire.frame_bytes) + through * (packet + c.redis_in_bytes) + (heard + pings) * wire.packet_bytes
    come = (e.sends + e.notices + e.posts) * (packet + wire.client_frame_bytes) + heard * (packet + c.redis_fanout_bytes) \
        + (received + pings) * wire.packet_bytes
    memory = a.node.cores * a.node.inbox_bytes + (
        connections * (c.idle_rss_bytes + c.idle_kernel_bytes + a.node.slow_clients * a.node.outbox_bytes)
        + e.subscriptions * c.channel_rss_bytes
    ) / nodes
    return {
        "connections": connections / nodes / a.node.connections, "CPU": cpu / CORE / a.node.cores,
        "network out": out * 8 / nodes / a.node.network_bits, "network in": come * 8 / nodes / a.node.network_bits,
        "memory": memory / a.node.memory_bytes, "handshakes": e.opened / nodes / a.node.handshakes,
    }


def kept_bytes(load, e, c, a):
    """What the channels of Redis hold: a stream until a minute after its last message, its count for a day."""
    total = 0.0
    for rate, channels in ((e.published, e.channels), (e.notices, e.channels)):
        if not rate or not channels:
            continue
        each = rate / channels
        streams = -math.expm1(-each * a.redis.stream_seconds) * channels
        # A stream whose messages come more often than it expires grows to its bound.
        kept = min(a.redis.stream_entries, math.exp(min(each * a.redis.stream_seconds, 50)))
        counts = -math.expm1(-each * a.redis.meta_seconds) * channels
        total += counts * c.meta_redis_bytes + streams * (
            max(c.channel_redis_bytes - c.meta_redis_bytes, 0) + (kept - 1) * (load.payload + c.message_redis_bytes))
    return total


def redis_demand(load, connections, nodes, c, a):
    """What Redis is asked for: `spread` over servers; `every` server has it; `broadcast` and `names` are one slot's, so one server's."""
    e = events(load, connections, nodes)
    away = e.posts * (1 - 1 / nodes)
    looks = nodes * nodes * 3 / a.redis.lease_seconds
    cpu = SimpleNamespace(
        spread=e.sends * (c.redis_publish_us + e.spread * c.redis_fanout_us) + e.notices * (c.redis_publish_us + c.redis_fanout_us)
        + away * c.post_redis_us + e.opened * (c.open_redis_us + c.close_redis_us) + e.subscribed * c.join_redis_us
        + nodes * (c.node_redis_us - c.beat_redis_us),
        # Each server is listened to by every node, with a heartbeat.
        every=nodes * c.beat_redis_us,
        broadcast=e.broadcasts * (c.redis_publish_us + nodes * c.redis_fanout_us),
        # Every node reads the names of all.
        names=looks * c.member_redis_us,
    )
    packet = load.payload + a.wire.packet_bytes
    frame, answer = packet + c.redis_fanout_bytes, c.redis_answer_bytes + a.wire.packet_bytes
    out = SimpleNamespace(
        spread=(e.sends * e.spread + e.notices + 2 * away) * frame + (e.sends + e.notices) * answer,
        every=nodes * c.beat_redis_bytes, broadcast=e.broadcasts * (nodes * frame + answer), names=looks * c.member_redis_bytes,
    )
    # Messages, and an acknowledgement for each packet that goes out.
    come = SimpleNamespace(
        spread=(e.sends + e.notices + 2 * away) * (packet + c.redis_in_bytes) + out.spread / frame * a.wire.packet_bytes,
        every=nodes * c.beat_redis_bytes, broadcast=e.broadcasts * (packet + c.redis_in_bytes + nodes * a.wire.packet_bytes), names=0,
    )
    memory = connections * c.record_redis_bytes + e.subscriptions * c.subscription_redis_bytes + kept_bytes(load, e, c, a)
    return SimpleNamespace(cpu=cpu, out=out, come=come, memory=memory)


def one_server(demand, nodes, servers, c, a):
    """What the fullest of so many servers uses, as parts of what it has."""
    def fullest(total):
        # What is one slot's has, at best, a server with its share of the rest.
        hot = max(total.broadcast, total.names)
        return max((total.spread + total.broadcast + total.names) / servers, hot) + total.every

    network = a.redis.network_bits / 8
    return {
        "CPU": fullest(demand.cpu) / CORE, "network out": fullest(demand.out) / network, "network in": fullest(demand.come) / network,
        "memory": demand.memory / servers / a.redis.memory_bytes, "connections": nodes * c.node_redis_clients / a.redis.clients,
    }


def obstacle(demand, nodes, c, a):
    """What no number of servers changes, if that alone is too much; else `None`."""
    parts = {f"{name} (CPU)": getattr(demand.cpu, key) / CORE for key, name in KEPT.items()}
    parts |= {f"{name} (network)": getattr(demand.out, key) / a.redis.network_bits * 8 for key, name in KEPT.items()}
    # Connections are not a matter of peaks: they may come to the limit.
    parts["connections of nodes"] = nodes * c.node_redis_clients / a.redis.clients * a.target
    least = one_server(demand, nodes, math.inf, c, a)
    fits = max(used for name, used in least.items() if name != "connections") <= a.target and parts["connections of nodes"] <= a.target
    return None if fits else max(parts, key=parts.get)


def smallest(least, fits, most=1 << 40):
    """The smallest number from `least` to `most` that fits, where every larger one fits too; `None` if there is none."""
    high = least
    while not fits(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = max(least, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return high


def plan(load, connections, c, a):
    """What one gateway needs; `None` if no number of nodes carries the load."""
    used = lambda nodes: node_demand(load, connections, nodes, c, a)
    nodes = smallest(a.least_nodes, lambda nodes: max(used(nodes).values()) <= a.target, most=max(connections, a.least_nodes))
    if nodes is None:
        return None
    demand = redis_demand(load, connections, nodes, c, a)
    blocked, servers = obstacle(demand, nodes, c, a), None
    if not blocked:
        of = lambda servers: {name: part for name, part in one_server(demand, nodes, servers, c, a).items() if name != "connections"}
        servers = smallest(1, lambda servers: max(of(servers).values()) <= a.target, most=a.redis.servers)
        blocked = None if servers else "servers of a Cluster"
    return Plan(nodes, used(nodes), servers, blocked, one_server(demand, nodes, servers or 1, c, a), demand)


def parted(load, connections, c, a):
    """The fewest gateways, each with nodes and a Redis of its own, into which a load has to be parted, and the plan of one.

    More than the fewest only where that saves a tenth of all machines: near its limit a Cluster is busy with heartbeats.
    """
    one = lambda gateways: plan(load, connections / gateways, c, a)
    least = smallest(1, lambda gateways: (found := one(gateways)) is not None and found.servers, most=1 << 16)
    if least is None:
        return None
    several = [(gateways, one(gateways)) for gateways in (least << power for power in range(6))]
    machines = lambda gateways, found: gateways * (found.nodes + found.servers)
    good = min(machines(*each) for each in several) / 0.9
    return next(each for each in several if machines(*each) <= good)


def largest(fits, most=1e11):
    """The most connections, to three figures, for which it fits; where fewer fit too."""
    low, high = 1.0, most
    if fits(high):
        return high
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def in_a_flood(c):
    """The constants for messages that come many at a time."""
    return SimpleNamespace(**{**vars(c), **{name.replace("_flood", ""): value for name, value in vars(c).items() if "_flood" in name}})


def window_for(connections, nodes, at_once, a):
    """Seconds that the window needs: half of the handshakes of those who stay, parted among those who drain."""
    return connections * at_once / (a.node.handshakes / 2 * (nodes - at_once))
