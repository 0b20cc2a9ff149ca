"""Rules of Prometheus: right in form, tried for every alert, and explained in the runbook."""

import re
import subprocess

import pytest
import yaml

from gatecast import ROOT

RULES = ROOT / "deploy/prometheus"
CASES = ROOT / "tests/promtool/alerts.yaml"
ALERTS = [rule for group in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
NAMES = [rule["alert"] for rule in ALERTS]


def promtool(*words):
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr


def sections():
    """The runbook's text below each heading."""
    parts = re.split(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def test_rules_and_configuration_are_right_in_form():
    promtool("check", "rules", RULES / "recording.yaml", RULES / "alerts.yaml")
    promtool("check", "config", RULES / "prometheus.yaml")


@pytest.mark.timeout(180)
def test_alerts_fire_and_are_quiet():
    promtool("test", "rules", CASES)


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_case_of_each_kind(name):
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]
             if case["alertname"] == name]
    assert sorted(bool(case["exp_alerts"]) for case in cases) == [False, True]


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_every_alert_says_what_is_wrong_and_where_help_is(rule):
    assert rule["labels"]["severity"] in ("page", "ticket")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    page, anchor = notes["runbook_url"].split("#")
    assert page.endswith("/docs/runbook.md")
    assert anchor == rule["alert"].lower()
    section = sections()[rule["alert"]]
    parts = re.findall(r"^\*\*(\w+)\.?\*\*", section, re.M)
    assert parts == ["Meaning", "Impact", "Look", "Do"]
    assert section.lstrip().startswith(f"*{rule['labels']['severity']}*")


def test_the_runbook_has_no_section_without_an_alert():
    assert list(sections()) == NAMES


def test_links_within_the_runbook_lead_somewhere():
    text = (ROOT / "docs/runbook.md").read_text()
    anchors = {name.lower() for name in NAMES}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
    for path in re.findall(r"\]\((\.\./[^)#]+)\)", text):
        assert (ROOT / "docs" / path).exists(), path
