"""The number of series does not depend on what clients send: none of their names, ids, addresses or paths makes one."""

import json
import secrets
from collections import Counter

from gatecast import connection_id, eventually, request
from wire import CLOSE, Socket, close_payload, frame

# Besides the buckets of a histogram. The longest set is that of closes: codes, who ended the connection, and why.
SERIES_OF_A_METRIC = 100
TRUSTED = {"GATECAST_AUTH_USER_HEADER": "X-User", "GATECAST_TRUSTED_PROXIES": "127.0.0.1"}


def series(node):
    """How many series there are of each metric, buckets not counted."""
    return Counter(sample.name for sample in node.samples() if "le" not in sample.labels)


def live(node):
    """All that a client and a back end may choose, chosen at random."""
    # Never a number: sixteen digits with an e among them are JSON.
    user, group, word = ("x" + secrets.token_hex(8) for _ in range(3))
    address = ".".join(str(byte) for byte in secrets.token_bytes(4))
    headers = {"X-User": user, "User-Agent": word, "Origin": f"http://{word}", "X-Forwarded-For": address}
    with node.connect(additional_headers=headers) as client:
        own = connection_id(client)
        for action in ("joinGroup", "sendToGroup", "leaveGroup", word):
            client.send(json.dumps({"action": action, "group": group, "data": word, word: word}))
            assert client.recv(timeout=10)
        client.send(word)
        assert client.recv(timeout=10) == word
        for path in (f"@groups/{group}", f"@users/{user}", "@broadcast", f"@connections/{own}"):
            assert request(node.address, "POST", f"/beta/{path}", word.encode())[0].status == 200
        client.close(3000 + secrets.randbelow(2000), word)
    assert request(node.address, "GET", f"/beta/@connections/{own}")[0].status == 410
    for method, path in (("GET", word), ("GET", f"beta/@connections/{word}"), ("POST", f"beta/@{word}"),
                         ("PUT", "beta/@broadcast"), ("POST", "beta/@groups/%00"),
                         (word.upper(), f"beta/@groups/{group}")):
        assert request(node.address, method, f"/{path}")[0].status >= 400
    # Codes that a client may use, and such as it may not.
    with Socket(node.address).upgrade() as client:
        client.send(frame(CLOSE, close_payload(secrets.randbelow(1 << 16), word.encode())))
        assert client.receive_close()
        assert client.is_ended_by_server()


def test_random_names_make_no_series(start):
    node = start(**TRUSTED)

    def settle():
        eventually(lambda: node.metric("gatecast_connections") == 0)
        return series(node)

    for _ in range(20):
        live(node)
    before = settle()
    for _ in range(60):
        live(node)
    after = settle()
    # What a client can choose from a closed set (close codes) may show up late.
    closed = "gatecast_connections_closed_total"
    assert {name: count for name, count in after.items() if name != closed} == {
        name: count for name, count in before.items() if name != closed}
    assert max(after.values()) <= SERIES_OF_A_METRIC, after.most_common(3)
    assert sum(after.values()) < 500
