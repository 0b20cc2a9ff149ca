"""What answers at Redis's address, and is none, or says it is another than it is."""

import contextlib
import re
import socket
import threading

import pytest

from proxies import close


class Impostor:
    """Passes bytes between nodes and Redis, and once it is told says something else to whoever asks."""

    def __init__(self, port=None, edit=bytes):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.url = f"redis://{self.address}"
        self.redis, self.edit = port, edit
        self.say, self.ends, self.sockets, self.count = None, False, [], 0
        threading.Thread(target=self._accept, daemon=True).start()

    def turn(self, say, ends=False):
        """From now on `say` says what an asker hears in place of an answer; `ends` it, or waits."""
        self.ends, self.say = ends, say

    def mend(self, port):
        self.say, self.redis = None, port
        for each in self.sockets:
            close(each)

    def end(self):
        self.mend(None)
        close(self.listener)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                self.count += 1
                self.sockets.append(near)
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        with contextlib.suppress(OSError):
            far = None
            while data := near.recv(1 << 16):
                if say := self.say:
                    for part in say(data):
                        near.sendall(part)
                    if self.ends:
                        close(near)
                    continue
                if far is None:
                    far = socket.create_connection(("127.0.0.1", self.redis))
                    self.sockets.append(far)
                    threading.Thread(target=self._answer, args=(far, near), daemon=True).start()
                far.sendall(data)

    def _answer(self, far, near):
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 16):
                if not self.say:
                    near.sendall(self.edit(data))


def commands_in(data):
    """How many commands are asked: each is a list of strings."""
    return len(re.findall(rb"\*\d+\r\n\$", data))


@pytest.fixture
def impostors():
    """Makes impostors, and ends them with the test."""
    made = []

    def impostors(*arguments, **options):
        made.append(Impostor(*arguments, **options))
        return made[-1]

    yield impostors
    for each in made:
        each.end()


@pytest.fixture
def impostor(impostors, redis):
    return impostors(redis.port)
