"""The list of functions: what their processes do, on every node."""

import json

from gatecast import eventually
from listing import call

CODE = """
exports.handler = async () => {
  await new Promise((go) => setTimeout(go, 25000));
  return { statusCode: 200 };
};
"""
CONFIG = """
[functions.slow]
runtime = "node"
handler = "slow.handler"
code = "{folder}"
min_processes = 1
max_processes = 1

[functions.broken]
runtime = "node"
handler = "broken.handler"
code = "{folder}"

[functions.away]
runtime = "command"
command = ["./not-there"]
code = "{folder}"

[routes.slow]
integration = "function"
function = "slow"

[routes.broken]
integration = "function"
function = "broken"
"""


def listed(node):
    answer = call(node, "GET", "@functions")
    assert answer["incomplete"] == []
    return answer["functions"]


def named(rows, name):
    [row] = [row for row in rows if row["name"] == name]
    return row


def test_functions_are_listed_with_what_they_do(start, tmp_path):
    (tmp_path / "slow.js").write_text(CODE)
    (tmp_path / "broken.js").write_text('throw new Error("\\u001b[31mno table\\n" + "x".repeat(100000));')
    node = start(CONFIG.format(folder=tmp_path))
    idle = {"starting": 0, "idle": 1, "busy": 0, "ending": 0}
    eventually(lambda: named(listed(node), "slow")["processes"] == idle)
    rows = listed(node)
    assert [row["name"] for row in rows] == ["away", "broken", "slow"]
    assert [row["runtime"] for row in rows] == ["command", "node", "node"]
    assert rows[0] == {"node": rows[0]["node"], "name": "away", "runtime": "command", "inFlight": 0, "waiting": 0,
                       "processes": {"starting": 0, "idle": 0, "busy": 0, "ending": 0}, "initError": None}
    with node.connect() as client:
        for action in ("slow", "slow", "slow", "broken"):
            client.send(json.dumps({"action": action}))
        slow = eventually(lambda: (row := named(listed(node), "slow"))["waiting"] == 2 and row)
        assert (slow["processes"], slow["inFlight"]) == (idle | {"idle": 0, "busy": 1}, 1)
        # What is thrown is told, and no more of it than fits.
        error = eventually(lambda: named(listed(node), "broken")["initError"])
        assert "no table" in error and len(error) <= 500


def test_the_functions_of_all_nodes_are_listed(start_on, redis, tmp_path):
    (tmp_path / "slow.js").write_text(CODE)
    (tmp_path / "broken.js").write_text("exports.handler = async () => 1;")
    nodes = start_on(redis, count=2, config=CONFIG.format(folder=tmp_path))
    for node in nodes:
        rows = eventually(lambda: len(rows := listed(node)) == 6 and rows)
        assert len({row["node"] for row in rows}) == 2

