"""A rolling update as the manifests have it: their command lines, variables, files, probes, waits and grace periods, behind
HAProxy, under load. Nothing that was acknowledged is lost, and nobody is cut."""

import json
import re
import socket
import threading
import time

import pytest

from cluster import Publisher
from edge import HaProxy
from gatecast import eventually, request
from k8s import named, node_container, overlay, seconds
from kubelet import TIME, Controller, real
from management import KEYS, signature
from roaming import Roamers, check_books

PODS = 3
# A pod has room for one connection where the manifests have 500: for 100. The rate of handshakes shrinks as much, and grows as
# times get shorter, so that a drain has the shape that it has in production.
CLIENTS = 1 / 500
# As the autoscaler has it.
LOAD = 0.6
# HAProxy's own times are not in the manifests; `deploy/haproxy` has them, longer.
HAPROXY_TIMES = "inter 200ms fastinter 100ms downinter 100ms slowstart 3s"


class EndpointsProxy(HaProxy):
    """HAProxy under something that tells it which pods are ready, as an ingress controller does."""

    def write(self, **options):
        super().write(**options)
        # A rolling update has one pod more than the file has servers.
        self.edit("haproxy.cfg", r"^    server node3 .*$", lambda line: f"{line[0]}\n{line[0].replace('node3', 'node4')}")
        self.slots = dict(enumerate(self.nodes, 1)) | {4: None}

    def say(self, command):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{self.run_folder.name}/stats.sock")
            client.sendall(f"{command}\n".encode())
            with client.makefile() as answer:
                return answer.read()

    def serve(self, pods):
        """From now on by these pods. A pod that is not there any more keeps the connections that it has."""
        for slot, pod in self.slots.items():
            if pod and pod not in pods:
                self.say(f"set server websockets/node{slot} state maint")
                self.slots[slot] = None
        for pod in pods:
            if pod not in self.slots.values():
                slot = next(slot for slot, holder in self.slots.items() if holder is None)
                for backend in ("websockets", "management"):
                    self.say(f"set server {backend}/node{slot} addr 127.0.0.1 port {pod.address[1]}")
                self.say(f"set server websockets/node{slot} check-port {pod.admin_address[1]}")
                self.say(f"set server websockets/node{slot} state ready")
                self.slots[slot] = pod


def shortened(config):
    """The file of the ConfigMap, with its times and its numbers of connections made small."""
    assert set(re.findall(r'"(\d+\w+)"', config)) == set(re.findall(r'= "(\d+\w+)"$', config, re.M))
    config = re.sub(r'= "(\d+\w+)"$', lambda time: f'= "{real(seconds(time[1])) * 1000:.0f}ms"', config, flags=re.M)
    config, count = re.subn(r"^max_connections = (\d+)$", lambda most: f"max_connections = {int(most[1]) * CLIENTS:.0f}",
                            config, flags=re.M)
    assert count == 1
    config, count = re.subn(r"^handshake_rate = (\d+)$", lambda rate: f"handshake_rate = {int(rate[1]) * CLIENTS / TIME:.0f}",
                            config, flags=re.M)
    assert count == 1
    return config


def publish_signed(node, path, text):
    """As a back end with keys."""
    path, body = f"/beta/{path}", text.encode()
    response, answer = request(node.address, "POST", path, body, signature(node.address, "POST", path, body))
    return response.status, json.loads(answer)["offset"] if response.status == 200 else None


@pytest.fixture
def rollout(tmp_path, redis):
    """The Deployment of production, with its first pods ready."""
    objects = overlay("production")
    config = shortened(named(objects, "ConfigMap")["data"]["gatecast.toml"])
    (tmp_path / "gatecast.toml").write_text(config)
    # The Secret is not in the manifests: whoever installs them makes it.
    secrets = {"gatecast": KEYS | {"GATECAST_REDIS_URL": redis.url}}
    controller = Controller(named(objects, "Deployment"), tmp_path, secrets, GATECAST_TRUSTED_PROXIES="127.0.0.1")
    try:
        controller.scale(PODS)
        controller.capacity = int(re.search(r"max_connections = (\d+)", config)[1])
        yield controller
    finally:
        controller.end()


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_a_rolling_update_cuts_nobody_and_loses_nothing(rollout, start_balancer, note):
    old = list(rollout.pods)
    assert not any(pod.faults for pod in old), [pod.log() for pod in old if pod.faults]
    balancer = start_balancer(EndpointsProxy, old, options=HAPROXY_TIMES)
    eventually(lambda: balancer.states()[:PODS] == ["UP"] * PODS)
    # The cluster's controllers tell each other; a pod that ends goes on serving newcomers until they have, for which preStop waits.
    delay = real(node_container(overlay("production"))["lifecycle"]["preStop"]["sleep"]["seconds"] / 2)
    rollout.on_change = lambda pods: threading.Timer(delay, balancer.serve, [pods]).start()

    with Roamers(balancer.url, int(rollout.capacity * LOAD * PODS)) as clients:
        clients.all_connected()
        with Publisher([balancer], pause=0.05, publish=publish_signed) as publisher:
            publisher.more(20)
            began = time.monotonic()
            rollout.replace_all()
            rollout.wait_for_ends()
            took = time.monotonic() - began
            clients.all_connected()
            publisher.more(20)
        last = publisher.accepted()[-1]
        eventually(lambda: all(last in roamer.sessions[-1].texts for roamer in clients.all))
        end = time.monotonic()
        sessions, closed = clients.sessions(), clients.closed()

    assert not [(pod.name, pod.faults, pod.log()) for pod in rollout.all if pod.faults]
    assert [pod.process.returncode for pod in old] == [0] * PODS
    assert {session.close for session in closed} == {(1001, "Going away")}
    assert rollout.fewest == PODS
    for session in sessions:
        check_books(session, publisher, end)
    drains = ", ".join(f"{pod.took:.1f} s" for pod in old)
    period = real(rollout.spec["template"]["spec"]["terminationGracePeriodSeconds"])
    note(f"rolling update by the manifests, times × {TIME}: {len(clients.all)} clients on {PODS} pods, "
         f"{len(publisher.accepted())} messages accepted of {len(publisher.answers)}, none lost; {took:.0f} s, "
         f"pods ended in {drains} of {period:.0f} s")
