"""What real browsers make of a node: whom a page may reach on this host, and how they see that a connection was closed."""

import pytest

from browser import STRANGER, Chromium, Firefox, run
from edge import LOOPBACK, HaProxy
from gatecast import connection_id, eventually, request

BROWSERS = pytest.mark.parametrize("browser", [Chromium, Firefox])
RUNS = 3

# How a WebSocket begins, and whether a call that a page need not ask for leave for is carried out: its answer is not for it.
REACH = """
    const opens = (url) => new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onopen = () => resolve(true);
        socket.onerror = () => resolve(false);
    });
    const call = (url) => fetch(url, { method: "POST", mode: "no-cors", body: "from a page" }).then(() => true, () => false);
    const told = { opens: await opens(given.socket), call: await call(given.call) };
    if (given.same) {
        told.same = [];
        for (const path of given.same) told.same.push((await fetch(path)).status);
        told.sameOpens = await opens(`ws://${location.host}/beta`);
    }
    return told;
"""


def urls(node, host):
    port = node.address[1]
    return {"socket": f"ws://{host}:{port}/beta", "call": f"http://{host}:{port}/beta/@broadcast"}


@BROWSERS
def test_a_page_of_this_host_reaches_an_open_node_whatever_its_port(start, tmp_path, browser):
    node = start()
    with node.connect() as client:
        connection_id(client)
        told = run(browser, tmp_path, REACH, urls(node, "localhost"))
        assert told == {"opens": True, "call": True}
        assert client.recv(timeout=10) == "from a page"


@BROWSERS
def test_a_page_of_a_stranger_does_not_nor_does_a_name_that_was_bound_anew(start, tmp_path, browser):
    node = start()
    paths = ["/beta/@connections", "/beta/@openapi", "/beta/@groups"]
    with node.connect() as client:
        connection_id(client)
        told = run(browser, tmp_path, REACH, urls(node, "127.0.0.1") | {"same": paths}, host=STRANGER, behind=node.address)
        # The request went out, or nothing was tried.
        assert told == {"opens": False, "call": True, "same": [403] * len(paths), "sameOpens": False}
        assert node.metric("gatecast_handshakes_rejected_total", reason="not_local") >= 2
        client.send('{"action":"sendMessage","data":"the first that came"}')
        assert client.recv(timeout=10) == "the first that came", "the page's call was not carried out"


# Sends 5 MB, in one message or in many, and tells how it was closed.
CLOSES = """
    const closed = ({ url, first, pieces, binary, call }) => new Promise((resolve) => {
        const socket = new WebSocket(url);
        const piece = "x".repeat(5_000_000 / pieces);
        socket.onopen = () => {
            if (call) {
                const wait = new XMLHttpRequest();
                wait.open("GET", `/page/call/${call}`, false);
                wait.send();
            }
            if (first) socket.send(first);
            for (let sent = 0; sent < pieces; sent++) socket.send(binary ? new Blob([piece]) : piece);
            if (pieces > 1 && !first && !call) {
                const more = setInterval(() => socket.readyState === 1 ? socket.send(piece) : clearInterval(more), 10);
            }
        };
        socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean, unsent: socket.bufferedAmount });
    });
    const told = [];
    for (const one of given) told.push(await closed(one));
    return told;
"""
MOCK = '[routes."$default"]\nintegration = "mock"\n[routes.disconnect]\nintegration = "close"\n'
KINDS = {
    1000: (MOCK, "", {"pieces": 250, "first": '{"action":"disconnect"}'}),
    1001: (MOCK + '[limits]\nmax_lifetime = "1s"\n', "Going away", {"pieces": 250}),
    1003: (MOCK, "binary frames are not supported", {"pieces": 1, "binary": True}),
    1008: (MOCK + "[limits]\noutbox_bytes = 131072\n", "slow consumer", {"pieces": 250, "call": "flood"}),
    1009: (MOCK, "Message too big", {"pieces": 1}),
}


@BROWSERS
@pytest.mark.parametrize("kind", [None, HaProxy], ids=["direct", "HAProxy"])
def test_a_page_that_sends_5_mb_sees_a_clean_close_with_its_code(start, start_balancer, tmp_path, browser, kind):
    """Not 1002, since no page can break the protocol, nor 1008 in Firefox, which reads whatever its page does. Chromium stops to
    send once it is told, and calls what it still had no clean close, though the handshake was whole."""
    kinds = {code: kind for code, kind in KINDS.items() if (browser, code) != (Firefox, 1008)}
    nodes = {config: start(config, **LOOPBACK) for config in dict.fromkeys(config for config, *_ in kinds.values())}
    ways = {config: node if kind is None else start_balancer(kind, [node] * 3) for config, node in nodes.items()}
    slow = nodes.get(KINDS[1008][0])

    def flood():
        """While the page waits for this, it reads nothing."""
        before = slow.metric("gatecast_slow_consumer_disconnects_total")
        while slow.metric("gatecast_slow_consumer_disconnects_total") == before:
            assert request(slow.address, "POST", "/beta/@broadcast", b"." * 100_000)[0].status == 200

    wanted, given = [], []
    for code, (config, reason, what) in kinds.items():
        host, port = ways[config].address
        given += [what | {"url": f"ws://{host}:{port}/beta"}] * RUNS
        wanted += [(code, reason)] * RUNS
    told = run(browser, tmp_path, CLOSES, given, calls={"flood": flood})
    for one, close in zip(told, wanted, strict=True):
        assert (one["code"], one["reason"]) == close
        assert one["wasClean"] or browser is Chromium and one["unsent"], one
    answered = lambda: sum(node.metric("gatecast_close_handshakes_total", outcome="answered") for node in nodes.values())
    eventually(lambda: answered() == len(wanted))
    assert sum(node.metric("gatecast_close_handshakes_total") for node in nodes.values()) == len(wanted)
