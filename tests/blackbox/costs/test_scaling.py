"""The model of docs/scaling.md: its page is what it prints, and its arithmetic is that of a calculation by hand."""

import dataclasses
import itertools
import re
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import pytest

import model
import simulate
import tables
from gatecast import GATECAST, ROOT, TARGET

PAGE = (ROOT / "docs/scaling.md").read_text()
CONSTANTS, ASSUMED, LOADS, MEASURED = INPUTS = model.read()
NAMES = [load.name for load in LOADS]
SIZES = [3_000, 10_000, 100_000, 1_000_000, 3_000_000, 10_000_000]


def load_named(name, **changes):
    return dataclasses.replace(next(load for load in LOADS if load.name == name), **changes)


def test_the_page_is_what_the_program_prints_now():
    assert tables.filled(PAGE, INPUTS) == PAGE, "run docs/scaling/tables.py --update docs/scaling.md"


def test_every_table_is_on_the_page_once():
    assert sorted(re.findall(r"<!-- model: (\w+) -->", PAGE)) == sorted(tables.TABLES)


def test_the_program_prints_all_tables_and_refuses_what_it_does_not_know():
    run = lambda *words: subprocess.run([sys.executable, ROOT / "docs/scaling/tables.py", *words], capture_output=True, text=True, timeout=25)
    printed = run()
    assert printed.returncode == 0 and all(f"{name}\n\n" in printed.stdout for name in tables.TABLES)
    assert run("--help-me").returncode == 1


def test_a_page_with_another_figure_is_seen():
    at = re.search(r"\| chat \| 1,000,000 \| 1 × (\d+)", PAGE)
    forged = PAGE[: at.start(1)] + "1" + PAGE[at.start(1) :]
    assert tables.filled(forged, INPUTS) == PAGE != forged


def test_every_constant_has_a_value_a_unit_and_who_measured_it():
    assert MEASURED["machine"] and MEASURED["date"]
    for name, each in MEASURED["constants"].items():
        assert each.keys() == {"value", "unit", "source"}, name
        assert each["value"] >= 0 and each["unit"] and each["source"], name


def simple(**changes):
    """Costs and means in round figures."""
    constants = SimpleNamespace(**dict.fromkeys(vars(CONSTANTS), 0.0) | changes)
    node = SimpleNamespace(cores=2, memory_bytes=1e9, network_bits=8e8, connections=1e9, handshakes=1e9, inbox_bytes=0, slow_clients=0,
                           outbox_bytes=0, ping_seconds=10, notice_seconds=0, window_seconds=0, start_seconds=0)
    redis = SimpleNamespace(memory_bytes=1e12, network_bits=8e12, clients=1e9, servers=1_000, stream_seconds=60, stream_entries=1_000,
                            meta_seconds=86_400, lease_seconds=10)
    wire = SimpleNamespace(packet_bytes=50, frame_bytes=4, client_frame_bytes=8)
    return constants, SimpleNamespace(target=0.5, least_nodes=1, node=node, redis=redis, wire=wire)


BROADCAST = model.Load("", "", payload=96, session_seconds=1e12, broadcasts=10)


def test_a_broadcast_as_computed_by_hand():
    c, a = simple(deliver_us=5, hear_us=100, publish_us=0, redis_publish_us=50, redis_fanout_us=2, node_redis_clients=2)
    # 10 messages to 1,000,000: 10 M deliveries of 5 µs are 50 cores, of which a node may use 1; and each hears 10 × 100 µs: n (1 − 0.001) ≥ 50.
    # Out of it go 150 bytes for each: 1.5 GB/s of which a node may send 50 MB/s: 30 nodes, so it is CPU that counts.
    plan = model.plan(BROADCAST, 1_000_000, c, a)
    assert plan.nodes == 51 and plan.servers == 1 and plan.blocked is None
    assert plan.node["CPU"] == pytest.approx((50 / 51 + 0.001) / 2, rel=1e-6)
    # And a ping's acknowledgement: 1,000,000 / 10 s × 50 bytes; and one for each message heard.
    assert plan.node["network out"] == pytest.approx((1e7 * 150 + 1e5 * 50 + 510 * 50 + 10 * (146 + 0)) / 51 * 8 / 8e8, rel=1e-3)
    assert plan.redis["CPU"] == pytest.approx(10 * (50 + 51 * 2) / 1e6)
    assert plan.redis["connections"] == pytest.approx(102 / 1e9)


def test_what_one_slot_has_is_parted_into_gateways_and_not_into_servers():
    c, a = simple(deliver_us=5, redis_fanout_us=2_000)
    # 50 nodes or more hear 10 messages a second, at 2 ms each: one core, and half of it may be used.
    plan = model.plan(BROADCAST, 1_000_000, c, a)
    assert (plan.servers, plan.blocked) == (None, "broadcasts (CPU)")
    gateways, one = model.parted(BROADCAST, 1_000_000, c, a)
    assert (gateways, one.nodes, one.servers) == (2, 25, 1)


def test_what_is_heard_by_every_node_cannot_be_spread():
    c, a = simple(hear_us=200_000)
    assert model.plan(BROADCAST, 1_000, c, a) is None and model.parted(BROADCAST, 1_000, c, a) is None


def test_groups_as_computed_by_hand():
    c, a = simple(redis_publish_us=10, redis_fanout_us=1, idle_rss_bytes=1_000, idle_kernel_bytes=4_000, record_redis_bytes=200)
    load = model.Load("", "", payload=100, session_seconds=1e12, sends=1, members=2, groups=1)
    a.node.network_bits = 8e12
    # 500 MB a node at 5,000 bytes: 100,000 connections.
    plan = model.plan(load, 400_000, c, a)
    assert plan.nodes == 4 and plan.node["memory"] == pytest.approx(0.5)
    # Of 4 nodes a group of 2 is on 1.75: 400,000 × 11.75 µs are 4.7 cores, of which a server may use a half.
    assert plan.servers == 10 and plan.redis["CPU"] == pytest.approx(0.47)
    # 200,000 groups of 2 messages a second: their streams are full.
    c.message_redis_bytes, c.meta_redis_bytes, c.channel_redis_bytes = 20, 30, 30
    demand = model.redis_demand(load, 400_000, 4, c, a)
    assert demand.memory == pytest.approx(400_000 * 200 + 200_000 * (30 + 999 * 120))


@pytest.mark.parametrize("name", NAMES)
def test_more_connections_never_need_less(name):
    load = load_named(name)
    plans = [model.plan(load, size, CONSTANTS, ASSUMED) for size in SIZES]
    for less, more in itertools.pairwise(plans):
        assert less.nodes <= more.nodes
        assert not more.servers or less.servers <= more.servers
        assert less.demand.memory < more.demand.memory
    assert plans[0].nodes < plans[-1].nodes


@pytest.mark.parametrize("name, rate", [("chat", "sends"), ("market", "broadcasts"), ("notices", "notices"), ("devices", "posts")])
def test_higher_rates_never_need_less(name, rate):
    base = load_named(name)
    plans = [model.plan(load_named(name, **{rate: getattr(base, rate) * factor}), 1_000_000, CONSTANTS, ASSUMED) for factor in (1, 4, 16)]
    for less, more in itertools.pairwise(plans):
        assert less.nodes <= more.nodes
        assert not more.servers or less.servers <= more.servers
        busy = lambda plan: plan.demand.cpu.spread + plan.demand.cpu.broadcast
        assert busy(less) < busy(more)
    used = [model.node_demand(load_named(name, **{rate: getattr(base, rate) * factor}), 1_000_000, 50, CONSTANTS, ASSUMED) for factor in (1, 4)]
    assert all(used[0][part] <= used[1][part] for part in used[0]) and used[0]["CPU"] < used[1]["CPU"]


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_fits_and_one_node_or_server_less_does_not(name):
    load = load_named(name)
    plan = model.plan(load, 1_000_000, CONSTANTS, ASSUMED)
    assert max(plan.node.values()) <= ASSUMED.target
    assert max(model.node_demand(load, 1_000_000, plan.nodes - 1, CONSTANTS, ASSUMED).values()) > ASSUMED.target
    fullest = lambda servers: max(model.one_server(plan.demand, 0, servers, CONSTANTS, ASSUMED).values())
    assert fullest(plan.servers) <= ASSUMED.target
    assert plan.servers == 1 or fullest(plan.servers - 1) > ASSUMED.target


def test_a_group_reaches_as_many_nodes_as_the_lot_says():
    assert model.reach(1, 1_000) == 1 and model.reach(50, 1) == 1
    assert model.reach(2, 4) == pytest.approx(1.75)
    for members, nodes in itertools.product((2, 10, 300), (3, 40, 1_000)):
        assert simulate.spread(members, nodes) == pytest.approx(model.reach(members, nodes), rel=0.03)


def test_a_search_finds_the_smallest_and_says_when_there_is_none():
    for answer, least, most in itertools.product((1, 2, 7, 64, 100), (1, 3), (100, 1_000)):
        assert model.smallest(least, lambda number: number >= answer, most) == max(answer, least)
    assert model.smallest(1, lambda number: number > 100, most=100) is None
    assert model.largest(lambda size: size <= 12_345) == pytest.approx(12_345, rel=0.002)


def test_the_window_is_that_of_the_readme():
    # c / (1,000 × (n − 1)) with the defaults.
    assert model.window_for(60_000, 3, 1, ASSUMED) == 60_000 / (1_000 * 2)
    assert model.window_for(60_000, 10, 4, ASSUMED) == 60_000 * 4 / (1_000 * 6)


def test_least_connections_is_never_worse_than_chance():
    for nodes in (3, 10):
        drawn = {policy: simulate.balance(nodes, 500, policy) for policy in simulate.POLICIES}
        # One node is empty at the end of a rollout: the others have its part, evenly.
        assert drawn["least connections"] == pytest.approx((1, nodes / (nodes - 1), 1), abs=0.01)
        assert all(each >= best - 0.01 for other in drawn.values() for each, best in zip(other, drawn["least connections"]))


@pytest.mark.parametrize("backoff", simulate.BACKOFFS)
def test_no_crowd_comes_back_faster_than_it_is_let_in(backoff):
    clients, nodes, rate = 20_000, 2, 1_000
    most, last, tries = simulate.storm(clients, nodes, rate, backoff)
    # A burst of one second's comes before.
    assert last >= clients / (nodes * rate) - 1 and 0 < most <= last and tries >= 1
    assert (most, last, tries) == simulate.storm(clients, nodes, rate, backoff), "drawn by a seed"
    assert simulate.storm(1_000, nodes, rate, backoff)[2] == 1, "all find a place at once"


@pytest.mark.parametrize("value, text", [(0, "0"), (0.012, "0.012"), (0.9999999999, "1.0"), (7.13, "7.1"), (834_900, "835 k"), (999_700, "1.0 M"), (1.04e9, "1.0 G")])
def test_figures_are_short(value, text):
    assert tables.figure(value) == text


def test_everything_that_is_asked_for_is_measured():
    text = "".join((ROOT / f"docs/scaling/{name}.py").read_text() for name in ("model", "tables"))
    asked = set(re.findall(r"\b(?:c|flood|costs)\.(\w+)", text))
    assert asked and asked <= MEASURED["constants"].keys()


@pytest.mark.alone
def test_what_measures_prints_every_constant():
    """In little: the figures are worth nothing."""
    line = [sys.executable, ROOT / "docs/scaling/measure.py", "--short", GATECAST, TARGET / "release/loadtest"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    printed = tomllib.loads(result.stdout)
    assert printed.keys() == MEASURED.keys()
    assert list(printed["constants"]) == list(MEASURED["constants"])
    for name, each in printed["constants"].items():
        assert each["unit"] == MEASURED["constants"][name]["unit"]
    # What does not depend on how busy the machine is.
    for name in ("redis_in_bytes", "redis_fanout_bytes", "member_redis_bytes"):
        assert printed["constants"][name]["value"] == pytest.approx(getattr(CONSTANTS, name), rel=0.2), name
