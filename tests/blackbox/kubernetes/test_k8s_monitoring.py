"""What watches the nodes in Kubernetes: made from the one copy in `deploy/`, and meeting the Services."""

import json
import re
import subprocess

import yaml

from gatecast import ROOT
from k8s import K8S, matches, named, of_kind, overlay


def test_prometheus_finds_the_nodes_and_their_rules():
    objects = overlay("monitoring")
    monitor = named(objects, "ServiceMonitor")
    (service,) = [each for each in of_kind(objects, "Service") if matches(monitor["spec"]["selector"], each["metadata"]["labels"])]
    assert service["spec"]["publishNotReadyAddresses"] and service["spec"]["clusterIP"] == "None"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    # Alerts look for it.
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "gatecast"
    for name in ("alerts", "recording"):
        rules = yaml.safe_load((ROOT / f"deploy/prometheus/{name}.yaml").read_text())
        assert named(objects, "PrometheusRule", f"gatecast-{name}")["spec"] == rules


def test_prometheus_finds_the_keeper_of_costs_and_does_not_take_it_for_a_node():
    objects = overlay("monitoring")
    monitor, service = named(objects, "ServiceMonitor", "gatecast-deletion-cost"), named(objects, "Service", "gatecast-deletion-cost")
    found = [each for each in of_kind(objects, "Service") if matches(monitor["spec"]["selector"], each["metadata"]["labels"])]
    assert found == [service]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    alerts = (ROOT / "deploy/prometheus/alerts.yaml").read_text()
    assert f'up{{job="{job}"}}' in alerts
    (pattern,) = re.findall(r'up\{job=~"([^"]+)"\}', alerts)
    assert not re.fullmatch(pattern, job)


def test_the_generated_rules_are_current():
    made = subprocess.run([K8S / "components/monitoring/generate"], check=True, capture_output=True, text=True).stdout
    assert made == (K8S / "components/monitoring/rules.yaml").read_text()


def test_every_dashboard_is_there_and_small_enough_to_apply():
    found = [each for each in of_kind(overlay("monitoring"), "ConfigMap") if each["metadata"]["labels"].get("grafana_dashboard") == "1"]
    shown = {name: text for each in found for name, text in each["data"].items()}
    folder = ROOT / "deploy/grafana/dashboards"
    assert shown == {path.name: path.read_text() for path in folder.glob("*.json")} and shown
    for each in overlay("monitoring"):
        # The annotation in which `kubectl apply` keeps what it applied.
        assert len(json.dumps(each, separators=(",", ":"))) < 256 << 10, each["metadata"]["name"]
