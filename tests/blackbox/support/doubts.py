"""A proxy before Redis that meets a message on its way: the node is left in doubt, and Redis has it or will."""

import signal
import threading

import pytest

from proxies import Proxy, close


class DoubtfulProxy(Proxy):
    """Passes bytes, but what holds the marker is sent on in the way that was asked for, once."""

    marker, way = None, None
    # Whose answers go astray, and that one has.
    robbed, astray = None, threading.Event()

    def leave_in_doubt(self, marker, way):
        self.marker, self.way = marker.encode(), way

    def _pass(self, source, sink, gate):
        try:
            while data := source.recv(1 << 16):
                gate.wait()
                if sink is self.robbed:
                    self.astray.set()
                    continue
                if self.marker and self.marker in data:
                    self.marker = None
                    return self.way(data, source, sink)
                sink.sendall(data)
        except OSError:
            pass
        gate.wait()
        close(source)
        close(sink)

    def lose_answer(self, data, node, server):
        """Redis carries it out; the connection ends before the node hears so."""
        self.astray.clear()
        self.robbed = node
        server.sendall(data)
        assert self.astray.wait(10), "Redis does not answer"
        close(node)


def hold_up(server_process):
    """Redis stalls with the message before it, past the time in which the node expects an answer."""

    def hold_up(data, node, server):
        server_process.send_signal(signal.SIGSTOP)
        server.sendall(data)

    return hold_up


@pytest.fixture
def doubtful(redis):
    proxy = DoubtfulProxy(redis.port)
    yield proxy
    proxy.end()
