"""Nodes of a test, one process each, and what a run says at its end."""

import pytest

# Whose failed assertions are to show their values, as those of a test do.
pytest.register_assert_rewrite("gatecast", "wire", "crowd", "listing", "management", "roaming")
# Fixtures that every test may ask for.
pytest_plugins = ("cluster", "proxies", "doubts", "impostor", "topologies", "edge")

from gatecast import Node  # After the line above: it is to be rewritten.

NOTES = []


@pytest.fixture
def start(tmp_path):
    """Starts nodes; at the end each still runs, or was ended by its test, and none has panicked."""
    yield from _starter(tmp_path)


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory):
    """As `start`, for a node that all tests of a file share."""
    yield from _starter(tmp_path_factory.mktemp("nodes"))


def _starter(directory):
    nodes = []

    def start(config="", arguments=(), listen="127.0.0.1:0", **environment):
        place = directory / str(len(nodes))
        place.mkdir()
        node = Node(place, config, arguments, listen, environment)
        node.is_ended_by_test = False
        nodes.append(node)
        return node

    yield start
    crashed = [node for node in nodes if node.process.poll() is not None and not node.is_ended_by_test]
    logs = [node.log() for node in nodes]
    for node in nodes:
        node.kill()
    assert not crashed, f"the node ended by itself: {crashed[0].log()}"
    assert not [log for log in logs if "panicked" in log]


@pytest.fixture
def node(start):
    """A node as a newcomer starts it."""
    return start()


@pytest.fixture
def note():
    """Prints a line at the end of the run."""
    return NOTES.append


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="of each file only the test marked `smoke`, else its first")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--quick"):
        return
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    kept = {(smoke(tests) or tests)[0] for tests in files.values() if not alone(tests[0])}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def smoke(tests):
    return [test for test in tests if test.get_closest_marker("smoke")]


def alone(test):
    return test.get_closest_marker("alone")


def pytest_make_parametrize_id(val):
    """Frames are masked at random, and all workers have to know a test by the same name."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["notes"] = NOTES


class NotesOfWorkers:
    @staticmethod
    def pytest_testnodedown(node):
        NOTES.extend(getattr(node, "workeroutput", {}).get("notes", []))


def pytest_configure(config):
    if config.pluginmanager.hasplugin("dsession"):
        config.pluginmanager.register(NotesOfWorkers)


def pytest_terminal_summary(terminalreporter):
    for line in NOTES:
        terminalreporter.write_line(line)
