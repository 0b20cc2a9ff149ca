"""A client's address behind load balancers: found where they are trusted, and never what a client says."""

import pytest

from edge import CLIENT, LOOPBACK, PROXY_PROTOCOL, HaProxy, Nginx, source_ip
from gatecast import connection_id, request

SPOOFED = "203.0.113.9"
WHERE = '[routes.where]\nintegration = "reply"\nreply = "${context.identity.sourceIp}"\n'
USER = 'trusted_proxies = ["127.0.0.1"]\nauth.user_header = "X-User"\n'
# From a balancer to its nodes: its kind, its options, the nodes' settings.
WAYS = {
    "haproxy": (HaProxy, {}, LOOPBACK),
    "haproxy-v1": (HaProxy, {"options": "send-proxy"}, PROXY_PROTOCOL),
    "haproxy-v2": (HaProxy, {"options": "send-proxy-v2 proxy-v2-options crc32c,unique-id"}, PROXY_PROTOCOL),
    "nginx": (Nginx, {}, LOOPBACK),
}


@pytest.fixture(params=WAYS)
def way(request, redis, start_on, start_balancer):
    kind, options, settings = WAYS[request.param]
    nodes = start_on(redis, config=WHERE, **settings)
    return nodes, start_balancer(kind, nodes, **options)


def forwarded_for(*addresses):
    return {"additional_headers": {"X-Forwarded-For": ", ".join(addresses)}}


def address_in_route(client):
    client.send('{"action":"where"}')
    return client.recv(timeout=10)


def test_the_address_is_the_clients_through_every_balancer_on_every_node(way):
    nodes, balancer = way
    for source in (CLIENT, "127.0.0.77"):
        with balancer.open_from(source) as client:
            own = connection_id(client)
            assert [source_ip(node, own) for node in nodes] == [source] * len(nodes)
            assert address_in_route(client) == source


def test_a_client_cannot_choose_its_address_through_a_balancer(way):
    nodes, balancer = way
    for line in ([SPOOFED], [SPOOFED, CLIENT], [CLIENT, SPOOFED, "127.0.0.1"]):
        with balancer.open_from(CLIENT, **forwarded_for(*line)) as client:
            assert source_ip(nodes[0], connection_id(client)) == CLIENT
            assert address_in_route(client) == CLIENT


def test_a_client_of_ipv6_is_known_by_its_address(redis, start_on, start_balancer):
    for options, settings in (("", LOOPBACK), ("send-proxy", PROXY_PROTOCOL), ("send-proxy-v2", PROXY_PROTOCOL)):
        nodes = start_on(redis, count=1, **settings)
        balancer = start_balancer(HaProxy, nodes * 3, options=options, host="[::1]")
        with balancer.connect() as client:
            assert source_ip(nodes[0], connection_id(client)) == "::1"


def test_a_peer_that_is_not_trusted_is_not_believed(start):
    node = start(WHERE, **LOOPBACK)
    for source, believed in (("127.0.0.9", "127.0.0.9"), ("127.0.0.1", SPOOFED)):
        with node.connect(source_address=(source, 0), **forwarded_for(SPOOFED)) as client:
            assert source_ip(node, connection_id(client)) == address_in_route(client) == believed


def test_nobody_is_believed_by_default(start):
    # With a page named, or a client that a proxy passes on would not be let in at all.
    node = start(GATECAST_AUTH_ALLOWED_ORIGINS="*")
    with node.connect(**forwarded_for(SPOOFED)) as client:
        assert source_ip(node, connection_id(client)) == "127.0.0.1"


def test_of_a_chain_of_proxies_the_last_stranger_is_the_client(start):
    node = start('trusted_proxies = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]\n')
    chains = {
        (SPOOFED, CLIENT, "10.1.2.3", "2001:db8::1"): CLIENT,
        (SPOOFED, "garbage", "10.1.2.3"): "10.1.2.3",
        ("10.0.0.1", "10.0.0.2"): "10.0.0.1",
        (SPOOFED, "garbage"): "127.0.0.1",
    }
    for chain, expected in chains.items():
        with node.connect(**forwarded_for(*chain)) as client:
            assert source_ip(node, connection_id(client)) == expected, chain


def test_the_user_header_is_believed_from_trusted_proxies_only(start):
    node = start(USER)
    tom = {"X-User": "tom"}
    with node.connect(additional_headers=tom) as client:
        with node.connect(additional_headers=tom, source_address=(CLIENT, 0)) as stranger:
            ids = connection_id(client), connection_id(stranger)
            assert request(node.address, "POST", "/beta/@users/tom", b"for tom")[0].status == 200
            assert client.recv(timeout=10) == "for tom"
            for own in ids:
                assert node.post(own, b"for both") == 200
            assert client.recv(timeout=10) == stranger.recv(timeout=10) == "for both"


def test_behind_a_proxy_that_only_passes_bytes_on_the_user_header_is_the_clients_word(redis, start_on, start_balancer):
    nodes = start_on(redis, count=1, config=USER, GATECAST_PROXY_PROTOCOL="true")
    balancer = start_balancer(HaProxy, nodes * 3, options="send-proxy-v2")
    with balancer.open_from(CLIENT, additional_headers={"X-User": "tom"}) as stranger:
        own = connection_id(stranger)
        for path in ("@users/tom", f"@connections/{own}"):
            assert request(nodes[0].admin_address, "POST", f"/beta/{path}", path.encode())[0].status == 200
        assert stranger.recv(timeout=10) == f"@connections/{own}"
