"""The manifests of `k8s/`, rendered as `kubectl apply -k` does, and what is read from them."""

import base64
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from gatecast import ROOT

K8S = ROOT / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
# The one that comes with the Python packages: Debian's has a kustomize that is too old.
KUBECTL = Path(sys.executable).with_name("kubectl")
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
BYTES = {"Mi": 1 << 20, "Gi": 1 << 30}


@functools.cache
def render(folder):
    """All objects of a kustomization."""
    line = [KUBECTL, "kustomize", folder]
    output = subprocess.run(line, check=True, capture_output=True, text=True, timeout=60)
    assert not output.stderr, output.stderr
    return [document for document in yaml.safe_load_all(output.stdout) if document]


def overlay(name):
    return render(K8S / "overlays" / name)


def with_component(directory, name):
    """The base with a component that no overlay has."""
    relative = os.path.relpath(K8S, directory.resolve())
    kustomization = {"resources": [f"{relative}/base"], "components": [f"{relative}/components/{name}"]}
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(directory)


def of_kind(objects, kind):
    return [each for each in objects if each["kind"] == kind]


def named(objects, kind, name="gatecast"):
    (found,) = [each for each in of_kind(objects, kind) if re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", each["metadata"]["name"])]
    return found


def node_pod(objects):
    return named(objects, "Deployment")["spec"]["template"]


def node_container(objects):
    (container,) = node_pod(objects)["spec"]["containers"]
    return container


def secret_values(secret):
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


def environment(container, pod_name, secrets):
    """The variables of a container, with what each refers to. `secrets` holds the values of each Secret by its name."""
    values = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "metadata.name"
            values[variable["name"]] = pod_name
        elif "secretKeyRef" in source:
            values[variable["name"]] = secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
        else:
            values[variable["name"]] = variable["value"]
    return values


def arguments(container, values):
    """The command line, with `$(NAME)` replaced as Kubernetes does."""
    return [re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], word) for word in container["args"]]


def seconds(text):
    """`1m30s`, as the configuration has it."""
    parts = re.findall(r"(\d+)(ms|[smh])", text)
    assert "".join(map("".join, parts)) == text, text
    return sum(int(number) * UNITS[unit] for number, unit in parts)


def quantity(text):
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()
    return int(number) * BYTES[unit]


def matches(selector, labels):
    """Whether a selector with only `matchLabels` fits."""
    assert selector.keys() == {"matchLabels"}
    return selector["matchLabels"].items() <= labels.items()
