"""`gatecast check`: what cannot work is a fault that says what to write, and `serve` says the same."""

import os
import subprocess

import pytest

from gatecast import GATECAST, clean_environment, command

MIB = 1 << 20
# What is written in the file, and parts of its only fault.
FAULTS = {
    "pings without end": ('[limits]\nping_interval = "0s"', 'limits.ping_interval: 0ns is not within 10ms to 1h, or "off"'),
    "an origin without a scheme": ('auth.allowed_origins = ["app.example"]', 'write "https://app.example"'),
    "an origin in Unicode": ('auth.allowed_origins = ["https://bücher.example"]', 'write "https://xn--bcher-kva.example"'),
    "an origin with a path": ('auth.allowed_origins = ["https://app.example/chat"]', 'write "https://app.example"'),
    "no origin": ("auth.allowed_origins = []", '"*" for all'),
    "everybody as a proxy that names users": ('trusted_proxies = ["0.0.0.0/0"]\nauth.user_header = "X-User"', "has 0.0.0.0/0"),
    "a header of the connection": ('trusted_proxies = ["10.0.0.1"]\nauth.user_header = "Connection"', 'such as "X-User"'),
    "a secret of a letter": ('access_key_id = "AKID"\nsecret_access_key = "s"', "openssl rand"),
    "one port for all": ('listen = "127.0.0.1:4711"\nadmin_listen = "127.0.0.1:4711"', "need a port each"),
    "a lease of a heartbeat": ('[redis]\nurl = "redis://127.0.0.1"\nlease = "1s"', "3 heartbeats"),
    "a prefix for two slots": ('[redis]\nurl = "redis://127.0.0.1"\nprefix = "{a}"', "letters, digits"),
    "a route without a message": ('[routes."$connect"]\nintegration = "broadcast"\ndata = "$request.body.a"', "no message here"),
    "a rule that nothing reaches": ('[[groups]]\npattern = "*"\n[[groups]]\npattern = "a"', 'the rule above for "*"'),
}


def write(directory, text):
    path = directory / "gatecast.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_work_is_a_fault_for_check_and_serve(tmp_path, name):
    text, part = FAULTS[name]
    path = write(tmp_path, text)
    checked, served = command("check", "--config", path), command("serve", "--config", path)
    assert (checked.returncode, checked.stdout, checked.stderr) == (served.returncode, served.stdout, served.stderr)
    assert checked.returncode == 64
    first, fault = checked.stderr.splitlines()
    assert first == "gatecast: the configuration has 1 fault(s):"
    assert fault.startswith(f"{path}:") and part in fault


@pytest.mark.parametrize("text, part", [
    (b"a = " + b"[" * 200_000, "recurse"),
    (b"a = " + b"{a = " * 100_000, "recurse"),
    (b"a." * 100_000 + b"b = 1", "recursion"),
    (b'stage = "a"\n# Jos\xe9\n', "line 2 is not UTF-8"),
    (b"#" * (MIB + 1), "longer than 1 MiB"),
    (b"\0", ":1: "),
], ids=["lists", "tables", "dots", "latin", "long", "zero"])
def test_a_file_of_any_kind_is_refused_in_time(tmp_path, text, part):
    ended = command("check", "--config", write(tmp_path, text))
    assert ended.returncode == 64
    assert part in ended.stderr


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, part in ((pipe, "a pipe or a device"), ("/dev/zero", "a pipe or a device"), (tmp_path, "a directory")):
        ended = command("check", "--config", path)
        assert ended.returncode == 64
        assert f"cannot read {path}: " in ended.stderr and part in ended.stderr


def test_thousands_of_faults_are_counted_and_a_hundred_told(tmp_path):
    ended = command("check", "--config", write(tmp_path, "".join(f"unknown{number} = 1\n" for number in range(20_000))))
    assert ended.returncode == 64
    lines = ended.stderr.splitlines()
    assert "has 20000 fault(s)" in lines[0] and len(lines) == 102 and lines[-1] == "… and 19900 more"


def test_a_file_of_an_editor_on_windows_is_read(tmp_path):
    ended = command("check", "--config", write(tmp_path, b'\xef\xbb\xbfstage = "prod"\r\n[limits]\r\nframe_bytes = 0x1000\r\n'))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("The configuration is valid: stage prod, ")


def test_a_variable_that_is_not_text_is_a_fault_and_a_strangers_is_none():
    environment = {os.fsencode(name): os.fsencode(value) for name, value in clean_environment().items()}
    for name, code in ((b"GATECAST_STAGE", 64), (b"SOMEBODY_ELSES", 0), (b"OTHER\xff", 0)):
        ended = subprocess.run([str(GATECAST), "check"], env=environment | {name: b"\xff"}, capture_output=True, timeout=20)
        assert ended.returncode == code, ended.stderr
        assert (b"GATECAST_STAGE: not UTF-8" in ended.stderr) == (code == 64)


def test_an_unknown_variable_is_told_with_what_may_be_meant():
    ended = command("check", GATECAST_LIMITS_IDEL_TIMEOUT="1m")
    assert ended.returncode == 0
    assert "GATECAST_LIMITS_IDEL_TIMEOUT is not a setting; did you mean GATECAST_LIMITS_IDLE_TIMEOUT?" in ended.stdout


@pytest.mark.parametrize("level", ["debgu", "info,gatecast=loud", "info,verbose"])
def test_a_log_level_that_is_none_is_a_fault(level):
    for line in (["check"], ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]):
        ended = command(*line, RUST_LOG=level)
        assert ended.returncode == 64
        assert "RUST_LOG: " in ended.stderr and "write a level (error, warn, info" in ended.stderr


@pytest.mark.parametrize("level", ["debug", "INFO", "off", "gatecast=debug", "info,gatecast::http=trace,hyper=warn", "", "3"])
def test_a_log_level_that_is_one_is_taken(level):
    assert command("check", RUST_LOG=level).returncode == 0


def test_faults_of_all_sources_are_told_at_once(tmp_path):
    path = write(tmp_path, 'stage = "a b"\n')
    ended = command("check", "--config", path, "--listen", "nowhere", GATECAST_DRAIN_WINDOW="10 parsecs", RUST_LOG="debgu")
    assert ended.returncode == 64
    for part in (f"{path}:1: stage: ", "GATECAST_LISTEN: listen: ", "GATECAST_DRAIN_WINDOW: drain.window: ", "RUST_LOG: "):
        assert part in ended.stderr


def test_a_certificate_and_its_key_have_to_fit(tmp_path):
    for name in ("one", "other"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                        "-subj", f"/CN={name}", "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"],
                       check=True, capture_output=True)
    files = {"ca": tmp_path / "one.pem", "cert": tmp_path / "one.pem", "key": tmp_path / "one.key"}

    def check(url="rediss://127.0.0.1", **changed):
        lines = [f'tls_{name}_file = "{path}"' for name, path in (files | changed).items()]
        return command("check", "--config", write(tmp_path, "\n".join(["[redis]", f'url = "{url}"', *lines])))

    assert check().returncode == 0
    for changed, part in (
        ({"key": tmp_path / "other.key"}, "redis.tls_key_file: " + str(tmp_path / "other.key") + ": not the key of"),
        ({"key": files["cert"]}, "no private key in PEM"),
        ({"cert": files["key"]}, "no certificate in PEM"),
        ({"ca": tmp_path / "missing"}, "redis.tls_ca_file: " + str(tmp_path / "missing") + ": No such file"),
        ({"url": "redis://127.0.0.1"}, "write rediss instead of redis"),
    ):
        ended = check(**changed)
        assert ended.returncode == 64
        assert part in ended.stderr and len(ended.stderr.splitlines()) == 2, ended.stderr
