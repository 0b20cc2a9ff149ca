"""Load balancers in front of nodes: the configurations of `deploy/`, run by the real programs."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

from gatecast import ROOT, Node, clean_environment, eventually, request
from ports import free_port

DEPLOY = ROOT / "deploy"
LOOPBACK = {"GATECAST_TRUSTED_PROXIES": "127.0.0.1"}
# What a balancer passes on is not signed, and does not come from this host.
OPEN = LOOPBACK | {"GATECAST_MANAGEMENT_AUTH": "none"}
PROXY_PROTOCOL = LOOPBACK | {"GATECAST_PROXY_PROTOCOL": "true"}
# Another address of this host: not that of the balancers.
CLIENT = "127.0.0.5"


class Balancer:
    """A program between clients and nodes. It works on copies of the files in `deploy/`, so that a test may change them."""

    def __init__(self, directory, nodes, host="127.0.0.1", **options):
        directory.mkdir()
        self.directory, self.nodes, self.host = directory, nodes, host
        for _ in range(20):
            self.port, self.page_port = free_port(), free_port()
            self.write(**options)
            if self.start():
                return
        pytest.fail(f"no start: {self.log()}")

    @property
    def address(self):
        return self.host.strip("[]"), self.port

    @property
    def url(self):
        return f"ws://{self.host}:{self.port}/beta"

    @property
    def management(self):
        return f"http://{self.host}:{self.port}/beta"

    def connect(self, **options):
        """As to a node."""
        return Node.connect(self, **options)

    def open_from(self, source, **options):
        """A client that has another address of this host."""
        return self.connect(source_address=(source, 0), **options)

    def run(self, *line, **environment):
        with open(self.directory / "log", "ab") as log:
            words = [str(word) for word in line]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=clean_environment(environment))
        eventually(lambda: self.process.poll() is not None or self.is_up())
        return self.process.poll() is None

    def log(self):
        return (self.directory / "log").read_text()

    def workers(self):
        """The processes under the master, and how each calls itself."""
        master = self.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        return {int(child): command_line(child) for child in children}

    def reload(self):
        """Has the files read again; returns when new workers serve, and to the old only their connections are left."""
        before = set(self.workers())
        self.process.send_signal(self.RELOAD)
        eventually(lambda: set(self.workers()) - before and self.has_moved_on(before & set(self.workers())))

    def edit(self, name, pattern, replacement):
        """Changes a file as an operator would."""
        path = self.directory / name
        text, count = re.subn(pattern, replacement, path.read_text(), flags=re.M)
        assert count
        path.write_text(text)

    def is_broken(self):
        """Whether a process has crashed. Both programs tell of it; the master may go on."""
        return self.process.poll() is not None or re.search(r"exited on signal|exited with code [1-9]", self.log())

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        finally:
            self.process.kill()


class HaProxy(Balancer):
    """HAProxy as a master with a worker."""

    RELOAD = signal.SIGUSR2

    def write(self, options=""):
        # Of the sockets; their paths may not be long.
        self.run_folder = tempfile.TemporaryDirectory(prefix="edge-")
        shutil.copy(DEPLOY / "haproxy/haproxy.cfg", self.directory)
        self.environment = {
            "GATECAST_BIND": f"{self.host}:{self.port}",
            "GATECAST_STATS": f"127.0.0.1:{self.page_port}",
            "GATECAST_MAXCONN": "1000",
            "GATECAST_SERVER_OPTIONS": options,
            "HAPROXY_RUN": self.run_folder.name,
        }
        for number, node in enumerate(self.nodes, 1):
            self.environment[f"GATECAST_{number}"] = "{}:{}".format(*node.address)
            self.environment[f"GATECAST_{number}_ADMIN"] = str(node.admin_address[1])

    def start(self):
        line = ["haproxy", "-W", "-S", f"{self.run_folder.name}/master.sock", "-f", self.directory / "haproxy.cfg"]
        return self.run(*line, **self.environment)

    def samples(self):
        response, body = request(("127.0.0.1", self.page_port), "GET", "/metrics")
        assert response.status == 200
        return [one for family in text_string_to_metric_families(body.decode()) for one in family.samples]

    def master(self, command):
        """What the master answers. It does so once it takes signals; one that comes earlier, while its worker serves already, is lost."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(f"{self.run_folder.name}/master.sock")
            client.sendall(f"{command}\n".encode())
            client.shutdown(socket.SHUT_WR)
            return client.makefile().read()

    def is_up(self):
        try:
            return self.master("show proc") and self.samples()
        except OSError:
            return False

    def states(self):
        """The state of each node, as HAProxy sees it."""
        rows = [one for one in self.samples() if one.name == "haproxy_server_status" and one.value == 1]
        states = {row.labels["server"]: row.labels["state"] for row in rows if row.labels["proxy"] == "websockets"}
        return [states[name] for name in sorted(states)]

    def has_moved_on(self, old):
        return all(re.search(rf"\({process}\) : Proxy public stopped", self.log()) for process in old) and self.is_up()


class Nginx(Balancer):
    """nginx as a master with workers."""

    RELOAD = signal.SIGHUP

    def write(self):
        for name in ("nginx.conf", "listen.conf", "nodes.conf"):
            shutil.copy(DEPLOY / "nginx" / name, self.directory)
        self.edit("listen.conf", r"^listen 8080 ", f"listen 127.0.0.1:{self.port} ")
        for number, node in enumerate(self.nodes, 1):
            self.edit("nodes.conf", rf"gatecast-{number}:8080", "{}:{}".format(*node.address))

    def start(self):
        # Workers of root would be somebody else, who may not enter the folders of tests.
        settings = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
        return self.run("nginx", "-p", self.directory, "-c", self.directory / "nginx.conf", "-g", settings)

    def is_up(self):
        try:
            return request(self.address, "GET", "/")[0].status
        except OSError:
            return False

    def has_moved_on(self, old):
        return all("shutting down" in self.workers().get(process, "shutting down") for process in old)


def command_line(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.fixture
def start_balancer(tmp_path):
    """Starts balancers of a kind before nodes, and ends them with the test."""
    started = []

    def start_balancer(kind, nodes, **options):
        started.append(kind(tmp_path / f"balancer-{len(started)}", nodes, **options))
        return started[-1]

    yield start_balancer
    logs = [each.log() for each in started if each.is_broken()]
    for each in started:
        each.end()
    assert not logs, logs[0]


def source_ip(node, connection_id):
    """The address that the management API tells of a connection, on the admin port, which knows no PROXY protocol."""
    response, body = request(node.admin_address, "GET", f"/beta/@connections/{connection_id}")
    assert response.status == 200, body
    return json.loads(body)["identity"]["sourceIp"]


def counts(nodes):
    """How many connections each node has."""
    return [int(node.metric("gatecast_connections")) for node in nodes]


def refusal(call):
    """The response of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        call()
    return caught.value.response
