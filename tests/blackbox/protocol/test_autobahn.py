"""RFC 6455 by the cases of the Autobahn test suite, run by `kosoku` against an echo route.

A case passes as `kosoku` and Autobahn count it: message exchange and close are each OK, NON-STRICT (within the RFC, against
a SHOULD) or INFORMATIONAL (the RFC leaves it open). We ask for more: NON-STRICT fails, and INFORMATIONAL is for the three
cases that can have no other verdict. Sections 12 and 13 are compression, which is not offered.
"""

import asyncio
import time
from collections import Counter

import pytest
from kosoku import FailureError, run_fuzzingclient

from gatecast import EXAMPLES

CASES = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}
EXCLUDED = ["12.*", "13.*"]
# What the server does after a close frame, and with close codes that no RFC gives a meaning.
OPEN_QUESTIONS = {"7.1.6", "7.13.1", "7.13.2"}


@pytest.fixture(scope="module")
def echo(start_shared):
    return start_shared(arguments=["--config", EXAMPLES / "echo.toml"])


def run(url, section):
    """Runs a section; returns the results, or fails with those that failed."""
    try:
        return asyncio.run(run_fuzzingclient(url, [f"{section}.*"], EXCLUDED, concurrency=4))
    except FailureError as failure:
        failed = [f"{r.case_id}: {r.result} {r.result_close}" for r in failure.results if not r.passed]
        pytest.fail("\n".join(failed))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("section", CASES)
def test_every_case_passes(echo, section, note):
    began = time.monotonic()
    results = run(echo.url, section)
    verdicts = Counter((r.behavior.value, r.behavior_close.value) for r in results)
    shown = ", ".join(f"{count} {'/'.join(sorted(set(verdict)))}" for verdict, count in verdicts.items())
    note(f"Autobahn {section}: {len(results)} cases, {shown}, {time.monotonic() - began:.1f} s")
    assert len(results) == CASES[section]
    assert all(r.case_id.split(".")[0] == section and r.passed for r in results)
    not_ok = {r.case_id for r in results if (r.behavior.value, r.behavior_close.value) != ("OK", "OK")}
    assert not_ok <= OPEN_QUESTIONS


def test_the_node_serves_on_after_all_cases(echo):
    with echo.connect() as client:
        client.send("still there?")
        assert client.recv(timeout=10) == "still there?"
