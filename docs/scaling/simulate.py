"""What chance does, where a formula does not say it: where connections lie, whom a group reaches, how a crowd comes back.

Every function draws by a seed of its own, so the same call answers the same.
"""

import heapq
import itertools
import random
from collections import Counter


def spread(members, nodes, draws=20_000):
    """The mean number of nodes on which a group has members."""
    lot, times = random.Random(1), max(20, draws // members)
    return sum(len({lot.randrange(nodes) for _ in range(members)}) for _ in range(times)) / times


# --- Where connections lie

def at_random(lot, loads, open_nodes, turn):
    return lot.choice(open_nodes)


def by_turns(lot, loads, open_nodes, turn):
    return open_nodes[turn % len(open_nodes)]


def emptier_of_two(lot, loads, open_nodes, turn):
    return min(lot.choice(open_nodes), lot.choice(open_nodes), key=loads.__getitem__)


def least_connections(lot, loads, open_nodes, turn):
    return min(open_nodes, key=loads.__getitem__)


POLICIES = {"at random": at_random, "by turns": by_turns, "the emptier of two at random": emptier_of_two, "least connections": least_connections}


def balance(nodes, each, policy):
    """The fullest node by the mean: at first, when all nodes were restarted one after the other, and a session's time later."""
    lot, choose, everybody = random.Random(2), POLICIES[policy], list(range(nodes))
    loads, turns = Counter(), itertools.count()

    def come(open_nodes):
        node = choose(lot, loads, open_nodes, next(turns))
        loads[node] += 1
        return node

    places = [come(everybody) for _ in range(nodes * each)]
    found = [max(loads.values()) / each]
    for down in everybody:
        others = [node for node in everybody if node != down]
        loads[down] = 0
        places = [come(others) if node == down else node for node in places]
    found.append(max(loads.values()) / each)
    # Each change is a connection that ends and a client that comes.
    for _ in places:
        at = lot.randrange(len(places))
        loads[places[at]] -= 1
        places[at] = come(everybody)
    return *found, max(loads.values()) / each


# --- How a crowd comes back

def told(lot, tries):
    """At once; when refused, as `Retry-After` says: 1 to 5 whole seconds."""
    return lot.random() * 0.1 + (lot.randint(1, 5) if tries else 0)


def stubborn(lot, tries):
    """At once, and again every second."""
    return lot.random() * 0.1 + (1 if tries else 0)


def patient(lot, tries):
    """Anywhere within 1 s, then 2, 4, … at most 30."""
    return lot.random() * min(30, 2**tries)


def late(lot, tries):
    """Anywhere within 5 s at first, then as `Retry-After` says and up to a second more."""
    return lot.random() * 5 if not tries else lot.randint(1, 5) + lot.random()


BACKOFFS = {
    "at once, then as `Retry-After` says": told, "at once, then every second": stubborn,
    "within 1 s, doubled up to 30 s, all of it jitter": patient, "within 5 s, then as `Retry-After` says + 1 s of jitter": late,
}


def storm(clients, nodes, rate, backoff, scale=10):
    """Clients that lost their node come back to `nodes` that let in `rate` a second each, with a burst of one second's.

    Seconds until 99 % and all are back, and tries for each. A crowd of a tenth at a tenth of the rate does the same, sooner.
    """
    lot, pause = random.Random(3), BACKOFFS[backoff]
    clients, rate = clients // scale, rate / scale
    tokens, seen = [rate] * nodes, [0.0] * nodes
    coming = [(pause(lot, 0), client, 0) for client in range(clients)]
    heapq.heapify(coming)
    back, tries = [], 0
    while coming:
        now, client, before = heapq.heappop(coming)
        node = lot.randrange(nodes)
        tokens[node] = min(rate, tokens[node] + (now - seen[node]) * rate)
        seen[node] = now
        tries += 1
        if tokens[node] >= 1:
            tokens[node] -= 1
            back.append(now)
        else:
            heapq.heappush(coming, (now + pause(lot, before + 1), client, before + 1))
    return back[int(len(back) * 0.99) - 1], back[-1], tries / clients
