"""The manifests are what Kubernetes and the custom resources' own projects say they must be."""

import json
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest

from k8s import OVERLAYS, overlay, with_component

# The first that knows `preStop.sleep`, the newest, and between them.
VERSIONS = ("1.30", "1.32", "1.34", "1.37")
CRDS = Path(__file__).parent / "crds"
CUSTOM = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "httproutes",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "prometheusrules",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "servicemonitors",
}


def schema_of(each):
    name = CUSTOM.get((each["apiVersion"], each["kind"]))
    return name and json.loads((CRDS / f"{name}.json").read_text())


def check(objects, version):
    for each in objects:
        if schema := schema_of(each):
            jsonschema.validate(each, schema)
        else:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_valid(name, version):
    check(overlay(name), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_route_of_the_gateway_api_is_valid(version, tmp_path):
    objects = with_component(tmp_path, "gateway")
    assert "HTTPRoute" in {each["kind"] for each in objects}
    check(objects, version)


@pytest.mark.parametrize("kind", ["Deployment", "Service", "NetworkPolicy"])
def test_a_misspelt_field_is_found(kind):
    (each, *_) = [each for each in overlay("trial") if each["kind"] == kind]
    broken = each | {"spec": each["spec"] | {"replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        check([broken], VERSIONS[0])


def test_a_misspelt_field_of_a_custom_resource_is_found(tmp_path):
    (route,) = [each for each in with_component(tmp_path, "gateway") if each["kind"] == "HTTPRoute"]
    broken = route | {"spec": route["spec"] | {"hostname": ["ws.example.com"]}}
    with pytest.raises(jsonschema.ValidationError):
        check([broken], VERSIONS[0])
