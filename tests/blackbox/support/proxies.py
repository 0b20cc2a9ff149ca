"""A proxy between a node and Redis: what it passes on, and when, is up to the test."""

import socket
import threading

import pytest

from gatecast import lasts


class Proxy:
    """Passes bytes between a node and Redis, until told otherwise."""

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        self.is_refusing = False
        self.latency = 0
        self.sockets = []
        # What is not set waits: nothing is closed, and nothing arrives.
        self.to_redis, self.to_node = threading.Event(), threading.Event()
        self.heal()
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self):
        self.is_refusing = False
        self.to_redis.set()
        self.to_node.set()

    def refuse(self):
        """Ends every connection, and each that is made later."""
        self.is_refusing = True
        for each in self.sockets:
            close(each)

    def silence(self):
        self.to_redis.clear()
        self.to_node.clear()

    def deafen(self):
        """The node is heard by Redis, and hears nothing."""
        self.to_node.clear()

    def end(self):
        close(self.listener)
        self.refuse()
        self.to_redis.set()
        self.to_node.set()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target)
            except OSError:
                close(near)  # Redis is away.
                continue
            self.sockets += [near, far]
            if self.is_refusing:
                self.refuse()
            for source, sink, gate in ((near, far, self.to_redis), (far, near, self.to_node)):
                threading.Thread(target=self._pass, args=(source, sink, gate), daemon=True).start()

    def _pass(self, source, sink, gate):
        try:
            while data := source.recv(1 << 16):
                lasts(self.latency)
                gate.wait()
                sink.sendall(data)
        except OSError:
            pass
        gate.wait()
        close(source)
        close(sink)


def close(stream):
    try:
        stream.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # It was closed by its other end.
    stream.close()


@pytest.fixture
def proxy(redis):
    proxy = Proxy(redis.port)
    yield proxy
    proxy.end()
