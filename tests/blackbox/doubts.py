"""A proxy before Redis that meets a message on its way: the node is left in doubt, and Redis has it or will."""

import signal

import pytest

from test_cluster_partitions import Proxy, close


class DoubtfulProxy(Proxy):
    """Passes bytes, but what holds the marker is sent on in the way that was asked for, once."""

    marker, way = None, None

    def leave_in_doubt(self, marker, way):
        self.marker, self.way = marker.encode(), way

    def _pass(self, source, sink, gate):
        try:
            while data := source.recv(1 << 16):
                gate.wait()
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
        """Redis carries it out; the connection ends before it can say so. Ours to Redis stays: it reads all it is sent."""
        close(node)
        server.sendall(data)


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
