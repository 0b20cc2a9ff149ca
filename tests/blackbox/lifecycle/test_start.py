"""How the program starts, and how it refuses to."""

import json
import re
import socket

import pytest

from gatecast import EXAMPLES, command, eventually

EPHEMERAL = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")

FAULTY = """\
stage = "no/slash"
lisen = "127.0.0.1:0"

[limits]
idle_timeout = "ten minutes"
frame_bytes = 1

[drain]
windw = "3s"

[routes."$conect"]
integration = "mock"

[routes.chat]
integration = "brodcast"
"""
FAULTS = {
    1: ("stage",),
    2: ("lisen", '"listen"'),
    5: ("limits.idle_timeout", "duration"),
    6: ("limits.frame_bytes", "125"),
    9: ("drain.windw", '"window"'),
    11: ("routes.$conect", "$connect"),
    15: ("routes.chat", "brodcast", "broadcast"),
}


def test_the_urls_to_use_are_printed(node):
    host, port = node.address
    admin = f"http://{node.admin_address[0]}:{node.admin_address[1]}"
    expected = (
        rf"gatecast \d+\.\d+\.\d+ is listening\n"
        rf"  WebSockets  ws://{host}:{port}/beta\n"
        rf"  Management  http://{host}:{port}/beta/@connections\n"
        rf"  Admin       {admin}  \(/metrics /live /ready /info\)\n"
        rf"  Try         wscat -c ws://{host}:{port}/beta\n"
    )
    assert re.fullmatch(expected, node.greeting)
    assert node.page("/live")[0] == node.page("/ready")[0] == 200


def test_info_tells_what_runs_here(start):
    node = start(arguments=["--node-name", "major", "--stage", "tom"])
    assert node.url.endswith("/tom")
    with node.connect():
        info = json.loads(node.page("/info")[1])
        assert (info["node"], info["stage"], info["connections"]) == ("major", "tom", 1)


def test_flags_come_before_environment_before_file(start):
    both = start('stage = "file"', GATECAST_STAGE="environment", arguments=["--stage", "flag"])
    assert both.url.endswith("/flag")
    assert start('stage = "file"', GATECAST_STAGE="environment").url.endswith("/environment")
    assert start('stage = "file"').url.endswith("/file")


def test_every_setting_can_come_from_the_environment(start):
    node = start(GATECAST_LIMITS_IDLE_TIMEOUT="100ms")
    with node.connect() as client:
        eventually(lambda: client.close_code)
        assert client.close_code == 1001


@pytest.mark.parametrize("flag, place", [("--listen", "address"), ("--admin-listen", "admin_address")])
def test_a_taken_port_ends_the_program_with_69_and_one_clear_line(node, flag, place):
    host, port = getattr(node, place)
    arguments = dict(zip(EPHEMERAL[::2], EPHEMERAL[1::2])) | {flag: f"{host}:{port}"}
    ended = command(*[text for pair in arguments.items() for text in pair])
    assert ended.returncode == 69
    assert ended.stdout == ""
    said = [line for line in ended.stderr.splitlines() if line.startswith("gatecast: ")]
    assert said == [ended.stderr.splitlines()[-1]]
    assert said[0].startswith(f"gatecast: cannot listen on {host}:{port}: Address already in use")
    node.serves()


def test_a_port_can_be_bound_again_at_once(start):
    first = start()
    with first.connect():
        first.is_ended_by_test = True
        first.kill()
    second = start(listen="{}:{}".format(*first.address))
    assert second.address == first.address
    second.serves()


def test_a_bad_configuration_ends_both_commands_with_64_and_every_fault(tmp_path):
    path = tmp_path / "faulty.toml"
    path.write_text(FAULTY)
    for arguments in (["check", "--config", path], ["--config", path], ["serve", "--config", path]):
        ended = command(*arguments)
        assert (ended.returncode, ended.stdout) == (64, "")
        for line, parts in FAULTS.items():
            said = [text for text in ended.stderr.splitlines() if text.startswith(f"{path}:{line}: ")]
            assert len(said) == 1, (line, ended.stderr)
            assert all(part in said[0] for part in parts), said
        assert len(ended.stderr.splitlines()) == 1 + len(FAULTS)


def test_a_file_that_is_not_toml_is_refused_with_its_line(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text('stage = "beta"\n[limits\n')
    ended = command("check", "--config", path)
    assert ended.returncode == 64
    assert f"{path}:2: " in ended.stderr


def test_a_file_that_is_not_there_is_refused(tmp_path):
    ended = command("--config", tmp_path / "missing.toml")
    assert ended.returncode == 64
    assert "missing.toml" in ended.stderr


def test_a_faulty_variable_is_refused_by_its_name():
    ended = command("check", GATECAST_LIMITS_IDLE_TIMEOUT="soon")
    assert ended.returncode == 64
    assert "GATECAST_LIMITS_IDLE_TIMEOUT: limits.idle_timeout: " in ended.stderr


def test_an_unknown_flag_is_refused():
    ended = command("--lisen", "127.0.0.1:0")
    assert ended.returncode == 64
    assert "--listen" in ended.stderr


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_every_example_is_valid(example):
    ended = command("check", "--config", EXAMPLES / example)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("The configuration is valid: ")


def test_the_defaults_are_valid_and_name_loopback():
    assert command("check").returncode == 0
    usage = command("--help")
    assert usage.returncode == 0
    assert "127.0.0.1:8080" in usage.stdout and "127.0.0.1:9090" in usage.stdout


def test_without_flags_the_program_listens_on_loopback_8080():
    """Asked on a machine where the port is taken, since no test may rely on one that is free."""
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", 8080))
            other.listen()
        except OSError:
            pass  # Somebody else has it: as good.
        ended = command()
    assert ended.returncode == 69
    assert "gatecast: cannot listen on 127.0.0.1:8080: " in ended.stderr


def test_a_log_that_is_not_a_terminal_has_no_colours(node):
    node.serves()
    assert "\x1b" not in node.log()


def test_a_json_log_is_json(start):
    node = start('log_format = "json"')
    node.serves()
    lines = [json.loads(line) for line in node.log().splitlines()]
    assert "listening" in [line["fields"]["message"] for line in lines]
