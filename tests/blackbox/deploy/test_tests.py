"""What the tests promise of themselves."""

import re
from collections import Counter

from gatecast import ROOT

FOLDER = ROOT / "tests/blackbox"
FILES = sorted(FOLDER.glob("*/test_*.py"))


def test_a_short_name_leads_to_one_file_or_one_folder():
    """`tests/run NAME` finds it."""
    assert not list(FOLDER.glob("test_*.py")), "each lies in the folder of its area"
    names = [path.stem.removeprefix("test_") for path in FILES]
    names += [path.name for path in FOLDER.iterdir() if path.is_dir()]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_nobody_sleeps_for_luck():
    """Who waits for something takes `eventually`, whose deadline is long. What is to last so long takes `lasts`."""
    assert [path.name for path in FILES if re.search(r"time\.sleep\b", path.read_text())] == []


def test_every_test_that_the_table_of_conformance_names_is_there():
    page = (ROOT / "docs/conformance.md").read_text()
    rows = re.findall(r"^\| .* \| (.*) \|$", page.split("## Beside an emulator")[0], re.M)
    named = {name for row in rows for name in re.findall(r"`(\w*_\w*)`|\b(test_\w+\.py)", row)}
    names = {name for pair in named for name in pair if name} - {"lambda-proxy"}
    sources = [*FILES, *(ROOT / "src").rglob("*.rs")]
    known = {path.name for path in FILES}
    for source in sources:
        known |= set(re.findall(r"(?:def|fn) (\w+)\(", source.read_text()))
    assert len(names) > 50 and names <= known, names - known
