"""Dashboards are what Grafana's own types say, and people can find their way: descriptions, links, a place for each panel."""

import json
import re
import subprocess
from collections import Counter

import pytest
import yaml

from gatecast import ROOT
from terminal import NODE_MODULES

FILES = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
# The links of alerts and of dashboards lead to the same place.
RUNBOOK = "https://example.com/gatecast/docs/runbook.md"
OPTIONS = "--noEmit --strict --skipLibCheck --module esnext --moduleResolution bundler --target es2022".split()

# One of each kind, to see that the check sees.
FAULTS = {
    "type": lambda board: board.update(schemaVersion="41"),
    "key": lambda board: board["panels"][0].update(titel="misspelt"),
    "option": lambda board: board["panels"][0]["options"].update(graphMode="bars"),
    "threshold": lambda board: board["panels"][0]["fieldConfig"]["defaults"]["thresholds"].update(mode="relative"),
    "query": lambda board: board["panels"][0]["targets"][0].pop("expr"),
    "variable": lambda board: board["templating"]["list"][1].update(refresh=7),
}


def faults(directory, boards):
    """What TypeScript says of the texts of dashboards, by their names; lines are those of the files."""
    for name, text in boards.items():
        source = f"export const board: Checked = {text};\nimport type {{ Checked }} from './dashboard';\n"
        (directory / f"{name}.ts").write_text(source)
    (directory / "dashboard.ts").write_bytes((ROOT / "tests/render/dashboard.ts").read_bytes())
    (directory / "node_modules").symlink_to(NODE_MODULES)
    line = ["node", NODE_MODULES / "typescript/bin/tsc", *OPTIONS, *(f"{name}.ts" for name in boards)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=directory)
    said = re.findall(r"^(\w+)\.ts\(\d+,\d+\): error .*", done.stdout, re.M)
    assert bool(said) == (done.returncode != 0), done.stdout + done.stderr
    return dict(Counter(said)), done.stdout


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def board(request):
    return json.loads(request.param.read_text())


def test_dashboards_have_the_types_of_grafana(tmp_path):
    found, said = faults(tmp_path, {file.stem: file.read_text() for file in FILES})
    assert not found, said


def test_faults_of_a_dashboard_are_found(tmp_path):
    boards = {}
    for name, change in FAULTS.items():
        board = json.loads((ROOT / "deploy/grafana/dashboards/overview.json").read_text())
        change(board)
        boards[name] = json.dumps(board)
    assert set(faults(tmp_path, boards)[0]) == set(FAULTS)


def test_every_panel_is_described_and_has_its_place(board):
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in columns for y in lines}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies upon another panel"
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            defaults = panel["fieldConfig"]["defaults"]
            assert panel["type"] == "heatmap" or defaults["thresholds"]["steps"], panel["title"]
            assert panel["type"] in ("table", "state-timeline", "heatmap") or defaults["unit"], panel["title"]
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))


def test_dashboards_lead_to_each_other_and_to_the_runbook(board):
    others, runbook = board["links"]
    assert (others["type"], others["tags"]) == ("dashboards", board["tags"])
    assert (runbook["type"], runbook["url"]) == ("link", "${runbook}")
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["runbook"]["query"] == RUNBOOK
    assert list(variables) == ["datasource", "cluster", "namespace", "job", "pod", "instance", "runbook"]
    for name in ("cluster", "namespace", "job", "pod", "instance"):
        assert variables[name]["multi"] and variables[name]["includeAll"] and variables[name]["allValue"] == ".*"


def test_every_query_takes_its_data_source_and_variables(board):
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert 'namespace=~"$namespace",job=~"$job"' in target["expr"]


def test_provisioning_finds_prometheus_and_the_dashboards():
    folder = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())["global"]["scrape_interval"]
    assert source["type"] == "prometheus" and source["jsonData"]["timeInterval"] == scrape
    (provider,) = yaml.safe_load((folder / "dashboards/gatecast.yaml").read_text())["providers"]
    assert provider["type"] == "file" and not provider["allowUiUpdates"]
    assert len({json.loads(file.read_text())["uid"] for file in FILES}) == len(FILES) == 5
