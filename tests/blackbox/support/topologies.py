"""Real Redis in all its forms: alone with a password, a database, few rights or TLS; behind Sentinel; as a Cluster."""

import itertools
import math
import re
import subprocess
import time
from contextlib import ExitStack, contextmanager

import pytest

from cluster import LONG_LEASE
from gatecast import eventually
from ports import free_port

PASSWORD = "ground:control@moon/1"  # What has to be quoted in a URL is in it.
QUOTED = "ground%3Acontrol%40moon%2F1"
# What a gateway may do at least; see the README.
RIGHTS = (
    "~gatecast:* &gatecast:* -@all +ping +select +info +evalsha +script|load +get +hset +hmget +hdel +hlen +hscan "
    "+xadd +xrange +set +psetex +pexpire +del +exists +sadd +srem +smembers +time +pubsub|numsub +publish +subscribe +unsubscribe"
)
CLUSTER_RIGHTS = "+pubsub|shardnumsub +cluster|info +cluster|slots +asking +spublish +ssubscribe +sunsubscribe"


class Server:
    """One process of `redis-server` with its own directory and port, which may be killed and started again."""

    def __init__(self, directory, *options, client=(), sentinel=None):
        directory.mkdir(parents=True)
        self.directory, self.options, self.client, self.sentinel = directory, options, client, sentinel
        self.port = free_port()
        assert self.start(), f"redis-server did not start: {self.log()}"

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        """Returns whether the server is there; it is not if another process has the port."""
        with open(self.directory / "redis.log", "ab") as log:
            self.process = subprocess.Popen(self._line(), stdout=log, stderr=log)
        own = f"process_id:{self.process.pid}"
        eventually(lambda: self.process.poll() is not None or own in self.ask("INFO", "server"))
        return self.process.poll() is None

    def _line(self):
        if self.sentinel:
            configuration = self.directory / "sentinel.conf"
            if not configuration.exists() or f"port {self.port}\n" not in configuration.read_text():
                configuration.write_text(f"port {self.port}\nbind 127.0.0.1\n{self.sentinel}")
            return ["redis-server", str(configuration), "--sentinel"]
        # An option that is named later counts: `--port 0` where TLS alone is spoken.
        own = ["--port", self.port, "--bind", "127.0.0.1", "--dir", self.directory, "--save", "", "--appendonly", "no"]
        options = [str(word).replace("OWN_PORT", str(self.port)) for word in self.options]
        return ["redis-server", *map(str, own), *options]

    def log(self):
        return (self.directory / "redis.log").read_text()

    def ask(self, *words):
        line = ["redis-cli", "-p", str(self.port), *self.client, *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, timeout=10).stdout.strip()

    def info(self, section, field):
        found = re.search(rf"^{field}:(\S*)$", self.ask("INFO", section).replace("\r", ""), re.M)
        return found[1] if found else None

    def kill(self):
        self.process.kill()
        self.process.wait()


class Form:
    """Redis as a node's settings see it: some servers, a URL, and more settings."""

    def __init__(self, directory):
        self.directory, self.servers = directory, []
        self.settings = {}

    def serve(self, *options, **more):
        self.servers.append(Server(self.directory / f"server-{len(self.servers)}", *options, **more))
        return self.servers[-1]

    def build(self):
        """Starts the servers; sets `url`."""
        self.url = f"redis://{self.serve().address}"

    def data_servers(self):
        return [server for server in self.servers if not server.sentinel and server.process.poll() is None]

    def cut_subscribers(self):
        """Ends the connections that listen, on all servers; returns how many there were."""
        return sum(int(server.ask("CLIENT", "KILL", "TYPE", "pubsub") or 0) for server in self.data_servers())

    def mentions(self, text):
        """The first key whose record holds a text. Streams are not asked: they keep what was once said."""
        reads = {"hash": ["HGETALL"], "set": ["SMEMBERS"], "string": ["GET"], "zset": ["ZRANGE", "0", "-1"]}
        for server in self.data_servers():
            for key in server.ask("KEYS", "*").split():
                read, *rest = reads.get(server.ask("TYPE", key), ["EXISTS"])
                if text in key or text in server.ask(read, key, *rest):
                    return key
        return None

    def masters(self):
        return [server for server in self.data_servers() if server.info("replication", "role") == "master"]

    def history(self, channel):
        """The texts, each in a short frame, that the stream of a channel holds, in order."""
        read = """local texts = {}
            for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
                texts[#texts + 1] = string.sub(entry[2][2], 3)
            end
            return texts"""
        keys = [(server, key) for server in self.masters() for key in server.ask("KEYS", f"*{channel}:stream").split()]
        ((server, key),) = keys
        return server.ask("EVAL", read, 1, key).splitlines()

    def end(self):
        for server in self.servers:
            server.kill()


class Password(Form):
    def build(self):
        server = self.serve("--requirepass", PASSWORD, client=("-a", PASSWORD, "--no-auth-warning"))
        self.url = f"redis://:{QUOTED}@{server.address}"
        self.wrong_url = f"redis://:wrong@{server.address}"


def let_in(server, rights):
    assert server.ask("ACL", "SETUSER", "major", "on", f">{PASSWORD}", *rights.split()) == "OK"


class FewRights(Form):
    def build(self):
        server = self.serve()
        let_in(server, RIGHTS)
        self.url = f"redis://major:{QUOTED}@{server.address}"
        self.wrong_url = f"redis://tom:{QUOTED}@{server.address}"


class Database(Form):
    def build(self):
        server = self.serve(client=("-n", "7"))
        self.url = f"redis://{server.address}/7"


class Certificates:
    """An authority, a server's certificate for this machine and a client's, made with `openssl`."""

    def __init__(self, directory):
        directory.mkdir(parents=True)
        self.directory = directory
        self.authority, self.authority_key = self._authority("authority")
        self.stranger, _ = self._authority("stranger")
        self.server = self._signed("server", "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth")
        self.client = self._signed("client", "subjectAltName=DNS:gatecast\nextendedKeyUsage=clientAuth")

    def _openssl(self, *words):
        done = subprocess.run(["openssl", *map(str, words)], cwd=self.directory, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr

    def _authority(self, name):
        files = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 2,
                      "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign", "-out", files[0], "-keyout", files[1])
        return files

    def _signed(self, name, extensions):
        certificate, key, request = (self.directory / f"{name}.{end}" for end in ("pem", "key", "csr"))
        (self.directory / f"{name}.ext").write_text(f"basicConstraints=CA:FALSE\n{extensions}\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
                      "-out", request, "-keyout", key)
        self._openssl("x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", self.authority_key, "-CAcreateserial",
                      "-days", 2, "-extfile", f"{name}.ext", "-out", certificate)
        return certificate, key

    def server_options(self, port, auth_clients="no"):
        certificate, key = self.server
        return ["--port", 0, "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key,
                "--tls-ca-cert-file", self.authority, "--tls-auth-clients", auth_clients]

    def client_options(self):
        certificate, key = self.client
        return ("--tls", "--cacert", str(self.authority), "--cert", str(certificate), "--key", str(key))


class Tls(Form):
    """Encrypted alone; the server shows a certificate of an authority that nobody knows by itself."""

    auth_clients = "no"

    def build(self):
        certificates = self.certificates = Certificates(self.directory / "certificates")
        options = certificates.server_options("OWN_PORT", self.auth_clients)
        server = self.serve(*options, client=certificates.client_options())
        self.url = f"rediss://{server.address}"
        self.settings = {"GATECAST_REDIS_TLS_CA_FILE": str(certificates.authority)}


class TlsWithClientCertificate(Tls):
    auth_clients = "yes"

    def build(self):
        super().build()
        certificate, key = self.certificates.client
        self.settings |= {"GATECAST_REDIS_TLS_CERT_FILE": str(certificate), "GATECAST_REDIS_TLS_KEY_FILE": str(key)}


class Sentinel(Form):
    """A master, two replicas, and three sentinels with a password of their own, as have the data."""

    name = "moon"
    sentinel_password = "major tom"

    def build(self):
        secret = ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0"]
        own = ("-a", PASSWORD, "--no-auth-warning")
        master = self.serve(*secret, client=own)
        replicas = [self.serve(*secret, "--replicaof", f"127.0.0.1 {master.port}", client=own) for _ in range(2)]
        self.data = [master, *replicas]
        eventually(lambda: all(replica.info("replication", "master_link_status") == "up" for replica in replicas))
        configuration = (
            f'dir "{self.directory}"\n'
            f'sentinel monitor {self.name} 127.0.0.1 {master.port} 2\n'
            f'sentinel auth-pass {self.name} "{PASSWORD}"\n'
            f"sentinel down-after-milliseconds {self.name} 1000\n"
            f"sentinel failover-timeout {self.name} 6000\n"
            f'requirepass "{self.sentinel_password}"\n'
            f'sentinel sentinel-pass "{self.sentinel_password}"\n'
        )
        asking = ("-a", self.sentinel_password, "--no-auth-warning")
        self.sentinels = [self.serve(sentinel=configuration, client=asking) for _ in range(3)]
        self.url = f"redis+sentinel://:{QUOTED}@{','.join(each.address for each in self.sentinels)}/{self.name}"
        self.settings = {"GATECAST_REDIS_SENTINEL_PASSWORD": self.sentinel_password}
        eventually(self.knows_all, within=20)

    def views(self):
        """What each sentinel says of the master."""
        return [dict(zip(*[iter(each.ask("SENTINEL", "MASTER", self.name).split("\n"))] * 2)) for each in self.sentinels]

    def knows_all(self):
        """Whether every sentinel knows the others and both replicas, so that one may fail."""
        wanted = {"num-slaves": "2", "num-other-sentinels": "2", "flags": "master"}
        usable = (each.ask("SENTINEL", "REPLICAS", self.name).count("\nflags\nslave\n") == 2 for each in self.sentinels)
        return all(wanted.items() <= view.items() for view in self.views()) and all(usable)

    def is_settled(self):
        """Whether no sentinel is about to name another master, and the one they name is the only one."""
        said = {(view["flags"], view["port"]) for view in self.views()}
        return said == {("master", str(master.port)) for master in self.masters()} and len(said) == 1

    def master(self):
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name).split()
        return next(server for server in self.data if server.port == int(port))

    def fail_over(self):
        """As an operator does, while the master is well; returns when another is master for all."""
        old = self.master()
        assert eventually(lambda: self.sentinels[0].ask("SENTINEL", "FAILOVER", self.name)) == "OK"
        eventually(lambda: self.master() is not old and old.info("replication", "role") == "slave", within=20)

    def kill_master(self):
        """Returns when all agree on another: a sentinel that is late may promote one more, and the first is master for some seconds."""
        old = self.master()
        old.kill()
        eventually(lambda: self.master() is not old and self.is_settled(), within=40)


class Cluster(Form):
    """Three masters with a third of the slots each, and a replica of each."""

    scheme, options, client = "redis+cluster", (), ()

    def build(self):
        common = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", 1500,
                  "--cluster-replica-validity-factor", 0, "--repl-diskless-sync-delay", 0]
        self.bus_ports = {}
        for _ in range(6):
            bus_port = free_port()
            server = self.serve(*common, *self.options, "--cluster-port", bus_port, client=self.client)
            self.bus_ports[server] = bus_port
        masters, replicas = self.servers[:3], self.servers[3:]
        for number, master in enumerate(masters):
            first, last = 16_384 * number // 3, 16_384 * (number + 1) // 3 - 1
            assert master.ask("CLUSTER", "ADDSLOTSRANGE", first, last) == "OK"
            assert master.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1) == "OK"
        self.met = -math.inf
        eventually(self.are_acquainted, within=40)
        for master, replica in zip(masters, replicas):
            eventually(lambda: replica.ask("CLUSTER", "REPLICATE", self.id_of(master)) == "OK")
        eventually(self.is_whole, within=20)
        self.url = f"{self.scheme}://{','.join(master.address for master in masters)}"

    def are_acquainted(self):
        """Whether all know each other. They are asked to again and again: on a busy machine Redis gives up before it is done."""
        if {cluster_info(server, "cluster_known_nodes") for server in self.servers} == {"6"}:
            return True
        if time.monotonic() - self.met > 5:
            self.met = time.monotonic()
            for other in self.servers[1:]:
                assert self.servers[0].ask("CLUSTER", "MEET", "127.0.0.1", other.port, self.bus_ports[other]) == "OK"
        return False

    def id_of(self, server):
        return server.ask("CLUSTER", "MYID")

    def is_whole(self):
        """Whether all that run agree that all slots are served, and the replicas follow."""
        servers = self.data_servers()
        states = {cluster_info(server, "cluster_state") for server in servers}
        slots = {cluster_info(server, "cluster_slots_ok") for server in servers}
        links = {server.info("replication", "master_link_status") for server in servers} - {None}
        views = {frozenset(re.findall(r"^(\S+) \S+ \S*(master|slave)", server.ask("CLUSTER", "NODES"), re.M)) for server in servers}
        return (states, slots, links, len(views)) == ({"ok"}, {"16384"}, {"up"}, 1)

    def slot(self, name):
        return int(self.data_servers()[0].ask("CLUSTER", "KEYSLOT", name))

    def owner(self, name):
        """The master that serves a name, in its own view and in that of all others."""
        slot, views = self.slot(name), set()
        for server in self.data_servers():
            rows = [line.split() for line in server.ask("CLUSTER", "NODES").split("\n")]
            for row in rows:
                ranges = [list(map(int, part.split("-"))) for part in row[8:] if part[0] != "["]
                if any(first[0] <= slot <= first[-1] for first in ranges):
                    views.add(int(row[1].split(":")[1].split("@")[0]))
        return next(server for server in self.servers if {server.port} == views)

    def move(self, name):
        """Moves the slot of a name to another master, as `redis-cli --cluster reshard` does; returns the new owner."""
        source, slot = self.owner(name), self.slot(name)
        target = next(master for master in self.masters() if master is not source)
        assert target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source)) == "OK"
        assert source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target)) == "OK"
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10).split():
            answer = source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            assert answer in ("OK", "NOKEY"), answer
        for server in [target, source, *(each for each in self.masters() if each not in (target, source))]:
            assert server.ask("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target)) == "OK"
        return target

    def kill_owner(self, name):
        """Kills the master that serves a name; returns when a replica has taken over for all."""
        old = self.owner(name)
        old.kill()
        eventually(self.is_served, within=30)

    def is_served(self):
        return {cluster_info(server, "cluster_state") for server in self.data_servers()} == {"ok"} and len(self.masters()) == 3


def cluster_info(server, field):
    found = re.search(rf"^{field}:(\S*)", server.ask("CLUSTER", "INFO"), re.M)
    return found[1] if found else None


# Every form in which everything has to work; those with a `wrong_url` also refuse it.
class FewRightsCluster(Cluster):
    def build(self):
        super().build()
        for server in self.servers:
            let_in(server, f"{RIGHTS} {CLUSTER_RIGHTS}")
        scheme, hosts = self.url.split("://")
        self.url = f"{scheme}://major:{QUOTED}@{hosts}"


class TlsCluster(Cluster):
    """The same, encrypted between clients and servers and among the servers."""

    scheme = "rediss+cluster"

    def build(self):
        certificates = Certificates(self.directory / "certificates")
        self.options = (*certificates.server_options("OWN_PORT"), "--tls-cluster", "yes", "--tls-replication", "yes")
        self.client = certificates.client_options()
        super().build()
        self.settings = {"GATECAST_REDIS_TLS_CA_FILE": str(certificates.authority)}


FORMS = {
    "alone": Form,
    "password": Password,
    "few_rights": FewRights,
    "database": Database,
    "tls": Tls,
    "tls_with_client_certificate": TlsWithClientCertificate,
    "sentinel": Sentinel,
    "cluster": Cluster,
    "few_rights_cluster": FewRightsCluster,
    "tls_cluster": TlsCluster,
}
prefixes = itertools.count()


@contextmanager
def form_of(name, directory):
    form = FORMS[name](directory)
    try:
        form.build()
        yield form
    finally:
        form.end()


@pytest.fixture(scope="module", params=FORMS)
def form(request, tmp_path_factory):
    """A Redis in every form, for all tests that do it no harm."""
    with form_of(request.param, tmp_path_factory.mktemp("redis")) as form:
        yield form


@pytest.fixture
def start_form(tmp_path):
    """Starts a Redis in one form, for a test that breaks it."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(form_of(name, tmp_path / "redis"))


@pytest.fixture
def start_on_form(start):
    """Starts nodes on a Redis, and waits as a load balancer does. Each call's nodes are a gateway of their own."""

    def start_on_form(form, count=3, config="", **environment):
        own = {"GATECAST_REDIS_URL": form.url, "GATECAST_REDIS_PREFIX": f"gatecast:{next(prefixes)}"}
        nodes = [start(config, **(LONG_LEASE | form.settings | own | environment)) for _ in range(count)]
        eventually(lambda: all(node.page("/ready")[0] == 200 for node in nodes), within=20)
        return nodes

    return start_on_form
