"""What the hot path costs, in instructions: no time is taken, so a busy machine changes nothing."""

import platform
import re
import subprocess
import tomllib

import pytest

from gatecast import ROOT, TARGET, clean_environment

PROGRAM = TARGET / "release/examples/instructions"
STORED = tomllib.loads((ROOT / "tests/instructions.toml").read_text())
# Ten rounds of a delivery to 1,000 members. What happens once in a while, such as fresh random numbers, is a small part of so many.
TIMES = 10_000


def count(work, profile):
    """Instructions of doing `work` once."""
    line = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", "--toggle-collect=*bench*counted*",
            str(PROGRAM), work, str(TIMES)]
    run = subprocess.run(line, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return round(int(re.search(r"Collected : (\d+)", run.stderr)[1]) / TIMES)


@pytest.mark.alone
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the figures are those of x86-64")
@pytest.mark.parametrize("work", STORED["instructions"])
def test_it_costs_what_it_did(work, tmp_path, note):
    profile, stored = tmp_path / "callgrind.out", STORED["instructions"][work]
    counted = count(work, profile)
    change = counted / stored - 1
    note(f"{work}: {counted} instructions, {change:+.1%} of what is stored")
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip()
    stored_by = f"stored: {stored}, with {STORED['compiler']}; counted: {counted}, with {compiler}"
    assert change <= STORED["band"], (
        f"{work} costs {change:.1%} more ({stored_by}). What costs: callgrind_annotate {profile}")
    assert change >= -STORED["band"], (
        f"{work} costs {-change:.1%} less ({stored_by}). Keep it: write `{work} = {counted}` into tests/instructions.toml")
