"""`gatecast pod-deletion-cost` as its manifest runs it: real nodes with real clients, and an API server that a real kubectl knows too."""

import contextlib
import copy
import json
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apiserver import COST, NAMESPACE, VERBS, ApiServer
from crowd import crowd_of
from gatecast import GATECAST, ROOT, clean_environment, eventually, request
from k8s import KUBECTL, arguments, named, node_pod, overlay
from topologies import Certificates

MANIFESTS = overlay("production")
CONTAINER = named(MANIFESTS, "Deployment", "gatecast-deletion-cost")["spec"]["template"]["spec"]["containers"][0]
(RULE,) = named(MANIFESTS, "Role", "gatecast-deletion-cost")["rules"]
TOKEN = "a-token-that-nobody-may-see"
HELP = "k8s/components/deletion-cost"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates") / "tls")


@pytest.fixture
def api(certificates):
    yield from running(certificates.server)


def running(pair):
    server = ApiServer(*pair)
    server.users = {TOKEN: ("system:serviceaccount:gatecast:gatecast-deletion-cost", RULE["verbs"])}
    yield server
    server.stop()


@pytest.fixture
def account(tmp_path, certificates):
    """What Kubernetes mounts."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text(TOKEN)
    (folder / "namespace").write_text(NAMESPACE)
    (folder / "ca.crt").write_bytes(certificates.authority.read_bytes())
    return folder


def line_of(account):
    """The manifest's command line, with a second for its half minute, and loopback for the pod's own address."""
    changes = {"--interval=30s": "--interval=1s", "--admin-listen=0.0.0.0:9090": "--admin-listen=127.0.0.1:0"}
    words = arguments(CONTAINER, {})
    assert changes.keys() <= set(words)
    return [str(GATECAST), *(changes.get(word, word) for word in words), f"--service-account={account}"]


class Keeper:
    def __init__(self, directory, account, port, host="127.0.0.1"):
        self.log_path = directory / "keeper.log"
        settings = clean_environment({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)})
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(line_of(account), env=settings, stdout=subprocess.PIPE, stderr=log, text=True)
        greeting = self.process.stdout.readline() + self.process.stdout.readline()
        found = re.search(r"Admin       http://([^:]+):(\d+) ", greeting)
        assert found, greeting + self.log()
        self.admin = found[1], int(found[2])

    def log(self):
        return self.log_path.read_text()

    def lines(self, level, words):
        """The messages of a level that contain these words."""
        found = [json.loads(line) for line in self.log().splitlines()]
        return [each["fields"]["message"] for each in found if each["level"] == level and words in each["fields"]["message"]]

    def metric(self, name, **labels):
        response, text = request(self.admin, "GET", "/metrics")
        assert response.status == 200
        samples = [each for family in text_string_to_metric_families(text.decode()) for each in family.samples]
        found = [each.value for each in samples if each.name == f"gatecast_deletion_cost_{name}" and labels.items() <= each.labels.items()]
        assert found, name
        return sum(found)

    def rounds(self):
        return self.metric("rounds_total")

    def goes_on(self, count=2):
        """Waits for that many whole rounds from now on."""
        # The one that is under way may have begun before.
        end = self.rounds() + count + 1
        eventually(lambda: self.rounds() >= end, within=15 + count)


@pytest.fixture
def keep(tmp_path, account, api):
    """Starts the keeper; it is still there at the end, and never said its secret."""
    keepers = []

    def start(**options):
        keepers.append(Keeper(tmp_path, account, **({"port": api.port} | options)))
        return keepers[-1]

    yield start
    for keeper in keepers:
        ended = keeper.process.poll()
        keeper.process.kill()
        keeper.process.wait()
        keeper.process.stdout.close()
        assert ended in (None, 0), keeper.log()
        assert TOKEN not in keeper.log() and "panicked" not in keeper.log()


def pod(name, address=None, cost=None, ready_at="2026-11-26T12:00:00Z", **changes):
    """A pod as the Deployment of the nodes makes it; on loopback each has ports of its own."""
    template = copy.deepcopy(node_pod(MANIFESTS))
    (container,) = template["spec"]["containers"]
    host, port = address or ("127.0.0.1", 1)
    for each in container["ports"]:
        if each["name"] == "admin":
            each["containerPort"] = port
    metadata = template["metadata"] | {"name": name, "namespace": NAMESPACE, "uid": name, "creationTimestamp": ready_at,
                                       "annotations": {"other": "kept"} | ({COST: cost} if cost is not None else {})}
    status = {"phase": "Running", "podIP": host, "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": ready_at}]}
    spec = template["spec"] | {"nodeName": "host-1"}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
    for path, value in changes.items():
        part, field = path.split("__")
        made[part][field] = value
    return made


def put_nodes(api, nodes):
    names = [f"gatecast-{number}" for number in range(len(nodes))]
    for name, node in zip(names, nodes):
        api.put(pod(name, node.admin_address))
    return names


def goes_first(pods):
    """Which pod the ReplicaSet controller would delete: the least by `ActivePodsWithRanks.Less` of Kubernetes
    (pkg/controller/controller_utils.go; published as "Scaling a ReplicaSet" in
    https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/), here with one pod a host and no restarts:
    unassigned, pending, not ready, then the lower deletion cost, then who has been ready for less time.
    """
    def rank(each):
        spec, status = each["spec"], each["status"]
        (ready,) = [one for one in status["conditions"] if one["type"] == "Ready"]
        cost = int(each["metadata"].get("annotations", {}).get(COST, "0"))
        times = [ord(sign) for sign in ready["lastTransitionTime"]]
        return (bool(spec.get("nodeName")), {"Pending": 0, "Unknown": 1, "Running": 2}[status["phase"]],
                ready["status"] == "True", cost, [-sign for sign in times])

    return min((each for each in pods if "deletionTimestamp" not in each["metadata"]), key=rank)["metadata"]["name"]


def test_the_emptiest_pod_goes_first(api, keep, start):
    nodes = [start(), start(), start()]
    # The emptiest has been there for longest, so without costs it would go last.
    for number, (node, hour) in enumerate(zip(nodes, ("09", "10", "11"))):
        api.put(pod(f"gatecast-{number}", node.admin_address, ready_at=f"2026-11-26T{hour}:00:00Z"))
    assert goes_first(api.pods.values()) == "gatecast-2"
    with crowd_of(nodes[1:2], 30), crowd_of(nodes[2:], 50), crowd_of(nodes[:1], 3):
        keep()
        eventually(lambda: [api.cost(f"gatecast-{number}") for number in range(3)] == ["3", "30", "50"])
        assert goes_first(api.pods.values()) == "gatecast-0"
        # Not ready comes before any cost.
        api.put(pod("gatecast-3", ("127.0.0.1", 1), cost="70"))
        assert goes_first(api.pods.values()) == "gatecast-0"
        api.pods["gatecast-3"]["status"]["conditions"][0]["status"] = "False"
        assert goes_first(api.pods.values()) == "gatecast-3"


def test_a_cost_is_written_only_when_it_changed_materially(api, keep, start):
    nodes = [start(), start()]
    empty, used = put_nodes(api, nodes)
    before = copy.deepcopy(api.pods[used])
    with crowd_of(nodes[1:], 40):
        keeper = keep()
        eventually(lambda: api.cost(used) == "40")
        with crowd_of(nodes[1:], 4):
            eventually(lambda: nodes[1].metric("gatecast_connections") == 44)
            keeper.goes_on()
            assert api.cost(used) == "40"
        with crowd_of(nodes[1:], 10):
            eventually(lambda: api.cost(used) == "50")
    eventually(lambda: api.cost(used) == "0")
    keeper.goes_on()
    # As Kubernetes counts a pod without the annotation, an empty one needs none.
    assert api.cost(empty) is None
    assert {each.name for each in api.of("patch")} == {used}
    # To 40, 50 and 0, and once or twice more where a round falls between two closes.
    assert 3 <= len(api.of("patch")) <= 5
    assert keeper.metric("patches_total") == len(api.of("patch"))
    after = api.pods[used]
    assert before["metadata"].pop("resourceVersion") != after["metadata"].pop("resourceVersion")
    assert after["metadata"]["annotations"].pop(COST) == "0"
    assert after == before


def test_all_pages_are_read_and_only_the_nodes_pods(api, keep, start):
    node = start()
    for number in range(120):
        api.put(pod(f"a-{number:03}", status__phase="Pending"))
    api.put(pod("z-last", node.admin_address))
    other = pod("other", node.admin_address)
    other["metadata"]["labels"] = {"app.kubernetes.io/name": "gatecast", "app.kubernetes.io/component": "deletion-cost"}
    api.put(other)
    with crowd_of([node], 2):
        keeper = keep()
        eventually(lambda: api.cost("z-last") == "2")
        keeper.goes_on(1)
    assert api.cost("other") is None
    pages = [each.query for each in api.of("list")]
    assert {page["labelSelector"] for page in pages} == {"app.kubernetes.io/name=gatecast,app.kubernetes.io/component=node"}
    assert {page["limit"] for page in pages} == {"50"}
    assert ["continue" in page for page in pages[:3]] == [False, True, True]


def test_a_selector_that_means_too_many_is_refused(api, keep, start):
    node = start()
    for number in range(1_001):
        api.put(pod(f"a-{number:04}", node.admin_address, status__phase="Running" if number == 0 else "Pending"))
    with crowd_of([node], 2):
        keeper = keep()
        eventually(lambda: keeper.lines("WARN", "more than 1000 match"))
        assert api.cost("a-0000") is None
        api.remove("a-1000")
        eventually(lambda: api.cost("a-0000") == "2")


@contextlib.contextmanager
def talker(answer):
    """A port at which every connection gets the same answer; with None it gets none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def talk():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    kept.append(client)
                    if answer is not None:
                        client.recv(4096)
                        client.sendall(answer)
                        client.close()

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in kept:
                client.close()


def test_a_pod_that_does_not_answer_keeps_what_it_has(api, keep, start):
    node = start()
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nno metrics.\n"
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"gatecast_connections 5\n" * 200_000
    with talker(None) as silent, talker(b"220 mail.example.com\r\n") as mail, talker(page) as empty, talker(endless) as long, \
            crowd_of([node], 5):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nobody = closed.getsockname()
        for name, address in dict(silent=silent, mail=mail, empty=empty, long=long, nobody=nobody).items():
            api.put(pod(name, address, cost="7"))
        # These are not even asked, though they would answer.
        api.put(pod("terminating", node.admin_address, cost="7", metadata__deletionTimestamp="2026-11-26T12:00:00Z"))
        api.put(pod("pending", node.admin_address, cost="7", status__phase="Pending"))
        api.put(pod("without-port", node.admin_address, cost="7", spec__containers=[{"name": "gatecast", "image": "gatecast"}]))
        api.put(pod("well", node.admin_address, cost="7"))
        api.put(pod("unready", node.admin_address, status__conditions=[{"type": "Ready", "status": "False"}]))
        keeper = keep()
        eventually(lambda: api.cost("unready") == "5")
        keeper.goes_on()
        assert {name: api.cost(name) for name in api.pods} == dict.fromkeys(api.pods, "7") | {"unready": "5"}
        # 7 and 5 are the same in size.
        assert {each.name for each in api.of("patch")} == {"unready"}
        rounds = keeper.metric("rounds_total", result="ok")
        assert keeper.metric("rounds_total", result="failed") == 0 and keeper.metric("pods") == 2
        assert 5 * rounds <= keeper.metric("faults_total", kind="unanswered") <= 5 * (rounds + 1)
        assert len(keeper.lines("WARN", "does not say how many connections it has")) == 1
        for name in ("silent", "mail", "empty", "long", "nobody"):
            api.remove(name)
        eventually(lambda: keeper.lines("INFO", "has passed"))


def test_writes_of_a_round_are_bounded(api, keep, start):
    node = start()
    names = [f"gatecast-{number:02}" for number in range(25)]
    for name in names:
        api.put(pod(name, node.admin_address))
    with crowd_of([node], 1):
        keeper = keep()
        eventually(lambda: [api.cost(name) for name in names] == ["1"] * 25)
        keeper.goes_on(1)
    verbs = "".join(each.verb[0] for each in api.seen)
    assert re.fullmatch("lp{20}lp{5}l+", verbs), verbs
    assert keeper.metric("faults_total", kind="deferred") == 1


TROUBLES = {
    401: ("unauthorized", "token is not valid"), 404: ("not_found", "it has gone"), 409: ("conflict", "somebody else"),
    429: ("throttled", "too much to do"), 500: ("server", "is not well"), 410: ("unexpected", "410"),
    403: ("forbidden", "needs the verb {} for pods"),
}


@pytest.mark.parametrize("verb", ["list", "patch"])
@pytest.mark.parametrize("status", TROUBLES)
def test_a_refusal_is_logged_once_counted_and_tried_again(api, keep, start, status, verb):
    node = start()
    (name,) = put_nodes(api, [node])
    kind, words = TROUBLES[status]
    users = dict(api.users)
    if status == 401:
        api.users.clear()
    elif status == 403:
        user, verbs = users[TOKEN]
        # Each right of the Role is needed.
        api.users[TOKEN] = user, [each for each in verbs if each != verb]
        assert len(api.users[TOKEN][1]) == len(verbs) - 1
    else:
        api.trouble[verb] = status
    with crowd_of([node], 3):
        keeper = keep()
        eventually(lambda: keeper.metric("faults_total", kind=kind) >= 2)
        assert len(keeper.lines("WARN", words.format(verb))) == 1
        assert api.cost(name) is None
        if verb == "list" or status not in (404, 409):
            assert keeper.metric("rounds_total", result="failed") >= 2
        api.trouble.clear()
        api.users.update(users)
        eventually(lambda: api.cost(name) == "3")
        eventually(lambda: keeper.lines("INFO", "has passed"))


def test_a_pod_that_is_gone_keeps_no_other_waiting_but_a_server_that_refuses_is_left_alone(api, keep, start):
    node = start()
    for number in range(3):
        api.put(pod(f"gatecast-{number}", node.admin_address))
    with crowd_of([node], 3):
        api.trouble["patch"] = 409
        keeper = keep()
        eventually(lambda: keeper.rounds() >= 2)
        assert "lppplppp" in "".join(each.verb[0] for each in api.seen)
        api.trouble["patch"] = 429
        eventually(lambda: keeper.metric("faults_total", kind="throttled") >= 2)
        assert "lplp" in "".join(each.verb[0] for each in api.seen)


def test_a_server_that_hangs_is_given_up_and_a_signal_ends_at_once_meanwhile(api, keep):
    api.trouble["list"] = "hang"
    keeper = keep()
    eventually(lambda: keeper.metric("faults_total", kind="timeout") == 1, within=20)
    eventually(lambda: keeper.lines("WARN", "no answer within 10s"))
    assert request(keeper.admin, "GET", "/live")[0].status == 200
    eventually(lambda: api.hanging == 2)
    began = time.monotonic()
    keeper.process.send_signal(signal.SIGTERM)
    assert keeper.process.wait(timeout=10) == 0 and time.monotonic() - began < 2


def test_a_signal_that_asks_nodes_to_reload_is_ignored(api, keep):
    keeper = keep()
    keeper.process.send_signal(signal.SIGHUP)
    eventually(lambda: keeper.lines("WARN", "ignored"))
    assert request(keeper.admin, "GET", "/live")[0].status == 200


def test_an_answer_that_is_too_long_is_not_read_to_its_end(api, keep, start):
    node = start()
    (name,) = put_nodes(api, [node])
    api.padding = 5 << 20
    with crowd_of([node], 3):
        keeper = keep()
        eventually(lambda: keeper.metric("faults_total", kind="unexpected") >= 2)
        assert api.cost(name) is None
        api.padding = 3 << 20
        eventually(lambda: api.cost(name) == "3")


def test_a_token_that_rotates_is_read_again(api, keep, start, account):
    node = start()
    (name,) = put_nodes(api, [node])
    keeper = keep()
    keeper.goes_on(1)
    api.users["the-next"] = api.users.pop(TOKEN)
    with crowd_of([node], 3):
        eventually(lambda: keeper.metric("faults_total", kind="unauthorized") >= 1)
        (account / "token").write_text("the-next\n")
        eventually(lambda: api.cost(name) == "3")
    assert "the-next" not in keeper.log()


@pytest.mark.parametrize("pair", ["stranger", "client"], ids=["another-authority", "another-name"])
def test_nobody_else_is_taken_for_the_api_server(certificates, keep, pair):
    pairs = {"client": certificates.client, "stranger": (certificates.stranger, certificates.directory / "stranger.key")}
    for impostor in running(pairs[pair]):
        keeper = keep(port=impostor.port)
        eventually(lambda: keeper.metric("faults_total", kind="tls") >= 2)
        assert len(keeper.lines("WARN", "is not the API server that ca.crt vouches for")) == 1
        assert impostor.seen == [], "the token was not sent"


def test_the_server_may_have_a_name_and_may_be_away(api, keep, start):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    keeper = keep(port=nobody)
    eventually(lambda: keeper.metric("faults_total", kind="unreachable") >= 2)
    assert len(keeper.lines("WARN", f"127.0.0.1 port {nobody}")) == 1
    node = start()
    (name,) = put_nodes(api, [node])
    with crowd_of([node], 3):
        keep(host="localhost")
        eventually(lambda: api.cost(name) == "3")


def remove(name):
    return lambda account: (account / name).unlink()


def write(name, text):
    return lambda account: (account / name).write_text(text)


@pytest.mark.parametrize("damage, words", [
    (remove("token"), "token: No such file"), (write("token", " \n"), "token: is empty"), (write("token", "a\nb"), "token: is no token"),
    (remove("ca.crt"), "ca.crt: No such file"), (write("ca.crt", "none"), "ca.crt: holds no certificate"),
    (write("ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "ca.crt: "),
    (remove("namespace"), "namespace: No such file"), (write("namespace", ""), "namespace: is empty"),
])
def test_without_a_service_account_it_says_what_is_missing(account, damage, words):
    damage(account)
    done = run(line_of(account), KUBERNETES_SERVICE_HOST="127.0.0.1")
    assert done.returncode == 69 and words in done.stderr and HELP in done.stderr and TOKEN not in done.stderr


@pytest.mark.parametrize("words, code, reason", [
    ([], 64, "KUBERNETES_SERVICE_HOST is not set"), (["--selector="], 64, "--selector"), (["--interval=10ms"], 64, "not from 1s to 1h"),
    (["--interval=2h"], 64, "not from 1s to 1h"), (["--api-port=https"], 64, "--api-port"),
    (["--api-host=127.0.0.1", "--admin-listen=192.0.2.1:0"], 69, "cannot listen on 192.0.2.1:0"),
])
def test_a_wrong_command_line_is_refused(account, words, code, reason):
    names = [word.split("=")[0] for word in words]
    line = [word for word in line_of(account) if word.split("=")[0] not in names]
    done = run([*line, *words])
    assert done.returncode == code and reason in done.stderr


def run(line, **settings):
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("KUBERNETES_")}
    return subprocess.run(line, env=environment | settings, capture_output=True, text=True, timeout=20)


def test_its_metrics_are_those_of_the_readme(keep):
    keeper = keep()
    _, text = request(keeper.admin, "GET", "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    table = (ROOT / "README.md").read_text()
    listed = dict(re.findall(r"^\| `(gatecast_deletion_cost_\w+)` \|(?: \w+)? \| (.*) \|$", table, re.M))
    shown = {sample.name for family in families.values() for sample in family.samples}
    assert {name for name in shown if name.startswith("gatecast_deletion_cost_")} == set(listed)
    # Nothing that a node has and that dashboards or alerts would take for one.
    assert shown - set(listed) == {
        "gatecast_http_connections_accepted_total", "gatecast_http_accept_errors_total",
        "gatecast_http_requests_refused_total", "gatecast_http_connections_cut_total",
    }
    kinds = {sample.labels["kind"] for sample in families["gatecast_deletion_cost_faults"].samples}
    assert kinds == set(re.search(r": ([a-z_, ]+)", listed["gatecast_deletion_cost_faults_total"])[1].split(", "))


class Kubectl:
    def __init__(self, api, certificates, home):
        self.line = [str(KUBECTL), f"--server=https://127.0.0.1:{api.port}", f"--certificate-authority={certificates.authority}",
                     "--namespace", NAMESPACE, f"--cache-dir={home}"]
        self.environment = clean_environment({"HOME": str(home)})

    def __call__(self, token, *words):
        return subprocess.run([*self.line, f"--token={token}", *words], env=self.environment, capture_output=True, text=True, timeout=30)


def test_the_stand_in_is_one_for_kubectl_too(api, keep, start, certificates, tmp_path):
    kubectl = Kubectl(api, certificates, tmp_path)
    api.users["of-an-operator"] = "operator", VERBS
    nodes = [start(), start()]
    names = put_nodes(api, nodes)
    other = pod("other", nodes[0].admin_address)
    other["metadata"]["labels"] = {"app.kubernetes.io/component": "redis"}
    api.put(other)

    def listed(*words):
        done = kubectl("of-an-operator", "get", "pods", "-l", "app.kubernetes.io/component=node", "-o", "json", *words)
        assert done.returncode == 0, done.stderr
        return {each["metadata"]["name"]: each["metadata"]["annotations"].get(COST) for each in json.loads(done.stdout)["items"]}

    assert listed() == dict.fromkeys(names)
    assert listed("--chunk-size=1") == dict.fromkeys(names)
    assert any("continue" in each.query for each in api.of("list"))
    for value, good in (("77", True), ("077", False), ("many", False)):
        done = kubectl("of-an-operator", "annotate", "--overwrite", "pod", names[0], f"{COST}={value}")
        assert (done.returncode == 0) == good, done.stderr
    assert listed() == {names[0]: "77", names[1]: None}
    # What the program writes, kubectl reads; what kubectl writes, the program corrects.
    with crowd_of(nodes[1:], 3):
        keep()
        eventually(lambda: listed() == {names[0]: "0", names[1]: "3"}, within=20)
    assert kubectl("of-an-operator", "annotate", "pod", names[1], f"{COST}-").returncode == 0
    # Refusals are in the form that kubectl understands.
    assert "not found" in kubectl("of-an-operator", "get", "pod", "nobody").stderr
    assert re.search("Unauthorized|must be logged in", kubectl("wrong", "get", "pods").stderr)
    # The keeper's own rights end where kubectl's `get` of one pod begins.
    refused = kubectl(TOKEN, "get", "pod", names[0])
    assert refused.returncode == 1 and 'cannot get resource "pods"' in refused.stderr
