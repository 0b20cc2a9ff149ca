"""The image, built and run as far as that goes without a container engine: its instructions are carried out in plain folders."""

import os
import re
import shlex
import shutil
import socket
import stat
import struct
import subprocess
import threading

import pytest

from gatecast import ROOT, TARGET, clean_environment, connection_id, eventually, request
from k8s import seconds
from management import KEYS, signed
from ports import free_port
from websockets.sync.client import connect

DOCKERFILE = ROOT / "deploy/Dockerfile"
# All that its build differs in, so that it takes seconds and not minutes: it is not optimized. Linking is the same.
QUICK = {"CARGO_PROFILE_RELEASE_OPT_LEVEL": "0", "CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_DEBUG": "0",
         "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "256"}
NAMESERVER = "127.0.0.53"
# The build of all dependencies, where there is none yet.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(1200)]


def stages():
    """The instructions of each stage."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest.strip()))
    return found


def of(stage, word):
    return [rest for name, rest in stage if name == word]


def build(folder):
    """Carries out the first stage; returns the program that it makes."""
    stage, _ = stages()
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text()
    (work,) = of(stage, "WORKDIR")
    for words in of(stage, "COPY"):
        *sources, destination = words.split()
        for source in sources:
            assert f"\n!{source}\n" in ignored, f"{source} is not in the context"
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / destination)
            else:
                shutil.copy2(ROOT / source, folder / destination)
    (folder / "target").symlink_to(TARGET / "image")
    (TARGET / "image").mkdir(parents=True, exist_ok=True)
    for command in of(stage, "RUN"):
        command = re.sub(r"--mount=\S+", "", command)
        environment = clean_environment(QUICK | {"CARGO_TARGET_DIR": str(folder / "target")})
        result = subprocess.run(["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    return lambda path: folder / path.removeprefix(f"{work}/")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A folder with what the image holds, and nothing else."""
    place = build(tmp_path_factory.mktemp("build"))
    root = tmp_path_factory.mktemp("image")
    root.chmod(0o755)
    for words in of(stages()[1], "COPY"):
        option, source, destination = words.split()
        assert option == "--from=build"
        target = root / destination.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        # What the stage did not make comes with its base, which is Debian's, as this host may be.
        shutil.copy2(place(source) if source.startswith("/src/") else source, target)
    # An engine brings these. A static program does not find getrandom(2) at run time, and takes the devices.
    (root / "dev").mkdir()
    for name, number in (("random", 8), ("urandom", 9)):
        os.mknod(root / "dev" / name, stat.S_IFCHR | 0o444, os.makedev(1, number))
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc/resolv.conf").write_text(f"nameserver {NAMESERVER}\noptions timeout:1\n")
    return root


def in_image(root, *words):
    """The command line that runs the program as the image's user, with the image for its whole file system."""
    (user,) = of(stages()[1], "USER")
    (entry,) = of(stages()[1], "ENTRYPOINT")
    (program,) = map(str, shlex.split(entry.strip("[]")))
    return ["chroot", f"--userspec={user}", str(root), program, *map(str, words)]


def variables():
    return dict(pair.split("=", 1) for line in of(stages()[1], "ENV") for pair in line.split())


def ports(free=(0, 0)):
    """The image's variables, on ports of loopback that are free."""
    names = ("GATECAST_LISTEN", "GATECAST_ADMIN_LISTEN")
    assert variables().keys() == set(names)
    return {name: f"127.0.0.1:{port}" for name, port in zip(names, free)}


class NameServer:
    """Answers every question for an A record with this host's address."""

    def __enter__(self):
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((NAMESERVER, 53))
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        # A datagram of no length ends the loop.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (NAMESERVER, 53))
        self.thread.join()
        self.socket.close()

    def _run(self):
        while True:
            query, sender = self.socket.recvfrom(512)
            if not query:
                return
            end = query.index(0, 12) + 5
            (kind,) = struct.unpack(">H", query[end - 4:end - 2])
            self.asked.append(query[12:end - 5])
            answer = struct.pack(">HHHLH", 0xC00C, 1, 1, 60, 4) + bytes([127, 0, 0, 1]) if kind == 1 else b""
            head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1 if answer else 0, 0, 0)
            self.socket.sendto(head + query[12:end] + answer, sender)


def probe(root, environment, page):
    return subprocess.run(in_image(root, "probe", page), env=environment, capture_output=True, text=True, timeout=20)


def test_the_image_runs_alone_as_nobody_and_finds_redis_by_name(image, redis, tmp_path, note):
    program = image / "gatecast"
    # No interpreter is named in a static program.
    assert b"ld-linux" not in subprocess.run(["readelf", "--program-headers", program], capture_output=True, check=True).stdout
    settings = ports((free_port(), free_port())) | KEYS | {"GATECAST_REDIS_URL": f"redis://redis.example.test:{redis.port}"}
    environment = clean_environment(settings)
    address = tuple(settings["GATECAST_LISTEN"].split(":"))
    assert probe(image, environment, "live").returncode == 1, "nobody is there yet"
    with NameServer() as names, open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(in_image(image), env=environment, stdout=log, stderr=log)
        try:
            eventually(lambda: probe(image, environment, "ready").returncode == 0, within=20)
            with open(f"/proc/{process.pid}/status") as status:
                assert re.search(r"^Uid:\s65532\s", status.read(), re.M)
            with connect(f"ws://{':'.join(address)}/beta", compression=None, proxy=None) as client:
                response, _ = signed(address, "POST", f"/beta/@connections/{connection_id(client)}", b"hello",
                                     KEYS["GATECAST_SECRET_ACCESS_KEY"])
                assert (response.status, client.recv(timeout=10)) == (200, "hello")
            assert b"\x05redis\x07example\x04test" in names.asked
            assert request(address, "GET", "/beta/@nothing")[0].status != 200
        finally:
            process.terminate()
            assert process.wait(timeout=20) == 0, (tmp_path / "log").read_text()
    note(f"image: the program has {program.stat().st_size / 1e6:.1f} MB, not optimized")


def test_the_image_is_not_open_to_everybody_by_default(image):
    result = subprocess.run(in_image(image), env=clean_environment(variables()), capture_output=True, text=True, timeout=20)
    assert result.returncode == 64 and "set access_key_id" in result.stderr


def test_the_health_check_is_a_command_that_the_image_has(image):
    (check,) = of(stages()[1], "HEALTHCHECK")
    options, command = check.split(" CMD ")
    program, *words = shlex.split(command.strip("[]").replace(",", ""))
    assert (program, words) == ("/gatecast", ["probe", "live"])
    # The program waits 2 s for each step.
    assert seconds(re.search(r"--timeout=(\S+)", options)[1]) > 4
