"""`/metrics`, read by the parser of Prometheus' own Python client, and whether the numbers add up."""

import re
import time
from collections import defaultdict

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gatecast import ROOT, eventually, lasts, request
from wire import CLOSE, PING, TEXT, Socket, close_payload, frame

GAUGES = """
    gatecast_build_info gatecast_connections gatecast_channels gatecast_group_members gatecast_outbox_bytes
    gatecast_draining gatecast_drain_remaining_connections gatecast_runtime_tasks gatecast_runtime_queue_depth
    gatecast_connections_limit gatecast_nodes gatecast_memory_limit_bytes
    process_resident_memory_bytes process_open_fds process_max_fds process_threads process_start_time_seconds
""".split()
COUNTERS = """
    gatecast_connections_opened_total gatecast_connections_closed_total gatecast_handshakes_rejected_total
    gatecast_http_connections_accepted_total gatecast_messages_received_total gatecast_messages_sent_total
    gatecast_received_bytes_total gatecast_sent_bytes_total gatecast_messages_published_total
    gatecast_messages_dropped_total gatecast_slow_consumer_disconnects_total gatecast_route_requests_total
    gatecast_close_handshakes_total gatecast_thrown_away_bytes_total
    gatecast_management_requests_total gatecast_shard_busy_seconds_total gatecast_runtime_busy_seconds_total process_cpu_seconds_total
""".split()
HISTOGRAMS = ["gatecast_handshake_duration_seconds", "gatecast_delivery_lag_seconds", "gatecast_ping_rtt_seconds",
              "gatecast_publish_duration_seconds"]
CLOSED_LABELS = {"code", "initiator", "reason", "route", "outcome", "operation", "status", "stage", "port", "policy",
                 "shard", "worker", "version", "result", "limit", "class", "kind", "by", "le", "state", "cause"}


class Counted(Socket):
    """A client that counts what comes and goes after its handshake."""

    def upgrade(self, **options):
        super().upgrade(**options)
        self.sent, self.received = 0, len(self.pending)
        return self

    def say(self, data):
        self.sent += len(data)
        return self.send(data)

    def take(self, count):
        self.received += count
        return super().take(count)


def settled(node, totals):
    """The metrics that `totals` names, once they are as they should be, or as they are in the end."""
    deadline = time.monotonic() + 5
    while (found := {name: node.metric(name) for name in totals}) != totals and time.monotonic() < deadline:
        lasts(0.01)
    return found


def families(node):
    status, text = node.page("/metrics")
    assert status == 200
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture
def busy(start):
    """A node after a full life: chat, groups, a slow consumer, a refusal, calls of the management API."""
    node = start('[limits]\nping_interval = "100ms"\noutbox_bytes = 131072\nclose_timeout = "300ms"')
    assert request(node.address, "GET", "/prod")[0].status == 403
    assert request(node.address, "GET", "/beta/@connections/L0SM9cOFvHcCIhw=")[0].status == 410
    with node.connect() as client, Socket(node.address, receive_buffer=4096).upgrade() as slow:
        slow.connection_id()
        client.send('{"action":"joinGroup","group":"moon"}')
        eventually(lambda: node.metric("gatecast_ping_rtt_seconds_count"))
        while not node.metric("gatecast_slow_consumer_disconnects_total"):
            client.send("x" * 30_000)
            client.recv(timeout=10)
    eventually(lambda: node.metric("gatecast_connections") == 0)
    return node


def test_all_metrics_are_there_with_their_types_and_a_help_text(busy):
    found = families(busy)
    for names, kind in ((GAUGES, "gauge"), (COUNTERS, "counter"), (HISTOGRAMS, "histogram")):
        for name in names:
            family = found.get(name) or found.get(name.removesuffix("_total"))
            assert family, f"{name} is missing; there are {sorted(found)}"
            assert family.type == kind
            assert family.documentation


def test_names_and_labels_follow_the_rules(busy):
    for family in families(busy).values():
        assert family.name.startswith(("gatecast_", "process_"))
        for sample in family.samples:
            assert set(sample.labels) <= CLOSED_LABELS
            assert sample.value >= 0


def test_counters_are_there_before_the_first_event(node):
    """Else a rate would miss it: nothing would have been before."""
    found = {name: family for name, family in families(node).items() if family.type == "counter"}
    made_on_first_use = {"gatecast_management_requests"}
    for name in COUNTERS:
        name = name.removesuffix("_total")
        assert name in made_on_first_use or name in found, name
    rows = (ROOT / "README.md").read_text().split("\n### Close codes\n")[1].split("\n###")[0]
    reasons = set(re.findall(r"^\| `(\w+)` \|", rows, re.M))
    assert {sample.labels["reason"] for sample in found["gatecast_connections_closed"].samples} == reasons


def test_histograms_are_cumulative(busy):
    for name in HISTOGRAMS:
        series = defaultdict(list)
        for sample in families(busy)[name].samples:
            labels = tuple(sorted((key, value) for key, value in sample.labels.items() if key != "le"))
            if sample.name.endswith("_bucket"):
                series[labels].append((float(sample.labels["le"]), sample.value))
        for labels, buckets in series.items():
            assert buckets == sorted(buckets)
            assert [count for _, count in buckets] == sorted(count for _, count in buckets)
            assert buckets[-1] == (float("inf"), busy.metric(f"{name}_count", **dict(labels)))
            # Nothing was refused in that life; all else has happened.
            assert (buckets[-1][1] > 0) == (dict(labels).get("outcome", "ok") == "ok")


def test_no_label_comes_from_a_client(node):
    with node.connect() as client:
        for number in range(100):
            client.send(f'{{"action":"made up {number}"}}')
            client.recv(timeout=10)
        client.send('{"action":"joinGroup","group":"secret group"}')
        client.recv(timeout=10)
        client.close(4321, "made up")
    eventually(lambda: node.metric("gatecast_connections_closed_total", code="other"))
    labels = [value for sample in node.samples() for value in sample.labels.values()]
    assert not [value for value in labels if "made up" in value or "secret group" in value or value == "4321"]
    assert node.metric("gatecast_route_requests_total", route="none", outcome="forbidden") == 100


def test_the_counters_of_a_scenario_add_up(node):
    with Counted(node.address).upgrade() as one, Counted(node.address).upgrade() as two:
        with Counted(node.address).upgrade() as three:
            clients = (one, two, three)
            own = three.connection_id()
            three.sent += len(frame(TEXT, b'{"action":"no such action"}'))
            for number in range(10):
                one.say(frame(TEXT, f"message {number}".encode()))
                for client in clients:
                    assert client.receive() == (TEXT, f"message {number}".encode())
            two.say(frame(TEXT, b'{"action":"joinGroup","group":"moon"}'))
            assert two.receive() == (TEXT, b"joined moon")
            two.say(frame(PING, b"there?"))
            assert two.receive() == (0xA, b"there?")
            assert node.metric("gatecast_group_members") == node.metric("gatecast_channels") == 1
            assert node.metric("gatecast_connections") == 3
            assert request(node.address, "DELETE", f"/beta/@connections/{own}")[0].status == 204
            assert three.receive_close()[0] == 1000
            three.say(frame(CLOSE, close_payload(1000)))
            assert three.is_ended_by_server()
        two.say(frame(CLOSE, close_payload(1000)))
        assert two.receive_close()[0] == 1000
        assert two.is_ended_by_server()
        two.raw.close()
        eventually(lambda: node.metric("gatecast_connections") == 1)

        totals = {
            "gatecast_connections_opened_total": 3,
            "gatecast_connections_closed_total": 2,
            # One Forbidden, ten broadcasts, one join.
            "gatecast_messages_received_total": 12,
            "gatecast_messages_published_total": 10,
            # The answers to Forbidden, join and ping, ten broadcasts to three, two close frames.
            "gatecast_messages_sent_total": 35,
            "gatecast_received_bytes_total": sum(client.sent for client in clients),
            "gatecast_sent_bytes_total": sum(client.received for client in clients),
            "gatecast_route_requests_total": 12,
            "gatecast_group_members": 0,
            "gatecast_channels": 0,
            "gatecast_outbox_bytes": 0,
            "gatecast_messages_dropped_total": 0,
        }
        assert settled(node, totals) == totals
        closed = {(s.labels["initiator"], s.labels["reason"]): s.value for s in node.samples()
                  if s.name == "gatecast_connections_closed_total" and s.value}
        assert closed == {("server", "deleted"): 1, ("client", "client"): 1}
        assert node.metric("gatecast_management_requests_total", operation="delete", status="204") == 1


def test_a_hundred_clients_are_counted_in_and_out(node):
    sockets = [Socket(node.address).upgrade() for _ in range(100)]
    assert node.metric("gatecast_connections") == node.metric("gatecast_connections_opened_total") == 100
    for number, client in enumerate(sockets):
        client.reset() if number % 2 else client.raw.close()
    eventually(lambda: node.metric("gatecast_connections") == 0)
    assert node.metric("gatecast_connections_closed_total", code="1006", initiator="client", reason="lost") == 100


def test_the_public_port_shows_no_metrics(node):
    for path in ("/metrics", "/live", "/ready", "/info", "/beta/metrics"):
        assert request(node.address, "GET", path)[0].status == 403
