"""SIGHUP: the configuration is read again, whole or not at all, and nobody is closed for it."""

import contextlib
import itertools
import json
import os
import re
import signal
import threading
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from cluster import throughout
from gatecast import Node, ask, drain_frames, eventually, request
from management import signature
from wire import FORBIDDEN, PING, Socket

KEYS = {"ONE": "the first secret", "TWO": "the second secret"}
WHERE = '[routes.where]\nintegration = "reply"\nreply = "{}"\n'
DEFAULTS = "# All defaults.\n"
MARKS = itertools.count()
UNKNOWN = '{"action":"no such action"}'


def file_of(node):
    return node.log_path.parent / "gatecast.toml"


def write(node, text):
    """Puts a file in place as operators should: whole."""
    new = file_of(node).with_suffix(".new")
    new.write_text(text)
    os.replace(new, file_of(node))


def outcomes(node):
    return {one: node.metric("gatecast_reloads_total", outcome=one) for one in ("applied", "unchanged", "refused")}


def hang_up(node, outcome):
    """Sends SIGHUP; returns once it has led to this, and fails if it leads to anything else."""
    before = outcomes(node)
    node.signal(signal.SIGHUP)
    eventually(lambda: outcomes(node) != before)
    assert outcomes(node) == before | {outcome: before[outcome] + 1}


def reload(node, text, outcome="applied", felt_by=()):
    """Has a node read a file, and waits until the shards of some clients go by it."""
    if felt_by:
        mark = str(next(MARKS))
        text += f'[routes.mark]\nintegration = "reply"\nreply = "mark {mark}"\n'
    write(node, text)
    hang_up(node, outcome)
    for client in felt_by:
        eventually(lambda: ask(client, '{"action":"mark"}') == f"mark {mark}")


def status(node, **options):
    """What a handshake is answered."""
    try:
        with node.connect(**options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.smoke
def test_a_new_route_counts_for_the_next_message_of_an_open_connection(start):
    node = start(WHERE.format("here"))
    with node.connect() as client:
        assert ask(client, '{"action":"where"}') == "here"
        reload(node, WHERE.format("there"), felt_by=[client])
        assert ask(client, '{"action":"where"}') == "there"
        reload(node, DEFAULTS, felt_by=[client])
        assert re.fullmatch(FORBIDDEN, ask(client, '{"action":"where"}'))
    assert 'settings=["routes"]' in node.log()


def test_what_connect_and_disconnect_do_is_what_the_latest_file_says(start):
    def text(word):
        return "".join(f'[routes."${when}"]\nintegration = "broadcast"\ndata = "{word} {when}"\n' for when in ("connect", "disconnect"))

    node = start(text("old"))
    with node.connect() as watcher:
        with node.connect():
            assert watcher.recv(timeout=10) == "old connect"
            reload(node, text("new"))
        assert watcher.recv(timeout=10) == "new disconnect"
        with node.connect():
            assert watcher.recv(timeout=10) == "new connect"


def test_a_key_is_good_from_when_it_is_written_until_it_is_not(start):
    def keys(*names):
        return "".join(f'[[management.keys]]\nid = "{name}"\nsecret = "{KEYS[name]}"\n' for name in names)

    def statuses():
        headers = [signature(node.address, "GET", "/beta/@counts", secret=secret, key_id=name) for name, secret in KEYS.items()]
        return [request(node.address, "GET", "/beta/@counts", headers=each)[0].status for each in headers]

    node = start(keys("ONE"))
    assert statuses() == [200, 403]
    reload(node, keys("ONE", "TWO"))
    assert statuses() == [200, 200]
    reload(node, keys("TWO"))
    assert statuses() == [403, 200]
    assert not [secret for secret in KEYS.values() if secret in node.log()]


def test_the_management_api_opens_and_closes_and_the_admin_pages_with_it(start):
    def statuses():
        pages = ((node.address, "/beta/@counts"), (node.admin_address, "/info"), (node.admin_address, "/live"))
        return [request(address, "GET", path, headers={"Host": "gateway.example"})[0].status for address, path in pages]

    node = start('management.auth = "none"')
    assert statuses() == [200, 200, 200]
    reload(node, DEFAULTS)
    assert statuses() == [403, 403, 200]
    reload(node, 'management.auth = "none"')
    assert statuses() == [200, 200, 200]


def test_which_pages_may_connect_changes_with_the_next_handshake(start):
    def statuses():
        return [status(node, origin=f"https://{host}.example") for host in "ab"]

    node = start('auth.allowed_origins = ["https://a.example"]')
    assert statuses() == [101, 403]
    with node.connect(origin="https://a.example") as client:
        reload(node, 'auth.allowed_origins = ["https://b.example"]')
        assert statuses() == [403, 101]
        assert re.fullmatch(FORBIDDEN, ask(client, UNKNOWN))


def test_a_proxy_is_believed_for_as_long_as_it_is_trusted(start):
    route = '[routes.who]\nintegration = "reply"\nreply = "${context.identity.sourceIp}"\n'
    trusting = 'auth.user_header = "X-User"\ntrusted_proxies = ["127.0.0.1"]\n' + route

    def seen():
        with node.connect(additional_headers={"X-User": "tom", "X-Forwarded-For": "192.0.2.7"}) as client:
            address = ask(client, '{"action":"who"}')
            users = json.loads(request(node.address, "GET", "/beta/@users/tom/connections")[1])
            return address, len(users["connections"])

    node = start('management.auth = "none"\nauth.allowed_origins = ["*"]\n' + route)
    assert seen() == ("127.0.0.1", 0)
    reload(node, 'management.auth = "none"\n' + trusting)
    assert seen() == ("192.0.2.7", 1)
    reload(node, 'management.auth = "none"\nauth.allowed_origins = ["*"]\n' + route)
    assert seen() == ("127.0.0.1", 0)


def test_memberships_that_are_there_stay_and_others_are_bounded_anew(start):
    def most(count):
        return f'limits.groups_per_connection = {count}\n[routes.join]\nintegration = "join"\ngroup = "$request.body.group"\nreply = "joined"\n'

    def join(group):
        return ask(client, json.dumps({"action": "join", "group": group}))

    node = start(most(1))
    with node.connect() as client:
        assert join("a") == "joined" and "Limit exceeded" in join("b")
        reload(node, most(3), felt_by=[client])
        assert join("b") == "joined"
        reload(node, most(1), felt_by=[client])
        assert "Limit exceeded" in join("c")
        for group in "ab":
            assert request(node.address, "POST", f"/beta/@groups/{group}", b"news")[0].status == 200
            assert client.recv(timeout=10) == "news"


def test_as_many_connect_as_the_latest_file_says_and_nobody_is_closed_for_fewer(start):
    node = start("limits.max_connections = 1")
    with node.connect():
        assert status(node) == 503
        reload(node, "limits.max_connections = 2")
        assert node.metric("gatecast_connections_limit") == 2
        with node.connect():
            assert status(node) == 503
            reload(node, "limits.max_connections = 1")
            assert status(node) == 503
            assert (node.metric("gatecast_connections"), node.metric("gatecast_connections_limit")) == (2, 1)


def test_handshakes_and_connections_of_an_address_are_bounded_and_free_again(start):
    node = start("limits.max_lifetime = '1h'")
    assert [status(node) for _ in range(8)] == [101] * 8
    reload(node, "limits.handshake_rate_per_address = 1")
    assert [status(node) for _ in range(20)].count(429) > 0
    reload(node, "limits.connections_per_address = 2")
    with node.connect(), node.connect():
        assert status(node) == 429
        reload(node, "limits.connections_per_address = 3")
        assert status(node) == 101


def test_pings_begin_on_open_connections(start):
    node = start('limits.ping_interval = "off"')
    with Socket(node.address) as silent:
        silent.upgrade()
        reload(node, 'limits.ping_interval = "200ms"')
        assert silent.receive()[0] == PING


def test_idle_and_old_connections_are_closed_by_the_times_of_the_latest_file(start):
    def closed(reason):
        return node.metric("gatecast_connections_closed_total", reason=reason)

    node = start('limits.idle_timeout = "4s"\n')
    with node.connect() as client:
        reload(node, 'limits.idle_timeout = "1h"\n', felt_by=[client])
        throughout(5, lambda: closed("idle") == 0)
        reload(node, 'limits.idle_timeout = "1h"\nlimits.max_lifetime = "3s"\n')
        assert drain_frames(client)[1][0] == 1001
    assert (closed("idle"), closed("max_lifetime")) == (0, 1)
    reload(node, DEFAULTS)
    with node.connect() as client:
        reload(node, 'limits.idle_timeout = "500ms"\n')
        assert drain_frames(client)[1][0] == 1001
    assert (closed("idle"), closed("max_lifetime")) == (1, 1)


def test_frames_are_taken_as_the_latest_file_says(start):
    bytes_too = 'limits.allow_binary = true\n[routes."$binary"]\nintegration = "reply"\nreply = "bytes"\n'
    node = start("limits.frame_bytes = 125")
    with node.connect() as client:
        reload(node, bytes_too, felt_by=[client])
        assert ask(client, b"\0" * 1_000) == "bytes"
        reload(node, "limits.frame_bytes = 125\n", felt_by=[client])
        assert re.fullmatch(FORBIDDEN, ask(client, "x" * 125))
        client.send("x" * 126)
        assert drain_frames(client)[1][0] == 1009
    with node.connect() as client:
        client.send(b"\0")
        assert drain_frames(client)[1][0] == 1003


def test_a_sender_is_slowed_at_the_rate_of_the_latest_file(start):
    node = start("limits.message_rate = 10_000")
    with node.connect() as client:
        reload(node, "limits.message_rate = 1\n", felt_by=[client])
        for _ in range(3):
            client.send(UNKNOWN)
        eventually(lambda: node.metric("gatecast_senders_slowed_total", limit="message_rate") > 0)
        reload(node, "limits.message_rate = 10_000\n")
        for _ in range(3):
            assert re.fullmatch(FORBIDDEN, client.recv(timeout=20))


def test_a_file_with_faults_is_refused_whole_and_every_fault_is_told(start):
    node = start(WHERE.format("here"))
    with node.connect() as client:
        reload(node, WHERE.format("there") + 'reqly = "x"\n[limits]\nidle_timeout = "soon"\nmax_connections = 0\n', "refused")
        assert ask(client, '{"action":"where"}') == "here"
        for line, fault in ((4, "routes.where.reqly: unknown key; did you mean"),
                            (6, "limits.idle_timeout: "),
                            (7, "limits.max_connections: 0 is not within 1 to")):
            assert f"{file_of(node)}:{line}: {fault}" in node.log()
        assert node.metric("gatecast_config_last_reload_successful") == 0
        since = node.metric("gatecast_config_applied_timestamp_seconds")
        reload(node, WHERE.format("there"), felt_by=[client])
        assert ask(client, '{"action":"where"}') == "there"
    assert node.metric("gatecast_config_last_reload_successful") == 1
    assert node.metric("gatecast_config_applied_timestamp_seconds") > since


def test_what_does_not_go_with_what_stays_is_refused(start):
    node = start("limits.max_connections = 7")
    reload(node, "[limits]\nmax_connections = 8\nmessage_bytes = 1_024\noutbox_bytes = 4_096\n", "refused")
    assert "limits.message_bytes: beside the settings that need a restart, as they are now: " in node.log()
    assert node.metric("gatecast_connections_limit") == 7


def test_a_setting_that_needs_a_restart_is_named_and_the_rest_is_applied(start):
    node = start(WHERE.format("here"))
    with node.connect() as client:
        cold = 'shards = 7\nstage = "prod"\ngroups = [{ pattern = "a", replay = "off" }]\n[limits]\nmessage_bytes = 65_536\n'
        reload(node, cold + WHERE.format("there"), felt_by=[client])
        assert ask(client, '{"action":"where"}') == "there"
        # A group that keeps nothing would refuse it.
        assert request(node.address, "POST", "/beta/@groups/a", b"x", {"Idempotency-Key": "1"})[0].status == 200
        for setting in ("stage", "groups", "limits.message_bytes"):
            assert re.search(rf'WARN.*needs a restart.*setting="{setting}"', node.log()), node.log()
        # The environment is stronger than the file, and as it was.
        assert 'setting="shards"' not in node.log()
        hang_up(node, "unchanged")


def test_a_file_that_is_none_is_a_fault_and_the_node_goes_on(start):
    node = start(WHERE.format("here"))
    path = file_of(node)

    def put(make, part):
        path.unlink()
        make()
        told = len(node.log())
        hang_up(node, "refused")
        assert part in node.log()[told:]
        assert ask(client, '{"action":"where"}') == "here"
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.touch()

    with node.connect() as client:
        put(lambda: os.mkfifo(path), "a pipe or a device")
        put(lambda: path.symlink_to("/dev/zero"), "a pipe or a device")
        put(path.mkdir, "it is a directory")
        # It says that it is empty, as a file does that somebody has begun to write.
        put(lambda: path.symlink_to("/proc/self/status"), "written to while it was read")
        put(lambda: None, "No such file")
        put(path.touch, "the file is empty")
        put(lambda: path.write_bytes(b"#" * (1 << 20) + b"\n"), "longer than 1 MiB")
        put(lambda: path.write_bytes(b"# Jos\xe9\n"), "line 1 is not UTF-8")
        put(lambda: path.write_text("stage = "), "gatecast.toml:1: ")
        reload(node, WHERE.format("here"), "unchanged")
    assert node.metric("gatecast_config_last_reload_successful") == 1


def test_a_node_without_a_file_has_nothing_new_to_read(node):
    with node.connect() as client:
        hang_up(node, "unchanged")
        assert re.fullmatch(FORBIDDEN, ask(client, UNKNOWN))


def test_a_flood_of_signals_under_traffic_loses_nothing_and_closes_nobody(start, note):
    texts = [f'limits.message_rate = {rate}\n[routes.say]\nintegration = "broadcast"\ndata = "$request.body.data"\n'
             for rate in (20_000, 30_000)]
    node = start(texts[0])
    sent, done = itertools.count(), threading.Event()

    def flood():
        for number in itertools.count():
            if done.is_set():
                return note(f"{number} times SIGHUP under traffic: {outcomes(node)}")
            if number % 100 == 0:
                write(node, texts[number // 100 % 2])
            node.signal(signal.SIGHUP)

    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(node.connect()) for _ in range(8)]
        sender = stack.enter_context(node.connect())
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            while outcomes(node)["applied"] < 5:
                batch = [str(next(sent)) for _ in range(50)]
                for text in batch:
                    sender.send(json.dumps({"action": "say", "data": text}))
                for client in listeners:
                    assert [client.recv(timeout=20) for _ in batch] == batch
        finally:
            done.set()
            thread.join()
        assert node.metric("gatecast_connections") == 9
    assert outcomes(node)["refused"] == 0


class HungUpNode(Node):
    """It is sent SIGHUP as soon as it listens to it, which is before it serves."""

    def _read_greeting(self):
        def listens():
            caught = re.search(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{self.process.pid}/status").read_text(), re.M)[1]
            return int(caught, 16) >> (signal.SIGHUP - 1) & 1

        eventually(listens)
        self.signal(signal.SIGHUP)
        return super()._read_greeting()


def test_a_signal_before_a_node_serves_ends_nothing_and_is_not_lost(tmp_path):
    node = HungUpNode(tmp_path, WHERE.format("here"))
    try:
        eventually(lambda: outcomes(node)["unchanged"] == 1)
        node.serves()
    finally:
        node.kill()


def test_a_signal_during_a_drain_is_ignored_and_the_drain_goes_on(start):
    node = start('drain.notice = "4s"\ndrain.window = "0s"\n')
    node.is_ended_by_test = True
    with node.connect() as client:
        node.signal(signal.SIGTERM)
        eventually(lambda: node.page("/ready")[0] == 503)
        write(node, 'drain.window = "1h"')
        node.signal(signal.SIGHUP)
        eventually(lambda: "ignored: the node is shutting down" in node.log())
        assert drain_frames(client)[1][0] == 1001
    assert node.wait() == 0


def test_a_node_drains_as_the_latest_file_says(start):
    node = start('drain.window = "1h"')
    node.is_ended_by_test = True
    with node.connect() as client:
        reload(node, 'drain.window = "0s"')
        node.signal(signal.SIGTERM)
        assert drain_frames(client)[1][0] == 1001
    assert node.wait() == 0
