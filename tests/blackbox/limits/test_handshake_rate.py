"""How many a node lets in a second, and what it tells the others."""

import time

from gatecast import eventually
from wire import Socket, answer, handshake

ONE_A_SECOND = "[limits]\nhandshake_rate = 1\n"


def refused(node):
    return node.metric("gatecast_handshakes_rejected_total", reason="rate")


def test_over_the_rate_clients_are_told_to_come_back_at_different_times(start):
    node = start(ONE_A_SECOND)
    began = time.monotonic()
    answers = [answer(node.address, handshake()) for _ in range(60)]
    elapsed = time.monotonic() - began
    assert {status for status, *_ in answers} == {101, 503}
    # One burst of one, one a second, and one more for where the clocks were read.
    assert [status for status, *_ in answers].count(101) <= elapsed + 2
    later = [int(headers["retry-after"]) for status, headers, *_ in answers if status == 503]
    assert set(later) <= {1, 2, 3, 4, 5} and len(set(later)) > 1
    assert refused(node) == len(later)
    eventually(lambda: answer(node.address, handshake())[0] == 101)


def test_who_may_not_come_in_anyway_takes_nobodys_place(start):
    node = start(ONE_A_SECOND + '[auth]\nallowed_origins = ["https://good.example"]\n')
    for _ in range(20):
        assert answer(node.address, handshake(Origin="https://evil.example"))[0] == 403
    with Socket(node.address).upgrade(Origin="https://good.example"):
        assert refused(node) == 0
