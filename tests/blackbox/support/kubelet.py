"""Does with processes what Kubernetes does with pods: starts them as a Deployment says, probes, replaces and ends them."""

import http.client
import signal
import subprocess
import threading
import time

from gatecast import GATECAST, clean_environment, eventually
from k8s import arguments, environment
from ports import free_port

# Everything that has a time in the manifests, and in the configuration that they hold, has a tenth of it here.
TIME = 0.1


def real(seconds):
    """A time of the manifests, which have whole seconds."""
    return seconds * TIME


class Pod:
    """One pod: its process, and the thread that is its kubelet."""

    def __init__(self, template, name, directory, secrets, **overrides):
        self.name, self.spec = name, template["spec"]
        (self.container,) = self.spec["containers"]
        self.directory = directory
        directory.mkdir()
        self.ports = {"public": free_port(), "admin": free_port()}
        self.is_started = self.is_ready = False
        self.deleted, self.ended = threading.Event(), threading.Event()
        # What Kubernetes would tell in events.
        self.faults = []
        self._start(secrets, overrides)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    @property
    def address(self):
        return "127.0.0.1", self.ports["public"]

    @property
    def admin_address(self):
        return "127.0.0.1", self.ports["admin"]

    def _start(self, secrets, overrides):
        values = environment(self.container, self.name, secrets) | overrides
        words = [self._on_loopback(word) for word in arguments(self.container, values)]
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen([str(GATECAST), *words], env=clean_environment(values), stdout=log, stderr=log)
        self.started_at = time.monotonic()

    def _on_loopback(self, word):
        """Pods have an address each; here they have ports. And they have a file system each."""
        for port in self.container["ports"]:
            word = word.replace(f"=0.0.0.0:{port['containerPort']}", f"=127.0.0.1:{self.ports[port['name']]}")
        (mount,) = self.container["volumeMounts"]
        return word.replace(mount["mountPath"], str(self.directory.parent))

    def log(self):
        return (self.directory / "log").read_text()

    def _run(self):
        try:
            if self._passes("startupProbe"):
                self.is_started = True
                self._watch()
            elif not self.deleted.is_set():
                self.faults.append("did not start")
            self._end()
        finally:
            self.process.kill()
            self.process.wait()
            self.ended.set()

    def _passes(self, kind):
        """A startup probe, until it succeeds or has failed often enough."""
        probe = self.container[kind]
        for _ in range(probe["failureThreshold"]):
            if self._ask(probe):
                return True
            if self.deleted.wait(real(probe["periodSeconds"])):
                break
        return False

    def _watch(self):
        """Probes both ways until the pod is deleted."""
        probes = {kind: self.container[kind] for kind in ("livenessProbe", "readinessProbe")}
        failures, due = dict.fromkeys(probes, 0), dict.fromkeys(probes, time.monotonic())
        while not self.deleted.wait(max(0, min(due.values()) - time.monotonic())):
            kind = min(due, key=due.get)
            is_well = self._ask(probes[kind])
            failures[kind] = 0 if is_well else failures[kind] + 1
            due[kind] = time.monotonic() + real(probes[kind]["periodSeconds"])
            if failures[kind] >= probes[kind]["failureThreshold"]:
                self.faults.append(f"{kind} failed")
                self.is_ready = False
                if kind == "livenessProbe":
                    return
            elif is_well and kind == "readinessProbe":
                self.is_ready = True

    def _ask(self, probe):
        """A time-out of a second is not scaled: this machine is as slow as ever."""
        question = probe["httpGet"]
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[question["port"]], timeout=probe.get("timeoutSeconds", 1))
        try:
            connection.request("GET", question["path"])
            return 200 <= connection.getresponse().status < 400
        except OSError:
            return False
        finally:
            connection.close()

    def _end(self):
        """The grace period begins with the deletion: what preStop takes is taken from it."""
        self.is_ready = False
        period = real(self.spec["terminationGracePeriodSeconds"])
        killed_at = time.monotonic() + period
        self.ended.wait(real(self.container["lifecycle"]["preStop"]["sleep"]["seconds"]))
        if self.process.poll() is not None:
            self.faults.append("ended by itself")
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=killed_at - time.monotonic())
        except subprocess.TimeoutExpired:
            self.faults.append("killed after the grace period")
        self.took = time.monotonic() - (killed_at - period)

    def delete(self):
        self.deleted.set()

    def end_now(self):
        """With the test."""
        self.process.kill()
        self.deleted.set()
        self.thread.join()


class Controller:
    """A Deployment and its EndpointSlice. `on_change` is told the ready pods whenever these change."""

    def __init__(self, deployment, directory, secrets, **overrides):
        self.spec = deployment["spec"]
        self.name = deployment["metadata"]["name"]
        self.directory, self.secrets, self.overrides = directory, secrets, overrides
        self.on_change = lambda pods: None
        self.pods, self.all = [], []
        self.fewest = None

    def scale(self, count):
        """To a number of pods, all at once, as a first rollout does."""
        for _ in range(count):
            self._add()
        for pod in self.pods:
            eventually(lambda: pod.is_ready or pod.faults, within=30)
        self._publish()

    def _add(self):
        number = len(self.all)
        pod = Pod(self.spec["template"], f"{self.name}-{number}", self.directory / f"pod-{number}", self.secrets, **self.overrides)
        self.all.append(pod)
        self.pods.append(pod)
        return pod

    def _publish(self):
        ready = [pod for pod in self.pods if pod.is_ready]
        self.fewest = min(len(ready), self.fewest if self.fewest is not None else len(ready))
        self.on_change(ready)

    def replace_all(self):
        """A rolling update with maxUnavailable 0 and maxSurge 1: a new pod has to be available before an old one goes."""
        assert self.spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        for old in list(self.pods):
            new = self._add()
            eventually(lambda: new.is_ready or new.faults, within=30)
            self._publish()
            # Available is who has been ready for so long.
            new.deleted.wait(real(self.spec["minReadySeconds"]))
            assert new.is_ready, new.faults
            self.pods.remove(old)
            old.delete()
            self._publish()

    def wait_for_ends(self):
        for pod in self.all:
            if pod not in self.pods:
                pod.ended.wait(timeout=real(self.spec["template"]["spec"]["terminationGracePeriodSeconds"]) + 10)

    def end(self):
        for pod in self.all:
            pod.end_now()
