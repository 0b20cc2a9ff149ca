"""Spans of sampled messages, taken by a collector that knows nothing of us but the standard's own protobuf."""

import gzip
import hashlib
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import gatecast
from backend import OK, BackEnd, result
from cluster import JOIN_MOON, clients_of, metric, publish
from gatecast import TARGET, ask, eventually, request
from listing import call

# Built with all features by the Rust tests.
WITH_FEATURE = TARGET / "debug/gatecast"
CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{CALLER[0]}-{CALLER[1]}-01"}


class Collector:
    """Takes spans over HTTP; may hold its answers back."""

    def __init__(self):
        self.spans, self.keys, self.answers = [], set(), threading.Event()
        self.answers.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                    collector.keys.add(self.headers["X-Key"])
                collector.answers.wait()
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        collector.spans += [(attributes, span) for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def named(self, *names):
        return [(resource["service.instance.id"], span) for resource, span in list(self.spans) if span.name in names]

    def close(self):
        self.answers.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(autouse=True)
def with_feature(monkeypatch):
    monkeypatch.setattr(gatecast, "GATECAST", WITH_FEATURE)


def standard(url, sampler="always_on", **more):
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_TRACES_SAMPLER": sampler, **more}


@contextmanager
def moon(start_on, redis, environment):
    """Two nodes with names of their own, and a member of a group on each."""
    nodes = [start_on(redis, count=1, GATECAST_NODE_NAME=name, **environment)[0] for name in ("a", "b")]
    with clients_of(nodes) as clients:
        assert [ask(client, JOIN_MOON) for client in clients] == ["joined moon"] * 2
        yield nodes, clients


def trace_of(channel, epoch, offset):
    """As the operator's guide has it."""
    return hashlib.sha256(b"\0".join([channel.encode(), epoch.encode(), offset.to_bytes(8, "big")])).hexdigest()[:32]


def is_sampled(trace, ratio):
    """As the standard's samplers do it."""
    return (int(trace[16:], 16) >> 1) < ratio * 2**63


def by_trace(spans):
    traces = {}
    for node, span in spans:
        traces.setdefault(span.trace_id.hex(), []).append((node, span))
    return traces


def test_the_spans_of_a_message_are_one_trace_on_all_nodes(collector, redis, start_on):
    environment = standard(collector.url, OTEL_SERVICE_NAME="relay", OTEL_RESOURCE_ATTRIBUTES="team=a%20b",
                           OTEL_EXPORTER_OTLP_HEADERS="x-key=hidden", OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    with moon(start_on, redis, environment) as (nodes, clients):
        status, offset = publish(nodes[0], "@groups/moon", "Major Tom")
        assert status == 200 and [client.recv(timeout=10) for client in clients] == ["Major Tom"] * 2
        epoch = call(nodes[0], "GET", "@groups/moon/history")["epoch"]
        trace = trace_of("gatecast:{group:moon}", epoch, offset)
        eventually(lambda: len(by_trace(collector.named("broker", "queue", "socket")).get(trace, [])) == 5)
    spans = by_trace(collector.named("broker", "queue", "socket"))[trace]
    assert sorted((node, span.name) for node, span in spans) == [
        ("a", "broker"), ("a", "queue"), ("a", "socket"), ("b", "queue"), ("b", "socket")]
    [root] = [span for _, span in spans if span.name == "broker"]
    assert (root.kind, root.parent_span_id) == (Span.SPAN_KIND_PRODUCER, b"")
    assert len({span.span_id for _, span in spans}) == 5
    for name in "ab":
        queue, written = (next(span for node, span in spans if (node, span.name) == (name, stage)) for stage in ("queue", "socket"))
        assert queue.parent_span_id == written.parent_span_id == root.span_id
        assert root.start_time_unix_nano <= queue.start_time_unix_nano <= queue.end_time_unix_nano
        # Each is put down by the clock of the day, a moment later than the one before.
        assert abs(written.start_time_unix_nano - queue.end_time_unix_nano) < 10**9
        assert written.start_time_unix_nano <= written.end_time_unix_nano
    assert collector.keys == {"hidden"} and not any("hidden" in node.log() for node in nodes)
    resource = collector.spans[0][0]
    assert (resource["service.name"], resource["team"]) == ("relay", "a b") and resource["service.version"]
    said = b"".join(span.SerializeToString() for _, span in collector.spans)
    assert b"Tom" not in said and b"moon" not in said
    [connects] = {span.attributes[0].value.int_value for _, span in collector.named("$connect")}
    assert connects == 101


def test_nodes_sample_the_same_messages_and_as_many_as_they_are_told(collector, redis, start_on):
    environment = standard(collector.url, "parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.25")
    with moon(start_on, redis, environment) as (nodes, clients):
        offsets = [publish(nodes[number % 2], "@groups/moon", f"{number}")[1] for number in range(200)]
        epoch = call(nodes[0], "GET", "@groups/moon/history")["epoch"]
        traces = {trace_of("gatecast:{group:moon}", epoch, offset) for offset in offsets}
        expected = {trace for trace in traces if is_sampled(trace, 0.25)}
        assert 20 < len(expected) < 80
        # At the end of a node nothing is held back any more.
        for node, client in zip(nodes, clients):
            assert [client.recv(timeout=10) for _ in offsets] == [f"{number}" for number in range(200)]
            client.close()
            node.is_ended_by_test = True
            node.signal(15)
            assert node.wait() == 0
    spans = collector.named("broker", "queue", "socket")
    # A call that is sampled has a span of its own for what the broker did.
    found = by_trace((node, span) for node, span in spans if span.name != "broker" or not span.parent_span_id)
    assert set(found) == expected
    assert {len(spans) for spans in found.values()} == {5}


def test_a_caller_that_is_sampled_sees_its_call_and_where_the_message_went(collector, redis, start_on):
    with moon(start_on, redis, standard(collector.url, "always_off")) as (nodes, clients):
        assert request(nodes[0].address, "POST", "/beta/@groups/moon", b"x", TRACEPARENT)[0].status == 200
        assert request(nodes[0].address, "POST", "/beta/@groups/moon", b"x", {"traceparent": TRACEPARENT["traceparent"][:-1] + "0"})
        assert publish(nodes[0], "@groups/moon", "y")[0] == 200
        eventually(lambda: len(collector.spans) >= 2)
        with_message = start_on(redis, count=1, GATECAST_NODE_NAME="c", **standard(collector.url))[0]
        assert request(with_message.address, "POST", "/beta/@groups/moon", b"z", TRACEPARENT)[0].status == 200
        eventually(lambda: len([span for node, span in collector.named("publish", "broker") if node == "c"]) == 3)
    called, accepted = (next(span for node, span in collector.named(name) if node == "a") for name in ("publish", "broker"))
    assert len([node for node, _ in collector.named("publish", "broker", "queue", "socket") if node != "c"]) == 2
    assert (called.trace_id.hex(), called.parent_span_id.hex(), called.kind) == (*CALLER, Span.SPAN_KIND_SERVER)
    assert (accepted.trace_id, accepted.parent_span_id, len(accepted.links)) == (called.trace_id, called.span_id, 0)
    spans = [span for node, span in collector.named("broker") if node == "c"]
    own, message = sorted(spans, key=lambda span: span.trace_id.hex() != CALLER[0])
    assert [link.span_id for link in own.links] == [message.span_id]
    assert [link.trace_id.hex() for link in message.links] == [CALLER[0]] and message.trace_id.hex() != CALLER[0]


def test_strangers_do_not_decide_what_is_sampled(collector, start):
    keys = {"GATECAST_ACCESS_KEY_ID": "AKIDEXAMPLE", "GATECAST_SECRET_ACCESS_KEY": "secret enough"}
    node = start(**standard(collector.url, "always_off"), **keys)
    assert request(node.address, "POST", "/beta/@broadcast", b"x", TRACEPARENT)[0].status == 403
    with node.connect(additional_headers=TRACEPARENT):
        pass
    node.is_ended_by_test = True
    node.signal(15)
    assert node.wait() == 0 and collector.spans == []


CALLS = """
[targets.app]
url = "{url}"
timeout = "2s"

[routes."$connect"]
integration = "http"
target = "app"

[routes."$disconnect"]
integration = "http"
target = "app"

[routes.order]
integration = "http"
target = "app"
"""


def attributes(span):
    return {each.key: each.value.string_value for each in span.attributes}


def test_calls_of_back_ends_are_spans_under_what_they_are_made_for(collector, start):
    back_end = BackEnd(lambda request: result(OK, 500 if request.kind == "MESSAGE" else 200))
    node = start(CALLS.format(url=back_end.url), **standard(collector.url))
    with node.connect(additional_headers=TRACEPARENT) as client:
        assert "Internal server error" in ask(client, '{"action":"order","secret":"Tom"}')
    eventually(lambda: len(collector.named("targets.app")) == 3 and collector.named("$connect", "message", "$disconnect"))
    eventually(lambda: len(collector.named("$connect", "message", "$disconnect")) == 3)
    back_end.close()
    above = {span.name: span for _, span in collector.named("$connect", "message", "$disconnect")}
    # The client's trace, and ours where it names none.
    assert (above["$connect"].trace_id.hex(), above["$connect"].parent_span_id.hex()) == CALLER
    assert len({span.trace_id for span in above.values()}) == 3
    host, port = back_end.address
    for request, name in zip(back_end.requests, ("$connect", "message", "$disconnect"), strict=True):
        [call] = [span for _, span in collector.named("targets.app") if span.trace_id == above[name].trace_id]
        assert (call.kind, call.parent_span_id) == (Span.SPAN_KIND_CLIENT, above[name].span_id)
        assert above[name].start_time_unix_nano <= call.end_time_unix_nano
        said = attributes(call)
        assert said.pop("error.type", None) == ("failed" if name == "message" else None)
        assert said == {"http.request.method": "POST", "server.address": host, "server.port": str(port)}
        # The back end goes on from there.
        assert request.headers["traceparent"] == f"00-{call.trace_id.hex()}-{call.span_id.hex()}-01"
        assert request.headers["X-Amzn-Trace-Id"].endswith(f"Parent={call.span_id.hex()};Sampled=1")
    assert above["message"].attributes[0].value.string_value == "order"
    assert b"Tom" not in b"".join(span.SerializeToString() for _, span in collector.spans)


def test_a_client_does_not_decide_that_its_calls_are_sampled(collector, start):
    back_end = BackEnd()
    node = start(CALLS.format(url=back_end.url), **standard(collector.url, "always_off"))
    with node.connect(additional_headers=TRACEPARENT):
        pass
    eventually(lambda: len(back_end.requests) == 2)
    node.is_ended_by_test = True
    node.signal(15)
    assert node.wait() == 0 and collector.spans == []
    back_end.close()


def test_a_collector_that_is_away_costs_spans_and_nothing_else(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        node = start(**standard(f"http://127.0.0.1:{taken.getsockname()[1]}"))
        with node.connect(max_queue=None) as client:
            for number in range(50):
                assert publish(node, "@broadcast", f"{number}")[0] == 200
                assert client.recv(timeout=10) == f"{number}"
        eventually(lambda: metric(node, "gatecast_spans_dropped_total", reason="export_failed") >= 50)
        assert metric(node, "gatecast_spans_exported_total") == 0
        assert node.log().count("the collector did not take spans") == 1
        node.is_ended_by_test = True
        node.signal(15)
        assert node.wait() == 0


def test_a_collector_that_does_not_answer_fills_a_bounded_queue(collector, start):
    collector.answers.clear()
    node = start(**standard(collector.url))
    with node.connect(max_queue=None) as client:
        for number in range(1_000):
            client.send(f"message {number}")
        assert [client.recv(timeout=20) for _ in range(1_000)] == [f"message {number}" for number in range(1_000)]
        eventually(lambda: metric(node, "gatecast_spans_dropped_total", reason="queue_full") > 0)
        collector.answers.set()
        eventually(lambda: metric(node, "gatecast_spans_exported_total") > 0, within=20)
        dropped = metric(node, "gatecast_spans_dropped_total")
        eventually(lambda: len(collector.spans) + dropped >= 3_000, within=20)


def test_without_the_feature_it_is_said_that_no_spans_are_exported(collector, start, monkeypatch):
    monkeypatch.undo()
    node = start(**standard(collector.url))
    node.serves()
    eventually(lambda: "OTEL_EXPORTER_OTLP_ENDPOINT" in node.log())
    assert "gatecast_spans" not in node.page("/metrics")[1]
