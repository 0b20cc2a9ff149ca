"""What a back end answers to `$connect`, seen through the load balancers: it is asked once, and no node is taken for down."""

import pytest

from backend import BackEnd, result
from edge import OPEN, HaProxy, Nginx, refusal

CONFIG = """
[targets.app]
url = "{url}"
timeout = "1s"

[routes."$connect"]
integration = "http"
target = "app"
"""
STATUSES = [503, 401, 403, 404, 425, 429, 500, 502, 400]


@pytest.mark.parametrize("kind", [HaProxy, Nginx])
def test_the_answer_of_connect_comes_through_as_it_is_and_connect_runs_once(kind, start, start_balancer):
    back_end = BackEnd()
    nodes = [start(CONFIG.format(url=back_end.url), **OPEN) for _ in range(3)]
    balancer = start_balancer(kind, nodes)
    for status in STATUSES * 2:
        back_end.answer = lambda request: result({"statusCode": status})
        before = len(back_end.events())
        # HAProxy goes on to another node after 425, so that a back end cannot have it.
        expected = 503 if (kind, status) == (HaProxy, 425) else status
        assert refusal(balancer.connect).status_code == expected
        assert len(back_end.events()) == before + 1, status
    go_on, before = back_end.hold(), len(back_end.events())
    response = refusal(balancer.connect)
    go_on.set()
    assert (response.status_code, len(back_end.events())) == (504, before + 1)
    # Whoever had been taken for down would have been passed over.
    told = [node.metric("gatecast_handshakes_rejected_total", reason="connect") for node in nodes]
    assert sum(told) == 2 * len(STATUSES) + 1 and min(told) >= len(STATUSES) // 2, told
    if kind is HaProxy:
        assert balancer.states() == ["UP"] * 3
    with balancer.connect(), balancer.connect(), balancer.connect():
        assert [node.metric("gatecast_connections") for node in nodes] == [1, 1, 1]
    back_end.close()
