"""What the manifests promise beyond their form: few rights, names that meet, times that fit, settings and metrics that exist."""

import math
import re
import subprocess
import tomllib

import pytest
import yaml

from gatecast import GATECAST, ROOT, clean_environment, command, eventually
from k8s import (K8S, OVERLAYS, arguments, environment, matches, named, node_container, node_pod, of_kind, overlay,
                 quantity, seconds, secret_values, with_component)
from management import KEYS

ALL = pytest.mark.parametrize("name", OVERLAYS)
PRODUCTION = pytest.mark.parametrize("name", [name for name in OVERLAYS if name != "trial"])
# From the last connection's end to the process's, on a host that is busy.
EXIT_SECONDS = 10
ADAPTER = yaml.safe_load((K8S / "components/autoscaling/prometheus-adapter.yaml").read_text())


KEEPER = "gatecast-deletion-cost"
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def pods(objects):
    return [each["spec"]["template"] for each in of_kind(objects, "Deployment")]


def keeper_pod(objects):
    """The pod that keeps deletion costs; None where there is none."""
    return next((pod for pod in pods(objects) if pod["spec"].get("serviceAccountName") == KEEPER), None)


def config(objects):
    return tomllib.loads(named(objects, "ConfigMap")["data"]["gatecast.toml"])


def limit(objects, name):
    """A limit, as the environment or the file has it."""
    variables = {each["name"]: each.get("value") for each in node_container(objects)["env"]}
    value = variables.get(f"GATECAST_LIMITS_{name.upper()}", config(objects)["limits"].get(name))
    return int(value)


def autoscaler(objects):
    return next(iter(of_kind(objects, "HorizontalPodAutoscaler")), None)


def fewest_and_most(objects):
    if scaler := autoscaler(objects):
        return scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]
    return (named(objects, "Deployment")["spec"]["replicas"],) * 2


@ALL
def test_pods_have_no_rights(name):
    for pod in pods(overlay(name)):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers"} & spec.keys()
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0 and spec["securityContext"]["runAsGroup"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume.keys() - {"name"}}
        assert kinds <= ({"projected"} if pod is keeper_pod(overlay(name)) else {"configMap"})
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
            }
            assert re.search(r":[0-9][^:/]*$", container["image"]), "an image is named with its version"
            assert all(mount["readOnly"] for mount in container.get("volumeMounts", []))
            assert not [one for one in container.get("env", []) if "SECRET" in one["name"] and "value" in one]


@ALL
def test_one_pod_has_the_rights_it_needs_and_no_other_has_any(name):
    objects = overlay(name)
    assert not of_kind(objects, "ClusterRole") + of_kind(objects, "ClusterRoleBinding")
    accounts = {each["metadata"]["name"]: each for each in of_kind(objects, "ServiceAccount")}
    assert all(each["automountServiceAccountToken"] is False for each in accounts.values())
    assert {pod["spec"].get("serviceAccountName") for pod in pods(objects)} - {None} == set(accounts)
    if name == "trial":
        assert not of_kind(objects, "Role") + of_kind(objects, "RoleBinding") and keeper_pod(objects) is None
        return
    (role,), (binding,) = of_kind(objects, "Role"), of_kind(objects, "RoleBinding")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]}]
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
    (subject,) = binding["subjects"]
    spec = keeper_pod(objects)["spec"]
    assert subject == {"kind": "ServiceAccount", "name": spec["serviceAccountName"], "namespace": role["metadata"]["namespace"]}
    assert [pod for pod in pods(objects) if pod["spec"].get("serviceAccountName") == subject["name"]] == [keeper_pod(objects)]
    # Where the program looks without being told, and what it looks for there.
    (volume,), (mount,) = spec["volumes"], spec["containers"][0]["volumeMounts"]
    assert mount == {"name": volume["name"], "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    token, ca, namespace = (next(iter(source.values())) for source in volume["projected"]["sources"])
    assert token == {"path": "token", "expirationSeconds": 3600}
    assert ca == {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    assert namespace == {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}


@PRODUCTION
def test_the_keeper_of_costs_means_the_nodes_and_reaches_them(name):
    objects = overlay(name)
    deployment, node = named(objects, "Deployment", KEEPER)["spec"], node_pod(objects)
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    (container,) = keeper_pod(objects)["spec"]["containers"]
    assert container["image"] == node_container(objects)["image"]
    command_name, *words = container["args"]
    flags = dict(word.removeprefix("--").split("=", 1) for word in words)
    assert command_name == "pod-deletion-cost"
    chosen = dict(label.split("=") for label in flags["selector"].split(","))
    assert [pod for pod in pods(objects) if chosen.items() <= pod["metadata"]["labels"].items()] == [node]
    # The port that the program looks for, and its own.
    assert "admin" in {port["name"] for port in node_container(objects)["ports"]}
    assert flags["admin-listen"] == f"0.0.0.0:{container['ports'][0]['containerPort']}"
    assert container["livenessProbe"]["httpGet"] == {"path": "/live", "port": container["ports"][0]["name"]}
    policies = [each["spec"] for each in of_kind(objects, "NetworkPolicy")]
    (own,) = [each for each in policies if matches(each["podSelector"], keeper_pod(objects)["metadata"]["labels"])]
    assert set(own["policyTypes"]) == {"Ingress", "Egress"}
    assert own["ingress"] == [{"from": [MONITORING], "ports": [{"port": "admin"}]}]
    to_nodes, to_server = own["egress"]
    (peer,) = to_nodes["to"]
    assert matches(peer["podSelector"], node["metadata"]["labels"]) and to_nodes["ports"] == [{"port": "admin"}]
    assert to_server == {"ports": [{"port": 443}, {"port": 6443}]}


@ALL
def test_pods_ask_for_what_they_need_and_memory_is_bounded(name):
    objects = overlay(name)
    for pod in pods(objects):
        for container in pod["spec"]["containers"]:
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"} and resources["limits"].keys() == {"memory"}
    # 5 KiB a connection, and two inboxes.
    asked = quantity(node_container(objects)["resources"]["requests"]["memory"])
    bound = quantity(node_container(objects)["resources"]["limits"]["memory"])
    idle = limit(objects, "max_connections") * (5 << 10)
    assert idle <= asked and idle + config(objects)["shards"] * (64 << 20) < bound


@ALL
def test_the_cluster_enforces_the_rights(name):
    (namespace,) = of_kind(overlay(name), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for each in overlay(name):
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == namespace["metadata"]["name"]


@ALL
def test_services_meet_pods_and_ports(name):
    objects = overlay(name)
    for service in of_kind(objects, "Service"):
        chosen = [pod for pod in pods(objects) if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
        assert len(chosen) == 1, service["metadata"]["name"]
        ports = {port["name"] for container in chosen[0]["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


@ALL
def test_a_deployment_selects_its_own_pods_only(name):
    objects = overlay(name)
    for deployment in of_kind(objects, "Deployment"):
        chosen = [pod for pod in pods(objects) if matches(deployment["spec"]["selector"], pod["metadata"]["labels"])]
        assert chosen == [deployment["spec"]["template"]]
    labels = node_pod(objects)["metadata"]["labels"]
    for constraint in node_pod(objects)["spec"]["topologySpreadConstraints"]:
        assert matches(constraint["labelSelector"], labels)
    for budget in of_kind(objects, "PodDisruptionBudget"):
        assert matches(budget["spec"]["selector"], labels) and budget["spec"]["maxUnavailable"] == 1


@ALL
def test_probes_ask_the_admin_port(name):
    container = node_container(overlay(name))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for kind, port in (("--listen", "public"), ("--admin-listen", "admin")):
        (word,) = [word for word in container["args"] if word.startswith(f"{kind}=")]
        assert word.endswith(f":{ports[port]}")
    pages = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert pages == {"startup": {"path": "/live", "port": "admin"}, "liveness": {"path": "/live", "port": "admin"},
                     "readiness": {"path": "/ready", "port": "admin"}}


@ALL
def test_only_who_has_to_reaches_a_node(name):
    objects = overlay(name)
    labels = node_pod(objects)["metadata"]["labels"]
    policies = [each["spec"] for each in of_kind(objects, "NetworkPolicy") if matches(each["spec"]["podSelector"], labels)]
    assert {kind for policy in policies for kind in policy["policyTypes"]} == {"Ingress", "Egress"}
    rules = [rule for policy in policies for rule in policy.get("ingress", [])]
    for rule in rules:
        assert rule["from"], "nobody is let in without a name"
    admin = [rule for rule in rules if {"port": "admin"} in rule["ports"]]
    peers = [peer for rule in admin for peer in rule["from"]]
    assert peers[0] == MONITORING and all(rule["ports"] == [{"port": "admin"}] for rule in admin)
    if name == "trial":
        assert len(peers) == 1
    else:
        (keeper,) = peers[1:]
        assert keeper.keys() == {"podSelector"}
        assert [pod for pod in pods(objects) if matches(keeper["podSelector"], pod["metadata"]["labels"])] == [keeper_pod(objects)]
    egress = [rule for policy in policies for rule in policy.get("egress", [])]
    ports = {port["port"] for rule in egress for port in rule["ports"]}
    assert ports == ({53, "redis"} if name == "trial" else {53, 6379, 6380, 26379})
    # A label that kustomize adds everywhere would also narrow who is meant.
    peers = [peer for rule in rules for peer in rule["from"]]
    assert {"podSelector": {"matchLabels": {"gatecast/client": "true"}}} in peers


@ALL
def test_the_grace_period_covers_the_drain(name):
    objects = overlay(name)
    spec, drain = named(objects, "Deployment")["spec"], config(objects)["drain"]
    pre_stop = node_container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
    fewest, most = fewest_and_most(objects)
    rate = limit(objects, "handshake_rate")
    # As docs/decisions has it: half of what each pod that stays lets in.
    closing = limit(objects, "max_connections") / (rate / 2 * (fewest - 1))
    notice, window, grace = (seconds(drain[each]) for each in ("notice", "window", "grace"))
    assert closing <= window
    whole = pre_stop + notice + window + grace + EXIT_SECONDS
    period = spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert whole <= period <= whole + 30
    assert spec["minReadySeconds"] >= pre_stop + notice + closing, "one pod drains at a time"
    assert spec["progressDeadlineSeconds"] >= most * (period + spec["minReadySeconds"])
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_the_comment_on_the_drain_has_its_numbers():
    objects = overlay("production")
    text = (K8S / "base/deployment.yaml").read_text().split("\napiVersion")[0]
    spec = named(objects, "Deployment")["spec"]
    for words, number in (("grace 90 s", spec["template"]["spec"]["terminationGracePeriodSeconds"]),
                          ("minReady 40 s", spec["minReadySeconds"]), ("1,560 s", spec["progressDeadlineSeconds"]),
                          ("replicas (12", fewest_and_most(objects)[1]), ("50,000", limit(objects, "max_connections"))):
        assert words in text and str(number) in words.replace(",", "")


@ALL
def test_a_pod_is_probed_before_it_counts_and_noticed_while_it_drains(name):
    container = node_container(overlay(name))
    probe = container["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"]
    # Who asks only /ready (a load balancer outside) hears of the end within drain.notice.
    assert noticed <= seconds(config(overlay(name))["drain"]["notice"])
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 30


@ALL
def test_every_setting_and_variable_exists(name, tmp_path):
    objects = overlay(name)
    container = node_container(objects)
    (mount,) = container["volumeMounts"]
    (volume,) = node_pod(objects)["spec"]["volumes"]
    files = named(objects, "ConfigMap")
    assert volume["configMap"]["name"] == files["metadata"]["name"] and volume["name"] == mount["name"]
    for file, text in files["data"].items():
        (tmp_path / file).write_text(text)
    secrets = {"gatecast": KEYS | {"GATECAST_REDIS_URL": "rediss://gatecast:secret@redis.example.com:6380/0"}}
    if found := of_kind(objects, "Secret"):
        secrets = {each["metadata"]["name"]: secret_values(each) for each in found}
    values = environment(container, "gatecast-0", secrets)
    serve, *rest = [word.replace(mount["mountPath"], str(tmp_path)) for word in arguments(container, values)]
    assert serve == "serve"
    result = command("check", *rest, **values)
    assert (result.returncode, result.stderr) == (0, "")
    assert "is not a setting" not in result.stdout


def test_the_secret_that_production_needs_is_described():
    text = (K8S / "overlays/production/kustomization.yaml").read_text()
    described = set(re.findall(r"--from-literal=(\w+)=", text))
    variables = [each["valueFrom"]["secretKeyRef"] for each in node_container(overlay("production"))["env"]
                 if "secretKeyRef" in each.get("valueFrom", {})]
    assert {variable["name"] for variable in variables} == {"gatecast"}
    assert {variable["key"] for variable in variables} == described


@PRODUCTION
def test_the_autoscaler_counts_what_nodes_tell(name, node, tmp_path):
    scaler = autoscaler(overlay(name))
    deployment = named(overlay(name), "Deployment")
    assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gatecast"}
    assert "replicas" not in deployment["spec"]
    (pods_metric,) = [each["pods"] for each in scaler["spec"]["metrics"] if each["type"] == "Pods"]
    metric = pods_metric["metric"]["name"]
    assert metric in {sample.name for sample in node.samples()}
    (rule,) = ADAPTER["rules"]["custom"]
    assert rule["name"]["as"] == metric and rule["seriesQuery"].startswith(metric + "{")
    query = rule["metricsQuery"].replace("<<.Series>>", metric).replace("<<.LabelMatchers>>", 'namespace="x"')
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "adapter", "rules": [
        {"record": "series", "expr": rule["seriesQuery"]}, {"record": "asked", "expr": query.replace("<<.GroupBy>>", "pod")}]}]}))
    subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yaml"], check=True, capture_output=True)
    target = int(pods_metric["target"]["averageValue"])
    capacity = limit(overlay(name), "max_connections")
    fewest = scaler["spec"]["minReplicas"]
    assert target * fewest <= capacity * (fewest - 1), "one may fail"
    down = scaler["spec"]["behavior"]["scaleDown"]
    period = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert all(policy["value"] == 1 and policy["periodSeconds"] >= period for policy in down["policies"])
    assert down["stabilizationWindowSeconds"] >= 600


@PRODUCTION
def test_the_way_in_waits_longer_than_the_pings(name, tmp_path):
    objects = overlay(name)
    (ingress,) = of_kind(objects, "Ingress")
    annotations = ingress["metadata"]["annotations"]
    read = int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"])
    tunnel = seconds(annotations["haproxy.org/timeout-tunnel"])
    # The README's default: 25 s, a tenth more by jitter, and the time-out of the pong. Two may be late.
    assert min(read, tunnel) > 2 * (25 * 1.1 + 10)
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    services = {each["metadata"]["name"]: each for each in of_kind(objects, "Service")}
    for rule in ingress["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]["spec"]["ports"]}
    (route,) = of_kind(with_component(tmp_path, "gateway"), "HTTPRoute")
    for rule in route["spec"]["rules"]:
        assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
        for backend in rule["backendRefs"]:
            assert backend["port"] in {port["port"] for port in services[backend["name"]]["spec"]["ports"]}


def test_the_redis_of_the_trial_starts_as_written(tmp_path):
    (container,) = named(overlay("trial"), "Deployment", "gatecast-redis")["spec"]["template"]["spec"]["containers"]
    program, *words = container["args"]
    words = [str(tmp_path) if word == "/tmp" else word for word in words]
    line = [program, *words, "--port", "0", "--unixsocket", str(tmp_path / "socket")]

    def ask(*question):
        answer = subprocess.run(["redis-cli", "-s", tmp_path / "socket", *question], capture_output=True, text=True, timeout=10)
        return answer.stdout.split()

    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, env=clean_environment())
    try:
        eventually(lambda: process.poll() is not None or ask("PING") == ["PONG"])
        assert ask("CONFIG", "GET", "maxmemory-policy") == ["maxmemory-policy", "noeviction"]
        maximum = int(ask("CONFIG", "GET", "maxmemory")[1])
        assert maximum * 2 < quantity(container["resources"]["limits"]["memory"])
    finally:
        process.kill()
        process.wait()


def test_the_commands_that_people_read_first_name_what_exists():
    texts = [path.read_text() for path in (ROOT / "README.md", ROOT / "docs/operations.md", *K8S.glob("overlays/*/kustomization.yaml"))]
    applied = {name for text in texts for name in re.findall(r"kubectl apply -k k8s/overlays/(\w+)", text)}
    assert "trial" in applied and applied <= set(OVERLAYS)
    trial = overlay("trial")
    assert node_container(trial)["image"] == f"gatecast:{version()}"
    assert math.prod(fewest_and_most(trial)) == 9


def version():
    result = subprocess.run([GATECAST, "--version"], check=True, capture_output=True, text=True)
    return result.stdout.split()[1]
