"""Functions in a configuration: their tables, and two-way routes of the same names."""

import json
import sys
from pathlib import Path

from terminal import NODE_MODULES

SUPPORT = Path(__file__).parent


def toml(value):
    """A value as TOML writes it; JSON is the same but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(name)} = {toml(one)}" for name, one in value.items()) + " }"
    return json.dumps(value)


def function(name, runtime, handler=None, code=SUPPORT, **settings):
    """A function, and the route that calls it."""
    if runtime == "node":
        settings["environment"] = {"NODE_PATH": str(NODE_MODULES)} | settings.get("environment", {})
    if runtime == "python":
        settings.setdefault("command", [sys.executable])
    settings |= {"runtime": runtime, "code": str(code)} | ({"handler": handler} if handler else {})
    lines = [f"{key} = {toml(value)}" for key, value in settings.items()]
    return "\n".join([f"[functions.{name}]", *lines, "", route(name, name)])


def route(key, name, two_way=True):
    tail = "two_way = true\n" if two_way else ""
    return f'[routes.{toml(key)}]\nintegration = "function"\nfunction = "{name}"\n{tail}'
