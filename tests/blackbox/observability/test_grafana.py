"""Every query of every dashboard, asked of a real Prometheus after a run with everything in it, and drawn."""

import math
import os
import re
from pathlib import Path

import pytest
import yaml

from dashboard import Dashboard
from draw import draw
from gatecast import ROOT
from observed import KUBERNETES, LABELS, PLAIN, Run

pytestmark = pytest.mark.timeout(240)

FILES = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
NAMES = [file.stem for file in FILES]
# Where the documents' pictures are (docs/images); they are written anew only when asked for.
IMAGES = os.environ.get("GATECAST_IMAGES")
IMAGE_BYTES = 200_000
# Panels that show nothing but zero in that run.
CALM = {"Runtime queue"}
# Queries of which that holds, though not of their panels.
# The process's CPU is counted in whole seconds, of which a node may need none on a machine that is quiet.
CALM_QUERIES = {"process_cpu_seconds_total", "gatecast_http_accept_errors_total", "gatecast_messages_lost_total",
                "gatecast_proxy_headers_refused_total", "gatecast_messages_published_local_total",
                "gatecast_http_connections_cut_total", "gatecast_http_requests_refused_total",
                "gatecast_senders_slowed_total", "gatecast_senders_slowed_seconds_total", "gatecast_redis_refusals_total",
                "gatecast_redis_foreign_total", "gatecast_redis_memory_limit_bytes", "gatecast_panics_total",
                "gatecast_log_lines_lost_total", "gatecast_new_channels_refused_total",
                "gatecast_disconnects_retried_total", "gatecast_disconnects_given_up_total",
                "gatecast_function_log_lines_lost_total", "gatecast_access_log_lines_lost_total"}
# Metrics that no panel shows, and why.
NOT_SHOWN = dict.fromkeys(["gatecast_spans_exported_total", "gatecast_spans_dropped_total"],
                          "only where spans are exported, for which the program that runs here was not built")
# Of a process that is no node; its own test says that they are there.
KEEPER = {f"gatecast_deletion_cost_{name}" for name in ("rounds_total", "patches_total", "faults_total", "pods")}
NOT_SHOWN |= dict.fromkeys(KEEPER, "an alert watches what is done in the background of a scale-down")
NOT_SHOWN |= dict.fromkeys(
    ["gatecast_credentials_fetched_total"], "calls without credentials are unreachable, which is shown of each back end")
NOT_SHOWN |= dict.fromkeys(
    ["gatecast_reloads_total", "gatecast_config_last_reload_successful", "gatecast_config_applied_timestamp_seconds"],
    "an alert watches whether a configuration was refused")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("run"))
    try:
        run.live()
        yield run
    finally:
        run.stop()


def metrics_of(text):
    return set(re.findall(r"\b(?:gatecast|process)_[a-z0-9_]+", text))


def bare(name):
    return re.sub(r"_(bucket|count|sum)$", "", name)


def numbers(series):
    return [value for one in series for value in one.values if not math.isnan(value)]


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_query_has_an_answer_and_shows_something(run, file):
    """With the labels of a plain Prometheus: no cluster, no namespace, no pod."""
    board = Dashboard(file, job=PLAIN)
    faults = []
    for panel in board.panels:
        for query in board.queries(panel):
            found = numbers(run.watch.api.range(query, run.start, run.end))
            if not found:
                faults.append(f"no data: {query.where}: {query.expression}")
            # What is asked for one moment, the end, may be calm by then.
            may_be_calm = query.is_instant or panel["title"] in CALM or metrics_of(query.expression) & CALM_QUERIES
            if not any(found) and not may_be_calm:
                faults.append(f"nothing but zero: {query.where}: {query.expression}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_query_has_an_answer_for_a_pod_of_a_cluster(run, file):
    board = Dashboard(file, job=KUBERNETES, pod=["node-1", "node-5"], **LABELS)
    queries = [query for panel in board.panels for query in board.queries(panel)]
    empty = [query for query in queries if not numbers(run.watch.api.range(query, run.start, run.end))]
    assert not empty, "\n".join(f"{query.where}: {query.expression}" for query in empty)


def test_variables_offer_what_there_is(run):
    board = Dashboard(FILES[0])
    offered = {name: set(run.watch.api.label_values(label, selector))
               for name, selector, label in board.label_queries()}
    assert offered["cluster"] == {LABELS["cluster"]}
    assert offered["namespace"] == {LABELS["namespace"]}
    assert offered["job"] == {PLAIN, KUBERNETES}
    assert offered["pod"] == {f"node-{number}" for number in range(1, 6)}
    assert {f"node-{number}:9090" for number in range(1, 6)} < offered["instance"]
    assert all(Dashboard(file).model["templating"] == board.model["templating"] for file in FILES)


def test_rollouts_are_marked(run):
    """Starts of the nodes that came later, and the one drain, are annotations."""
    started, drained = Dashboard(FILES[0], job=PLAIN).annotations()
    found = {one.labels["instance"]: one for one in run.watch.api.range(started, run.start, run.end)}
    assert {"node-4:9090", "node-5:9090"} <= set(found)
    assert found["node-5:9090"].name == f"node-5:9090 runs {found['node-5:9090'].labels['version']}"
    (drain,) = run.watch.api.range(drained, run.start, run.end)
    assert drain.labels["instance"] == f"{run.drained}:9090"


def test_rules_are_evaluated_on_the_run(run):
    recorded = yaml.safe_load((ROOT / "deploy/prometheus/recording.yaml").read_text())["groups"][0]["rules"]
    for rule in recorded:
        found = run.watch.api.ask("query", query=rule["record"], time=run.end)["result"]
        assert {one["metric"]["job"] for one in found} == {PLAIN, KUBERNETES}, rule["record"]
    firing = run.watch.api.ask("query", query='ALERTS{alertstate="firing"}', time=run.end)["result"]
    names = {one["metric"]["alertname"] for one in firing}
    assert "GatecastNodeDied" in names
    assert "GatecastAbsent" not in names
    groups = run.watch.api.ask("rules")["groups"]
    assert [rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "ok"] == []


def test_metrics_named_in_dashboards_and_rules_are_there(run):
    there = {bare(sample.name) for sample in run.nodes["node-5"].samples()}
    for file in [*FILES, *(ROOT / "deploy/prometheus").glob("*.yaml")]:
        text = re.sub(r"\bjob\w*:[\w:]+", "", file.read_text())
        text = re.sub(r"name: \S+", "", text)
        assert {bare(name) for name in metrics_of(text)} - KEEPER <= there, file


def test_every_metric_of_the_readme_is_shown():
    shown = {bare(name) for file in FILES for name in metrics_of(file.read_text())}
    table = (ROOT / "README.md").read_text().split("\n### Metrics\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `(gatecast_\w+)`", table, re.M))
    assert len(listed) > 30
    assert listed - shown == set(NOT_SHOWN)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_dashboards_are_drawn(run, file, tmp_path):
    picture = draw(Dashboard(file, job=PLAIN), run.watch.api, run.start, run.end)
    assert picture.startswith(b"\x89PNG")
    assert 20_000 < len(picture) < IMAGE_BYTES
    (Path(IMAGES or tmp_path) / f"grafana-{file.stem}.png").write_bytes(picture)
