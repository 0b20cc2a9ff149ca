"""Files of `deploy/` that are read by programs which the tests cannot run: each is checked by what can read it here."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from gatecast import GATECAST, ROOT, command
from k8s import seconds

DEPLOY = ROOT / "deploy"
WORKFLOWS = sorted((ROOT / ".github/workflows").iterdir())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
NODES = ("gatecast-1", "gatecast-2", "gatecast-3")
UNIT = (DEPLOY / "systemd/gatecast.service").read_text()
# As the README has them.
WINDOW_SECONDS, GRACE_SECONDS, EXIT_SECONDS = 30, 10, 10


def tool(name):
    """A program that comes with the Python packages."""
    return Path(sys.executable).with_name(name)


def run(*words):
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_dockerfile_pleases_its_linter():
    run(tool("hadolint"), DEPLOY / "Dockerfile")


def test_the_compose_file_and_the_workflows_have_the_form_they_must_have():
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)


def test_the_workflows_run_what_exists():
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            words = [word for step in job["steps"] for word in re.split(r"[\s()\"']+", step.get("run", ""))]
            for word in words:
                if re.match(r"(\.ci|tests|deploy|k8s)/", word):
                    assert (ROOT / word).exists(), word


def variables(service):
    """Of a service, with the defaults of what the caller's environment may set."""
    values = SERVICES[service]["environment"]
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in values.items()}


@pytest.mark.parametrize("service", NODES)
def test_nodes_of_compose_have_valid_settings_and_no_rights(service, tmp_path):
    values = variables(service)
    image = {"GATECAST_LISTEN": "0.0.0.0:8080", "GATECAST_ADMIN_LISTEN": "0.0.0.0:9090"}
    result = command("check", **image, **values)
    assert (result.returncode, result.stderr) == (0, "")
    assert "is not a setting" not in result.stdout
    node = SERVICES[service]
    assert node["read_only"] and node["cap_drop"] == ["ALL"] and node["security_opt"] == ["no-new-privileges:true"]
    assert node["healthcheck"]["test"] == ["CMD", "/gatecast", "probe", "ready"]
    whole = seconds(values["GATECAST_DRAIN_NOTICE"]) + WINDOW_SECONDS + GRACE_SECONDS + EXIT_SECONDS
    assert seconds(node["stop_grace_period"]) == whole
    # As HAProxy names it where nothing else is said.
    assert f"gatecast-{service[-1]}:8080" in (DEPLOY / "haproxy/haproxy.cfg").read_text()


def test_compose_mounts_what_exists_and_pins_what_it_pulls():
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_dir(), volume
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "loopback, until somebody says otherwise"


def test_haproxy_of_compose_knows_its_variables():
    text = (DEPLOY / "haproxy/haproxy.cfg").read_text()
    for name in SERVICES["haproxy"]["environment"]:
        assert f"${{{name}" in text


def test_prometheus_of_compose_scrapes_the_nodes_and_haproxy():
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    targets = [target for job in scraped for group in job["static_configs"] for target in group["targets"]]
    aliases = {name: SERVICES[name]["networks"]["default"]["aliases"][0] for name in NODES}
    haproxy = f"haproxy{SERVICES['haproxy']['environment']['GATECAST_STATS']}"
    assert targets == [*(f"{aliases[name]}:9090" for name in NODES), haproxy]


def test_grafana_of_compose_finds_prometheus_and_the_dashboards():
    folder = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in SERVICES
    (provider,) = yaml.safe_load((folder / "dashboards/gatecast.yaml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"


def unit_value(name):
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT, re.M)
    return value


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    # Verification wants the program that is to be started.
    path = tmp_path / "gatecast.service"
    path.write_text(UNIT.replace("/usr/local/bin/gatecast", str(GATECAST.resolve())))
    assert run("systemd-analyze", "verify", path) == ""


def test_the_unit_exposes_little(tmp_path):
    shown = run("systemd-analyze", "security", "--offline=true", "--json=short", DEPLOY / "systemd/gatecast.service")
    exposed = {row["json_field"]: row["exposure"] for row in json.loads(shown) if row["set"] is False and row["exposure"]}
    # It is a server: it needs the network, from anywhere. The rest would be in its way, or adds nothing with DynamicUser.
    assert exposed.keys() <= {
        "RootDirectoryOrRootImage", "PrivateNetwork", "IPAddressDeny", "RestrictAddressFamilies_AF_INET_INET6",
        "RestrictAddressFamilies_AF_UNIX", "PrivateMounts", "DeviceAllow", "ProcSubset", "SystemCallFilter_resources",
    }


def test_the_unit_waits_for_the_drain_and_starts_what_there_is(tmp_path):
    assert int(unit_value("TimeoutStopSec")) == WINDOW_SECONDS + GRACE_SECONDS + EXIT_SECONDS
    assert int(unit_value("LimitNOFILE")) > 100_000
    program, serve, option, path = shlex.split(unit_value("ExecStart"))
    assert (program, serve, option, path) == ("/usr/local/bin/gatecast", "serve", "--config", "/etc/gatecast/gatecast.toml")
    assert unit_value("RestartPreventExitStatus") == "64"


def test_the_images_rust_is_the_one_that_is_asked_for():
    wanted = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    assert f"FROM rust:{wanted}-slim-bookworm AS build" in (DEPLOY / "Dockerfile").read_text()
