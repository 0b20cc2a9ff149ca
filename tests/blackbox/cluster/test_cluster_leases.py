"""Who is taken for dead, and who is not: whatever Redis does, a node that lives keeps its clients; a dead one is found in time.

No fault here harms a node, and most last for longer than a lease of a second."""

import base64
import json
import signal
import struct
import subprocess
import threading
import time
from contextlib import contextmanager
from functools import partial

import pytest

from cluster import ANNOUNCED, SHORT_LEASE, clients_of, kill, metric, paused, received_until_now, throughout
from gatecast import eventually, lasts
from wire import Socket

SECONDS = 1
STEPPED_CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *step;

__attribute__((constructor)) static void begin(void) {
    void *found = mmap(NULL, sizeof *step, PROT_READ, MAP_SHARED, open(getenv("CLOCK_STEP"), O_RDONLY), 0);
    if (found == MAP_FAILED) abort();
    step = found;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_REALTIME && step) time->tv_sec += *step;
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    int result = syscall(SYS_gettimeofday, time, zone);
    if (step) time->tv_sec += *step;
    return result;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture
def start_on(start_on):
    """Here nodes are found dead, or find that they may be."""
    return partial(start_on, **SHORT_LEASE)


def is_well(node):
    return node.page("/ready")[0] == 200 and metric(node, "gatecast_redis_up") == 1


@contextmanager
def nobody_is_harmed(nodes, seconds=SECONDS):
    """All nodes and clients of before are there after the block, and after the time in which anybody would be found dead."""
    with clients_of(nodes, each=2) as clients:
        yield clients
        throughout(3 * seconds, lambda: all(node.process.poll() is None for node in nodes))
        eventually(lambda: all(is_well(node) for node in nodes))
        for client in clients:
            client.ping().wait(timeout=10)
            for node in nodes:
                eventually(lambda: node.post(client.id, b"hello") == 200)
        received = received_until_now(clients, nodes[0])
        assert all(set(texts) == {"hello"} for texts in received), received
        assert sum(metric(node, "gatecast_connections_reaped_total") for node in nodes) == 0


@pytest.mark.parametrize("leases_away", [0, 2])
def test_a_redis_that_is_back_with_an_old_snapshot_ends_nobody(redis, start_on, leases_away):
    nodes = start_on(redis, config=ANNOUNCED)
    with nobody_is_harmed(nodes):
        assert redis.ask("SAVE") == "OK"
        throughout(1.5 * SECONDS, lambda: all(is_well(node) for node in nodes))
        redis.kill()
        lasts(leases_away * SECONDS)
        assert redis.start()


@pytest.mark.parametrize("stall", [0.4, 1.4, 3.2])
def test_a_stall_with_a_flush_behind_it_ends_nobody(redis, start_on, stall):
    nodes = start_on(redis, config=ANNOUNCED)
    with nobody_is_harmed(nodes):
        with paused(redis.process):
            flush = subprocess.Popen(["redis-cli", "-p", str(redis.port), "FLUSHALL"], stdout=subprocess.PIPE, text=True)
            lasts(stall)
        assert flush.communicate(timeout=10)[0].strip() == "OK"


def test_stalls_in_a_row_end_nobody(redis, start_on):
    nodes = start_on(redis, config=ANNOUNCED)
    with nobody_is_harmed(nodes):
        for _ in range(6):
            with paused(redis.process):
                lasts(0.7 * SECONDS)
            lasts(0.1 * SECONDS)


def test_flushes_in_a_row_end_nobody(redis, start_on):
    nodes = start_on(redis, config=ANNOUNCED)
    with nobody_is_harmed(nodes):
        ends = time.monotonic() + 4 * SECONDS
        while time.monotonic() < ends:
            assert redis.ask("FLUSHALL") == "OK"
            lasts(0.05)


@pytest.mark.parametrize("step", [60, -60, 3_600])
def test_a_step_of_the_clock_of_redis_ends_nobody(tmp_path, monkeypatch, start_redis, start_on, step):
    source, library, file = tmp_path / "clock.c", tmp_path / "clock.so", tmp_path / "step"
    source.write_text(STEPPED_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    file.write_bytes(struct.pack("=q", 0))
    with monkeypatch.context() as preloaded:
        preloaded.setenv("CLOCK_STEP", str(file))
        preloaded.setenv("LD_PRELOAD", str(library))
        redis = start_redis()
    nodes = start_on(redis, config=ANNOUNCED)
    with nobody_is_harmed(nodes):
        before = int(redis.ask("TIME").split()[0])
        with open(file, "r+b") as written:
            written.write(struct.pack("=q", step))
        assert abs(int(redis.ask("TIME").split()[0]) - before - step) < 10


def lack_replicas(redis):
    redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    return lambda: redis.ask("CONFIG", "SET", "min-replicas-to-write", "0")


def fail_to_save(redis):
    redis.ask("CONFIG", "SET", "save", "3600 1")
    (redis.directory / "dump.rdb").mkdir()
    redis.ask("BGSAVE")
    eventually(lambda: "rdb_last_bgsave_status:err" in redis.ask("INFO", "persistence"))

    def mend():
        (redis.directory / "dump.rdb").rmdir()
        redis.ask("BGSAVE")
        eventually(lambda: "rdb_last_bgsave_status:ok" in redis.ask("INFO", "persistence"))

    return mend


def be_a_replica(redis):
    redis.ask("REPLICAOF", "127.0.0.1", "1")
    return lambda: redis.ask("REPLICAOF", "NO", "ONE")


def pause_writes(redis):
    redis.ask("CLIENT", "PAUSE", "100000", "WRITE")
    return lambda: redis.ask("CLIENT", "UNPAUSE")


def be_full(redis):
    redis.ask("CONFIG", "SET", "maxmemory", "1mb")
    return lambda: redis.ask("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize("refuse", [lack_replicas, fail_to_save, be_a_replica, pause_writes, be_full])
def test_a_redis_that_takes_no_writes_for_three_leases_ends_nobody(redis, start_on, refuse):
    nodes = start_on(redis, config=ANNOUNCED)
    with nobody_is_harmed(nodes):
        mend = refuse(redis)
        throughout(3 * SECONDS, lambda: all(node.page("/live")[0] == 200 for node in nodes))
        mend()


def test_commands_that_are_cut_off_every_half_lease_end_nobody(redis, start_on):
    nodes = start_on(redis, config=ANNOUNCED)
    with nobody_is_harmed(nodes):
        for _ in range(12):
            assert int(redis.ask("CLIENT", "KILL", "TYPE", "normal")) > 0
            lasts(SECONDS / 2)


def test_two_failovers_in_a_row_end_nobody(start_form, start_on_form):
    form = start_form("sentinel")
    nodes = start_on_form(form, config=ANNOUNCED, **SHORT_LEASE)
    with nobody_is_harmed(nodes):
        for _ in range(2):
            old = form.master()
            eventually(lambda: form.sentinels[0].ask("SENTINEL", "FAILOVER", form.name) == "OK", within=20)
            eventually(lambda: form.master() is not old, within=20)
        eventually(form.is_settled, within=40)


def test_calls_through_another_node_are_503_while_redis_is_away_for_long_and_never_410(start_redis, start_on):
    redis = start_redis(is_persistent=True)
    nodes = start_on(redis, config=ANNOUNCED)
    with nobody_is_harmed(nodes) as clients:
        answers, is_over = [], threading.Event()

        def post():
            while not is_over.is_set():
                answers.append(nodes[0].post(clients[-1].id, b"hello"))

        poster = threading.Thread(target=post)
        poster.start()
        try:
            eventually(lambda: 200 in answers)
            redis.kill()
            throughout(2.5 * SECONDS, lambda: nodes[0].page("/live")[0] == 200)
            assert redis.start()
            eventually(lambda: answers[-1] == 200)
            throughout(3 * SECONDS, lambda: nodes[0].page("/live")[0] == 200)
            eventually(lambda: answers[-1] == 200)
        finally:
            is_over.set()
            poster.join()
        assert set(answers) == {200, 503}


# Long enough that what a busy machine adds is little.
LONG = 3


def start_long(start_on, redis, count):
    return start_on(redis, count, ANNOUNCED, GATECAST_REDIS_LEASE=f"{LONG}s")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_dead_nodes_are_found_in_time(redis, start_on, note, count):
    """Five thirds of a lease from the last renewal, and a third more for each dead node that is behind another."""
    nodes = start_long(start_on, redis, count + 2)
    dead, alive = nodes[:count], nodes[count:]
    with clients_of(dead) as lost, clients_of(alive) as watchers:
        began = time.monotonic()
        kill(dead)
        expected = {f"{client.id} left" for client in lost}
        for watcher in watchers:
            assert {watcher.recv(timeout=30) for _ in expected} == expected
        took = time.monotonic() - began
        note(f"leases: {count} dead nodes are found after {took / LONG:.2f} leases")
        assert took > 2 / 3 * LONG, "before its lease has ended"
        assert took < (5 / 3 + (count - 1) / 3) * LONG + 2
        eventually(lambda: {node.post(client.id, b"x") for node in alive for client in lost} == {410})
        assert received_until_now(watchers, alive[0]) == [[]] * len(watchers)


def tag_of(client):
    """The tag of a client's node; an id ends with it."""
    return base64.urlsafe_b64decode(client.id)[8:].hex()


def test_a_reaper_that_dies_at_its_work_is_taken_over_from(redis, start_on):
    nodes = start_long(start_on, redis, 3)
    by_tag = {}
    with clients_of(nodes) as clients:
        by_tag = {tag_of(client): client for client in clients}
        dead, records = clients[0], f"gatecast:{{node:{tag_of(clients[0])}}}:connections"
        record = json.loads(redis.ask("HGET", records, dead.id))
        ids = [base64.urlsafe_b64encode(struct.pack(">Q", number) + bytes.fromhex(tag_of(dead))).decode()
               for number in range(3_000)]
        lines = (f"HSET {records} {each} '{json.dumps(record | {'id': each})}'" for each in ids)
        subprocess.run(["redis-cli", "-p", str(redis.port)], input="\n".join(lines), text=True, check=True,
                       stdout=subprocess.DEVNULL)
        kill([dead.node])
        mark = f"gatecast:{{node:{tag_of(dead)}}}:reaped"
        reaper = by_tag[eventually(lambda: redis.ask("GET", mark), within=30).split(":")[0]]
        kill([reaper.node])
        (watcher,) = [client for client in clients if client not in (dead, reaper)]
        assert int(redis.ask("HLEN", records)) > 0, "it was too quick"
        left = set()
        while not {f"{each} left" for each in [*ids, dead.id, reaper.id]} <= left:
            left.add(watcher.recv(timeout=30))
        eventually(lambda: redis.ask("GET", mark) == "done" and redis.ask("EXISTS", records) == "0")
        eventually(lambda: watcher.node.post(reaper.id, b"x") == watcher.node.post(dead.id, b"x") == 410)


@pytest.mark.parametrize("told", [(), (signal.SIGTERM,), (signal.SIGINT,)], ids=["by_itself", "terminated", "interrupted"])
def test_a_node_that_was_frozen_past_its_lease_is_fenced_whatever_it_is_told(redis, start_on, told):
    ghost, *alive = start_on(redis, config=ANNOUNCED)
    ghost.is_ended_by_test = True
    with clients_of([ghost], each=3) as lost, clients_of(alive) as watchers:
        with paused(ghost.process):
            expected = sorted(f"{client.id} left" for client in lost)
            assert [sorted(watcher.recv(timeout=20) for _ in lost) for watcher in watchers] == [expected] * 2
            for number in told:
                ghost.signal(number)
        assert ghost.wait() == 75
        throughout(2 * SECONDS, lambda: all(is_well(node) for node in alive))
        assert received_until_now(watchers, alive[0]) == [[], []]


def test_one_signal_more_does_not_hurry_a_ghost_and_a_second_does(redis, start_on):
    """Its client does not answer its close frame, so it would wait."""
    ghost, other = start_on(redis, 2, ANNOUNCED, GATECAST_LIMITS_CLOSE_TIMEOUT="20s", GATECAST_DRAIN_GRACE="25s")
    ghost.is_ended_by_test = True
    with Socket(ghost.address).upgrade() as deaf, clients_of([other]) as (watcher,):
        own = deaf.connection_id()
        with paused(ghost.process):
            assert watcher.recv(timeout=20) == f"{own} left"
        eventually(lambda: "have taken this node for dead" in ghost.log())
        ghost.signal(signal.SIGTERM)
        eventually(lambda: "shutting down already" in ghost.log())
        throughout(1, lambda: ghost.process.poll() is None)
        ghost.signal(signal.SIGTERM)
        assert ghost.wait(5) == 75
