"""What is open because nothing was said is open to this host alone: pages, names and proxies of others find it closed."""

import json
import subprocess

import pytest
from websockets.exceptions import InvalidStatus

from edge import HaProxy, Nginx
from gatecast import connection_id, eventually, request
from management import KEYS, sdk, signed
from ports import free_port
from wire import Socket, handshake

LOCAL_HOSTS = ("localhost", "localhost:8080", "app.localhost", "127.0.0.1", "127.0.0.1:9", "127.8.8.8", "[::1]", "[::1]:80", "LOCALHOST:1")
FOREIGN_HOSTS = ("evil.example", "evil.example:8080", "localhost.evil.example", "0.0.0.0:8080", "10.0.0.1", "notlocalhost", "[::]", "")
LOCAL_ORIGINS = ("http://localhost:5173", "https://localhost", "http://127.0.0.1:3000", "http://[::1]:8080", "http://app.localhost:1")
FOREIGN_ORIGINS = ("https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "file://",
                   "http://localhost:5173, http://evil.example", "", "http://0.0.0.0:8080")
PROXIED = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Anything", "X-Real-IP", "Via", "Forwarded")


@pytest.fixture(scope="module")
def node(start_shared):
    return start_shared(RUST_LOG="debug")


def connect(node, **changes):
    """The status and message of a handshake."""
    with Socket(node.address) as client:
        client.send(handshake(**changes))
        status, _, body = client.response()
        return status, body


def call(address, path="/beta/@connections", method="GET", host="localhost", version="1.1", **headers):
    """The status and message of a request."""
    lines = [f"{method} {path} HTTP/{version}", f"Host: {host}", "Connection: close",
             *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()), "", ""]
    with Socket(address) as client:
        client.send("\r\n".join(lines).encode())
        status, _, body = client.response()
        return status, body


def test_programs_and_pages_of_this_host_connect_and_call(node):
    for host in LOCAL_HOSTS:
        assert connect(node, Host=host)[0] == 101, host
        assert call(node.address, host=host)[0] == call(node.admin_address, host=host)[0] == 200, host
    for origin in LOCAL_ORIGINS:
        assert connect(node, Origin=origin)[0] == 101, origin
        assert call(node.address, Origin=origin)[0] == 200, origin
    with node.connect() as client:
        sdk(node.management).post_to_connection(ConnectionId=connection_id(client), Data=b"from an SDK")
        assert client.recv(timeout=10) == "from an SDK"


def test_pages_names_and_proxies_of_others_find_the_websockets_closed(node):
    before = node.metric("gatecast_handshakes_rejected_total", reason="not_local")
    refused = 0
    for changes in ([{"Host": host} for host in FOREIGN_HOSTS if host] + [{"Origin": origin} for origin in FOREIGN_ORIGINS]
                    + [{name: "198.51.100.1"} for name in PROXIED]):
        status, body = connect(node, **changes)
        assert status == 403, changes
        message = json.loads(body)["message"]
        assert "auth.allowed_origins" in message and "trusted_proxies" in message
        refused += 1
    assert node.metric("gatecast_handshakes_rejected_total", reason="not_local") == before + refused
    eventually(lambda: 'cause="not_local"' in node.log())


@pytest.mark.parametrize("port", ["address", "admin_address"])
def test_pages_names_and_proxies_of_others_find_the_management_api_closed(node, port):
    address = getattr(node, port)
    for changes in ([{"host": host} for host in FOREIGN_HOSTS if host] + [{"Origin": origin} for origin in FOREIGN_ORIGINS]
                    + [{name: "198.51.100.1"} for name in PROXIED] + [{"version": "1.0"}]):
        for method, path in (("GET", "/beta/@connections"), ("POST", "/beta/@broadcast"), ("GET", "/beta/@groups")):
            status, body = call(address, path, method, **changes, Content_Length="0")
            assert status == 403, changes
            message = json.loads(body)["message"]
            assert "access_key_id" in message and 'management.auth = "none"' in message


def test_what_the_admin_port_tells_is_closed_to_other_names_but_not_to_probes(node):
    for path in ("/metrics", "/info", "/openapi.json"):
        assert call(node.admin_address, path)[0] == 200
        for changes in ({"host": "rebound.example"}, {"Origin": "https://evil.example"}, {"X_Forwarded_For": "198.51.100.1"}):
            assert call(node.admin_address, path, **changes)[0] == 403, (path, changes)
    for path in ("/live", "/ready"):
        assert call(node.admin_address, path, host="haproxy")[0] == 200


def test_nothing_was_published_for_a_page_of_others(node):
    with node.connect() as client:
        own = connection_id(client)
        assert call(node.address, "/beta/@broadcast", "POST", Origin="https://evil.example", Content_Length="0")[0] == 403
        assert call(node.address, f"/beta/@connections/{own}", "DELETE", Origin="https://evil.example")[0] == 403
        assert node.post(own, b"still here") == 200
        assert client.recv(timeout=10) == "still here"


def test_each_setting_that_the_messages_name_opens_its_door(start):
    proxied = {"X-Forwarded-For": "198.51.100.1"}
    page = {"Origin": "https://page.example"}
    for settings, who in (('auth.allowed_origins = ["*"]', page | proxied), ('trusted_proxies = ["127.0.0.1"]', page | proxied),
                          ('auth.allowed_origins = ["https://page.example"]', page | proxied | {"Host": "any.example"})):
        node = start(settings)
        assert connect(node, **who)[0] == 101, settings
        # Pages may connect then, and still not call.
        assert call(node.address, **page)[0] == call(node.address, **{"X_Forwarded_For": "198.51.100.1"})[0] == 403
    node = start('management.auth = "none"')
    for address in (node.address, node.admin_address):
        assert call(address, host="any.example", Origin="https://page.example", Via="1.1 proxy")[0] == 200
    assert call(node.admin_address, "/metrics", host="any.example")[0] == 200
    assert connect(node, **page)[0] == 403
    node = start(**KEYS)
    assert call(node.admin_address, "/metrics", host="any.example")[0] == 200
    assert signed(node.address, "GET", "/beta/@connections")[0].status == 200
    assert call(node.address)[0] == 403


def test_a_proxy_on_this_host_does_not_open_what_is_for_this_host(redis, start_on, start_balancer):
    nodes = start_on(redis)
    for kind in (HaProxy, Nginx):
        balancer = start_balancer(kind, nodes)
        if kind is HaProxy:
            # It has to find the nodes well, which it asks for by a name of its own.
            eventually(lambda: balancer.states() == ["UP"] * 3, within=20)
        with pytest.raises(InvalidStatus) as refused:
            balancer.connect()
        assert refused.value.response.status_code == 403
        assert "trusted_proxies" in json.loads(refused.value.response.body)["message"]
        for method, path in (("POST", "/beta/@broadcast"), ("GET", "/beta/@connections")):
            response, body = request(balancer.address, method, path)
            assert response.status == 403
            assert "access_key_id" in json.loads(body)["message"]


def test_a_proxy_as_a_newcomer_writes_it_does_not_open_the_management_api(start, tmp_path):
    """Two lines of nginx, which tell nobody that they are there: it speaks HTTP/1.0 to its servers."""
    node, port = start(), free_port()
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off;\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{node.address[1]}; }} }} }}\n")
    proxy = subprocess.Popen(["nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: proxy.poll() is not None or is_up(port))
        response, body = request(("127.0.0.1", port), "GET", "/beta/@connections")
        assert response.status == 403
        assert "through a proxy" in json.loads(body)["message"]
    finally:
        proxy.terminate()
        proxy.wait(timeout=10)


def is_up(port):
    try:
        return request(("127.0.0.1", port), "GET", "/")[0]
    except OSError:
        return None
