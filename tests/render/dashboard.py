"""A Grafana dashboard as its JSON says: panels, queries with the variables filled in, and what Prometheus answers."""

import json
import math
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ALL = ".*"


@dataclass(frozen=True)
class Query:
    """One query of a panel, an annotation or a variable, as Grafana sends it."""

    where: str
    expression: str
    legend: str = ""
    is_instant: bool = False
    ref: str = "A"


@dataclass(frozen=True)
class Series:
    name: str
    labels: dict
    times: list
    values: list
    ref: str

    @property
    def last(self):
        return next((value for value in reversed(self.values) if not math.isnan(value)), math.nan)

    @property
    def highest(self):
        return max((value for value in self.values if not math.isnan(value)), default=math.nan)


class Dashboard:
    def __init__(self, path, interval="4s", **chosen):
        """`chosen`: values of variables, a list where several are; the others are at their default."""
        self.name = Path(path).stem
        self.model = json.loads(Path(path).read_text())
        self.variables = {one["name"]: one for one in self.model["templating"]["list"]}
        self.values = {name: self._value(one, chosen.get(name)) for name, one in self.variables.items()}
        self.values |= {"__rate_interval": interval}
        self.panels = self.model["panels"]

    @staticmethod
    def _value(variable, chosen):
        if chosen is not None:
            # As Grafana writes several values into a regular expression.
            return chosen if isinstance(chosen, str) else f"({'|'.join(chosen)})"
        return variable["allValue"] if variable.get("includeAll") else variable["query"]

    def fill(self, text):
        """Replaces `$name` and `${name}`; an unknown name is a fault of the dashboard."""
        return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda found: self.values[found[1] or found[2]], text)

    def queries(self, panel):
        where = f"{self.name}: {panel['title']}"
        return [Query(where, self.fill(target["expr"]), target["legendFormat"], target["instant"], target["refId"])
                for target in panel.get("targets", [])]

    def annotations(self):
        return [Query(f"{self.name}: annotation {one['name']}", self.fill(one["expr"]), one["textFormat"])
                for one in self.model["annotations"]["list"] if not one.get("builtIn")]

    def label_queries(self):
        """The label and the selector of each variable that asks Prometheus."""
        for one in self.variables.values():
            if one["type"] == "query":
                selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"]["query"]).groups()
                yield one["name"], self.fill(selector), label


class Prometheus:
    def __init__(self, url):
        self.url = url

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=20) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters}: {error.read().decode()}") from None

    def label_values(self, label, selector):
        return self.ask(f"label/{label}/values", **{"match[]": selector})

    def range(self, query, start, end, step=1):
        """What a panel shows; an instant query has one point, at the end."""
        if query.is_instant:
            found = self.ask("query", query=query.expression, time=end)["result"]
            points = [(one["metric"], [one["value"]]) for one in found]
        else:
            found = self.ask("query_range", query=query.expression, start=start, end=end, step=step)["result"]
            points = [(one["metric"], one["values"]) for one in found]
        return [Series(legend(query.legend, labels), labels, [time for time, _ in values],
                       [float(value) for _, value in values], query.ref) for labels, values in points]


def legend(form, labels):
    """The name of a series; without a form, its labels."""
    if form == "__auto":
        shown = ", ".join(value for name, value in labels.items() if name not in ("__name__", "job"))
        return shown or labels.get("__name__", "")
    filled = re.sub(r"\{\{ ?(\w+) ?\}\}", lambda found: labels.get(found[1], ""), form)
    return " ".join(filled.split())
