"""`gatecast probe`, the health check of an image that holds nothing else."""

import socket
import threading

from gatecast import command


def probe(address, *page):
    return command("probe", *page, "--admin-listen", "{}:{}".format(*address))


def test_a_node_that_is_well_says_so(node):
    live, ready = probe(node.admin_address), probe(node.admin_address, "ready")
    assert (live.returncode, live.stdout) == (0, '{"status":"live"}\n')
    assert (ready.returncode, ready.stdout) == (0, '{"status":"ready"}\n')


def test_a_node_that_waits_for_redis_lives_and_is_not_ready(start):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        # Connections are taken, and nothing is answered.
        node = start(GATECAST_REDIS_URL="redis://127.0.0.1:{}".format(nobody.getsockname()[1]))
        live, ready = probe(node.admin_address, "live"), probe(node.admin_address, "ready")
    assert live.returncode == 0
    assert ready.returncode == 1 and "waiting for Redis" in ready.stderr


def test_who_is_not_there_or_says_something_else_is_not_well():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

        def talk():
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(b"220 mail.example.com ESMTP\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        result = probe(address)
        thread.join()
        assert result.returncode == 1 and "not HTTP" in result.stderr
    result = probe(address)
    assert result.returncode == 1 and "refused" in result.stderr


def test_a_faulty_configuration_is_not_asked_about(tmp_path):
    (tmp_path / "gatecast.toml").write_text("lisen = 1\n")
    assert command("probe", "--config", tmp_path / "gatecast.toml").returncode == 64
