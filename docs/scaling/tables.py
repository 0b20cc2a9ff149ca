#!/usr/bin/env python3
"""Prints the tables of docs/scaling.md: what `model.py` computes and `simulate.py` draws, from `constants.toml` and `assumptions.toml`.

    docs/scaling/tables.py                           prints them
    docs/scaling/tables.py --update docs/scaling.md  writes them between the marks of that file

Python 3.11, no packages.
"""

import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import simulate
from model import CORE, Load, events, in_a_flood, largest, parted, plan, reach, read, window_for

SIZES = (10_000, 1_000_000, 100_000_000)
# Bytes of a message, where no load says it.
PAYLOAD = 128


def table(head, rows):
    # Figures stand at the right.
    columns = list(zip(*rows))
    is_figure = [all(re.match(r"[\d<–]", str(cell)) and "×" not in str(cell) for cell in column) for column in columns]
    lines = [head, ["---:" if right else "---" for right in is_figure], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def figure(value, unit=""):
    """Two figures, with what makes it readable."""
    for step, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= step * 0.9995:
            return f"{rounded(value / step)} {name}{unit}"
    return f"{rounded(value)} {unit}".strip()


def rounded(value):
    two = float(f"{value:.2g}")
    return f"{value:,.{max(0, min(1 - math.floor(math.log10(two)), 3))}f}" if two > 0 else "0"


def duration(seconds):
    for size, name in ((3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= (2 * size if size > 1 else 1):
            return f"{rounded(seconds / size)} {name}"
    return f"{seconds * 1_000:.0f} ms" if seconds >= 0.001 else "< 1 ms"


def percent(part):
    return f"{part * 100:.0f} %" if part >= 0.01 else "< 1 %"


def count(value):
    return f"{value:,.0f}"


def constants_table(c, a, loads, measured):
    rows = [[f"`{name}`", f"{each['value']:,g}", each["unit"], each["source"]] for name, each in measured["constants"].items()]
    return f"{measured['date']}, {measured['machine']}.\n\n" + table(["constant", "value", "unit", "measured by"], rows)


def summary_table(c, a, loads, measured):
    """What the others come down to, in sentences."""
    flood, full, room = in_a_flood(c), a.target * a.node.connections, a.target * CORE
    delivered = [room * a.node.cores / costs.deliver_us for costs in (c, flood)]
    handed = [room / costs.redis_fanout_us for costs in (c, flood)]
    frame = PAYLOAD + c.redis_fanout_bytes + a.wire.packet_bytes
    ends = (
        (room / c.beat_redis_us, f"each server of Redis is busy with heartbeats, {c.beat_redis_us:.0f} µs for each node and second"),
        (math.sqrt(room / (c.member_redis_us * 3 / a.redis.lease_seconds)), "one server is busy with the names of all nodes, which all nodes read"),
        (a.redis.clients / c.node_redis_clients, "their connections are all that a server of Redis takes by default"),
    )
    first = ", ".join(f"{load.name} {max(used, key=used.get)}" for load, size, _, one in for_each(loads, c, a) if size == SIZES[1] for used in [one.node])
    return "\n".join((
        f"- **Connections** cost memory, not CPU: {figure(c.idle_rss_bytes + c.idle_kernel_bytes, 'B')} each, and a ping and its answer "
        f"{c.ping_us:.1f} µs in {a.node.ping_seconds} s: {count(full)} of them take {percent(full * c.ping_us / a.node.ping_seconds / CORE)} of one core.",
        f"- **A node** ({a.node.cores} cores) delivers {figure(delivered[0])} messages a second one by one, {figure(delivered[1])} in a flood. With {count(full)} "
        f"connections that is {rounded(delivered[0] / full)} and {rounded(delivered[1] / full)} messages a second to everybody.",
        f"- **A Redis** accepts {figure(room / c.redis_publish_us)} messages a second one by one, {figure(room / flood.redis_publish_us)} in a flood, and hands "
        f"{figure(handed[0])} to {figure(handed[1])} on to nodes; its network would do {figure(a.target * a.redis.network_bits / 8 / frame)}. "
        "*Messages × nodes that hear them* is what it runs out of, CPU before network.",
        f"- **One gateway ends**, whatever is sent: {'; '.join(f'at {count(nodes)} nodes {why}' for nodes, why in sorted(ends))}.",
        f"- **First exhausted on a node** at {figure(SIZES[1])}: {first}.",
    ))


def kinds_table(c, a, loads, measured):
    """What the loads are."""
    return table(["load", "is", "payload, bytes"], [[load.name, load.title, load.payload] for load in loads])


def topology(servers):
    return "1 (+ Sentinel)" if servers == 1 else f"Cluster of {count(servers)}"


def for_each(loads, c, a):
    """Every load with every number of connections, and into how many gateways of which plan it is parted."""
    for load in loads:
        for size in SIZES:
            if found := parted(load, size, c, a):
                yield load, size, *found


def nodes_table(c, a, loads, measured):
    rows = []
    for load, size, gateways, one in for_each(loads, c, a):
        used = one.node
        rows.append([
            load.name, count(size), f"{gateways} × {count(one.nodes)}", max(used, key=used.get) if one.nodes > a.least_nodes else "the least",
            percent(used["CPU"]), figure(used["network out"] * a.node.network_bits, "bit/s"), figure(used["network in"] * a.node.network_bits, "bit/s"),
            figure(used["memory"] * a.node.memory_bytes, "B"), count(size / gateways / one.nodes)])
    return table(["load", "connections", "gateways × nodes", "set by", "CPU of a node", "out of it", "into it", "its memory", "its connections"], rows)


def redis_table(c, a, loads, measured):
    rows = []
    for load, size, gateways, one in for_each(loads, c, a):
        used, whole = one.redis, plan(load, size, c, a)
        rows.append([
            load.name, count(size), f"{gateways} × {topology(one.servers)}", max(used, key=used.get), percent(used["CPU"]),
            figure(used["network out"] * a.redis.network_bits, "bit/s"), figure(used["network in"] * a.redis.network_bits, "bit/s"),
            figure(used["memory"] * a.redis.memory_bytes, "B"), count(used["connections"] * a.redis.clients),
            "–" if gateways == 1 else "a node hears too much" if whole is None else whole.blocked or "more machines"])
    return table(["load", "connections", "gateways × Redis", "nearest to its end", "CPU of the fullest server", "out of it", "into it", "its memory",
                  "connections to it", "why not one gateway"], rows)


def range_table(c, a, loads, measured):
    rows = []
    each = lambda found: f"{found[0]} × ({count(found[1].nodes)} + {count(found[1].servers)})"
    for (load, size, *alone), (_, _, *flood) in zip(for_each(loads, c, a), for_each(loads, in_a_flood(c), a), strict=True):
        rows.append([load.name, count(size), each(alone), each(flood)])
    return table(["load", "connections", "one by one: gateways × (nodes + Redis servers)", "in a flood"], rows)


def rates_table(c, a, loads, measured):
    rows = []
    for load, size, gateways, one in for_each(loads, c, a):
        e = events(load, size / gateways, one.nodes)
        ears = e.spread if e.sends else one.nodes if e.broadcasts else 1
        rows.append([load.name, count(size), *(figure(value) for value in (
            (e.published + e.notices + e.posts) * gateways, (e.delivered + e.notices + e.posts) * gateways, ears, e.opened * gateways,
            e.channels * gateways, e.subscriptions * gateways))])
    return table(["load", "connections", "messages /s", "deliveries /s", "nodes that a message goes to", "opened /s", "channels", "subscriptions of nodes"], rows)


def takeover_table(c, a, loads, measured):
    """Up to where one server of Redis does, and up to where one Cluster."""
    rows = []
    for load in loads:
        for name, costs in (("one by one", c), ("in a flood", in_a_flood(c))):
            one = largest(lambda size: (found := plan(load, size, costs, a)) is not None and found.servers == 1)
            cluster = largest(lambda size: (found := plan(load, size, costs, a)) is not None and found.servers)
            last = plan(load, one, costs, a)
            end = plan(load, cluster * 1.01, costs, a)
            rows.append([load.name, name, figure(one), count(last.nodes), max(last.redis, key=last.redis.get), figure(cluster),
                         count(plan(load, cluster, costs, a).servers), end.blocked if end else "a node hears too much"])
    return table(["load", "messages come", "one server, up to connections", "nodes then", "what it has no more of", "one Cluster, up to connections",
                  "servers then", "what ends it"], rows)


def broadcast_table(c, a, loads, measured):
    """Messages a second to everybody that one Redis can carry, by the number of nodes that hear them; at the target."""
    rows, flood = [], in_a_flood(c)
    frame = PAYLOAD + c.redis_fanout_bytes + a.wire.packet_bytes
    for nodes in (3, 10, 30, 100, 300, 1_000, 3_000):
        # Heartbeats have their share already; all else is other servers' work.
        free = a.target * CORE - nodes * c.beat_redis_us
        rate = lambda base, each: max(free, 0) / (base + nodes * each)
        alone = rate(c.redis_publish_us, c.redis_fanout_us)
        rows.append([count(nodes), count(alone), count(rate(c.redis_plain_us, c.redis_fanout_us)), count(rate(flood.redis_publish_us, flood.redis_fanout_us)),
                     count(a.target * a.redis.network_bits / 8 / (nodes * frame)), figure(nodes * frame * alone * 8, "bit/s")])
    return table(["nodes", "one by one, by CPU", "without replay", "in a flood, by CPU", "by the network", "out of Redis, one by one"], rows)


def ears_table(c, a, loads, measured):
    """The same for a node, by the number of its connections."""
    rows, flood = [], in_a_flood(c)
    for connections in (1_000, 10_000, 60_000, 100_000):
        rate = lambda costs: a.target * CORE * a.node.cores / (costs.hear_us + connections * costs.deliver_us)
        network = a.target * a.node.network_bits / 8 / (connections * (PAYLOAD + a.wire.frame_bytes + a.wire.packet_bytes))
        rows.append([count(connections), rounded(rate(c)), rounded(rate(flood)), rounded(network)])
    return table(["connections of a node", "one by one, by CPU", "in a flood, by CPU", "by the network"], rows)


def sizes_table(c, a, loads, measured):
    """The largest load with other nodes: fewer, larger ones are fewer ears."""
    rows = []
    for load in loads:
        if load.name not in ("market", "devices"):
            continue
        for cores in (2, 4, 16, 64):
            scale = cores / a.node.cores
            larger = {name: getattr(a.node, name) * scale for name in ("connections", "memory_bytes", "network_bits", "handshakes")}
            b = SimpleNamespace(**{**vars(a), "node": SimpleNamespace(**{**vars(a.node), **larger, "cores": cores})})
            gateways, one = parted(load, SIZES[-1], c, b)
            whole = plan(load, SIZES[-1], c, b)
            rows.append([load.name, count(cores), count(whole.nodes), count(SIZES[-1] / whole.nodes), percent(whole.demand.cpu.every / CORE),
                         percent(whole.demand.cpu.broadcast / CORE), percent(whole.demand.cpu.names / CORE), count(gateways)])
    return table(["load, 100 M connections", "cores of a node", "nodes", "connections each", "one Redis: heartbeats", "broadcasts", "names of nodes",
                  "gateways"], rows)


def gateways_table(c, a, loads, measured):
    rows = []
    for rate in (1, 10, 100, 1_000):
        load = Load("", "", PAYLOAD, 3_600, broadcasts=rate)
        found = [parted(load, size, c, a) for size in SIZES]
        rows.append([count(rate), *(f"{count(each[0])} × {count(each[1].nodes)}" if each else "none" for each in found)])
    return table(["messages /s to everybody", *(f"{count(size)} connections" for size in SIZES)], rows)


def repair_table(c, a, loads, measured):
    """After Redis was away every node subscribes to all its channels anew, and asks where they are."""
    rows = []
    for load, size, gateways, one in for_each(loads, c, a):
        subscriptions = events(load, size / gateways, one.nodes).subscriptions
        node, server = subscriptions / one.nodes, subscriptions / one.servers
        rows.append([load.name, count(size), figure(node), duration(node * c.join_us / CORE), figure(server), duration(server * c.join_redis_us / CORE)])
    return table(["load", "connections", "subscriptions of a node", "it is busy for", "of a Redis server", "it is busy for"], rows)


def drain_table(c, a, loads, measured):
    full = a.target * a.node.connections
    rows = []
    for nodes, at_once in ((3, 1), (10, 1), (100, 1), (100, 5), (1_667, 1), (1_667, 80)):
        window = window_for(full, nodes, at_once, a)
        # A node looks at the others once a second, so no drain is over sooner.
        used = min(max(window, 1), a.node.window_seconds)
        each = a.node.notice_seconds + used + a.node.start_seconds
        rows.append([count(nodes), count(at_once), duration(window), "yes" if window <= a.node.window_seconds else "**no**",
                     figure(full * at_once / used / (nodes - at_once)), duration(math.ceil(nodes / at_once) * each)])
    return table(["nodes", "restarted at once", "`drain.window` ≥", f"{a.node.window_seconds} s do", "handshakes /s at each that stays", "a whole rollout"], rows)


def spread_table(c, a, loads, measured):
    sizes = (2, 10, 50, 1_000)
    rows = [[count(nodes), *(f"{rounded(reach(size, nodes))} ({rounded(simulate.spread(size, nodes))})" for size in sizes)] for nodes in (3, 17, 167, 1_667)]
    return table(["nodes", *(f"{count(size)} members" for size in sizes)], rows)


def balance_table(c, a, loads, measured):
    rows = []
    for nodes in (3, 10, 30):
        for policy in simulate.POLICIES:
            fresh, rolled, later = simulate.balance(nodes, 2_000, policy)
            rows.append([count(nodes), policy, f"{fresh:.2f}", f"{rolled:.2f}", f"{later:.2f}", percent(1 / max(fresh, rolled, later))])
    return table(["nodes", "the balancer chooses", "at first", "after a rollout", "one session later", "so fill a node to, at most, on average"], rows)


def storm_table(c, a, loads, measured):
    rows = []
    full = int(a.target * a.node.connections)
    for name, clients, nodes in (("one of 3 nodes dies", full, 2), ("one of 10 nodes dies", full, 9), ("all of 3 nodes are lost and back", 3 * full, 3)):
        least = clients / nodes / a.node.handshakes
        for policy in simulate.BACKOFFS:
            most, last, tries = simulate.storm(clients, nodes, a.node.handshakes, policy)
            rows.append([name, policy, duration(least), duration(most), duration(last), f"{rounded(tries)}"])
    return table(["what happens", "clients", "at the rate alone", "99 % are back", "all are back", "tries a client"], rows)


TABLES = {
    "summary": summary_table, "constants": constants_table, "kinds": kinds_table, "nodes": nodes_table, "redis": redis_table,
    "rates": rates_table, "range": range_table, "takeover": takeover_table, "broadcast": broadcast_table,
    "ears": ears_table, "sizes": sizes_table, "gateways": gateways_table, "repair": repair_table,
    "drain": drain_table, "spread": spread_table, "balance": balance_table, "storm": storm_table,
}
MARK = re.compile(r"(<!-- model: (\w+) -->\n).*?(<!-- /model -->)", re.S)


def filled(text, inputs):
    """The text with its tables as they are now."""
    return MARK.sub(lambda match: f"{match[1]}\n{TABLES[match[2]](*inputs)}\n\n{match[3]}", text)


def main(arguments):
    inputs = read()
    match arguments:
        case []:
            for name, make in TABLES.items():
                print(f"{name}\n\n{make(*inputs)}\n")
        case ["--update", path]:
            Path(path).write_text(filled(Path(path).read_text(), inputs))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
