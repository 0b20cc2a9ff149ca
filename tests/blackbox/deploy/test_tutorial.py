"""docs/tutorial.md: its own lines, typed one after the other. Only what they download is there already, and ports are free ones."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import boto3

from gatecast import ROOT, clean_environment, eventually
from ports import free_port, marks
from terminal import NODE_MODULES, Terminal

TEXT = (ROOT / "docs/tutorial.md").read_text()
FETCH, TABLE, START, TALK, PYTHON = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.M | re.S)
# What installs from registries links what the tests have installed from them.
NPM = f"""#!/bin/sh
shift
for package; do test -d "{NODE_MODULES}/$package" || exit 1; done
ln -s "{NODE_MODULES}" node_modules
"""
VENV = f"""#!/bin/sh
test "$*" = "-m venv .venv" && ln -s "{Path(sys.prefix)}" .venv
"""


class Shell:
    """Types lines into a shell in a folder, and ends what they have left running."""

    def __init__(self, folder):
        self.folder, self.groups = folder, []
        stubs = folder.parent / "bin"
        stubs.mkdir()
        for name, text in (("npm", NPM), ("python3", VENV)):
            (stubs / name).write_text(text)
            (stubs / name).chmod(0o755)
        own = {"PATH": f"{stubs}:{os.environ['PATH']}", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.environment = clean_environment(own)

    def run(self, lines, place=None):
        log = self.folder.parent / "shell.log"
        with open(log, "ab") as output:
            shell = subprocess.Popen(
                ["bash", "-ec", lines], cwd=place or self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )
        self.groups.append(shell.pid)
        assert shell.wait(timeout=60) == 0, log.read_text()

    def close(self):
        for group in self.groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                pass


def talk(node, table):
    """What the tutorial says of the conversation."""
    line, *rest = TALK.strip().splitlines()
    arguments = line.replace("ws://127.0.0.1:8080/beta", node.url).removeprefix("npx wscat ").split()
    typed = [text.removeprefix("> ") for text in rest if text.startswith("> ")]
    shown = [text for text in rest if text.startswith("< ")]
    assert line.startswith("npx wscat -c ") and len(typed) == len(shown) == 1
    with Terminal("--no-color", *arguments) as first:
        with Terminal("--no-color", *arguments) as second:
            for terminal in (first, second):
                terminal.shows("Connected (press CTRL+C to quit)")
            first.type(typed[0])
            for terminal in (first, second):
                terminal.shows(shown[0])
        eventually(lambda: node.metric("gatecast_connections") == 1)
        assert len(table.scan()["Items"]) == 2
        first.type(typed[0])
        eventually(lambda: len(table.scan()["Items"]) == 1)
    eventually(lambda: node.metric("gatecast_connections") == 0)


def test_the_tutorial_works_as_it_stands(tmp_path, start):
    chat, port = tmp_path / "chat", free_port()
    # dynalite listens at all addresses, that of the mark included.
    marks.pop().close()
    shell = Shell(chat)
    place = lambda lines: lines.replace("/tmp/chat", str(chat)).replace("8000", str(port))
    try:
        shell.run(place(FETCH), ROOT)
        table = boto3.resource(
            "dynamodb", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="any", aws_secret_access_key="any",
        ).Table("connections")
        eventually(lambda: answers(table))
        shell.run(place(TABLE))
        for form in chat.glob("*.toml"):
            form.write_text(place(form.read_text()))
        program, *arguments = START.split()
        assert (program, arguments) == ("gatecast", ["--config", "node-v2.toml"])
        talk(start(arguments=["--config", chat / arguments[1]]), table)

        shell.run(PYTHON)
        command = re.search(r"`(command = \[.*?\])` in both tables of `python.toml`", TEXT)[1]
        form = chat / "python.toml"
        form.write_text(form.read_text().replace('runtime = "python"', f'runtime = "python"\n{command}'))
        for item in table.scan()["Items"]:
            table.delete_item(Key=item)
        talk(start(arguments=["--config", form]), table)
    finally:
        shell.close()


def answers(table):
    """Whether the server is up; the table is not there yet."""
    try:
        table.scan()
    except table.meta.client.exceptions.ResourceNotFoundException:
        return True
    except Exception:
        return False
