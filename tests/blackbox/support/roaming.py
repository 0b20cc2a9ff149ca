"""Clients that come back at once whenever they are closed, and keep a book of each of their connections."""

import asyncio
import threading
import time
from dataclasses import dataclass, field

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from gatecast import eventually

# Where no answer says how long to wait.
RETRY_SECONDS = 0.25
CONNECT_SECONDS = 10
# Messages may be on their way for so long, on a machine that is busy, before a close overtakes them.
TAIL_SECONDS = 3


@dataclass
class Session:
    """One connection, from the answer to its handshake to its close frame."""

    opened_at: float
    texts: list = field(default_factory=list)
    closed_at: float = None
    # What the close frame said; `None` without one.
    close: tuple = None


class Roamer:
    """One client."""

    def __init__(self, url):
        self.url = url
        self.sessions = []
        # When, and the status or the fault.
        self.refusals = []

    @property
    def is_connected(self):
        return bool(self.sessions) and self.sessions[-1].closed_at is None

    async def roam(self):
        while True:
            try:
                socket = await connect(self.url, compression=None, ping_interval=None, open_timeout=CONNECT_SECONDS,
                                       max_queue=None, proxy=None)
            except InvalidStatus as error:
                self.refusals.append((time.monotonic(), error.response.status_code))
                await asyncio.sleep(float(error.response.headers.get("Retry-After", RETRY_SECONDS)))
            except (OSError, InvalidHandshake, TimeoutError) as error:
                self.refusals.append((time.monotonic(), repr(error)))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await self._listen(socket)

    async def _listen(self, socket):
        session = Session(time.monotonic())
        self.sessions.append(session)
        try:
            while True:
                session.texts.append(await socket.recv())
        except ConnectionClosed as closed:
            session.close = closed.rcvd and (closed.rcvd.code, closed.rcvd.reason)
            session.closed_at = time.monotonic()


class Roamers:
    """Many of them, in a thread of their own."""

    def __init__(self, url, count):
        self.all = [Roamer(url) for _ in range(count)]
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        async def roam():
            self.group = asyncio.gather(*(roamer.roam() for roamer in self.all))
            await self.group

        try:
            self.loop.run_until_complete(roam())
        except asyncio.CancelledError:
            pass
        finally:
            self.loop.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(lambda: self.group.cancel())
        self.thread.join()

    def all_connected(self, within=30):
        eventually(lambda: all(roamer.is_connected for roamer in self.all), within)

    def sessions(self):
        return [session for roamer in self.all for session in list(roamer.sessions)]

    def closed(self):
        return [session for session in self.sessions() if session.closed_at is not None]


def check_books(session, publisher, end):
    """Everything that was accepted while a client was connected came: without a gap, in order, once."""
    offsets = {text: offset for text, status, offset in publisher.answers if status == 200}
    accepted = sorted(offsets, key=offsets.get)
    place = {text: number for number, text in enumerate(accepted)}
    own = [text for text in session.texts if text in publisher.times]
    assert len(own) == len(set(own)), "more than once"
    received = [place[text] for text in own if text in place]
    if received:
        assert received == list(range(received[0], received[0] + len(received))), f"a gap or another order: {received}"
    until = session.closed_at - TAIL_SECONDS if session.closed_at is not None else end

    def is_owed(text):
        asked, answered = publisher.times[text]
        return session.opened_at < asked and answered < until

    lost = [text for text in accepted if is_owed(text) and text not in set(own)]
    assert not lost, f"lost {lost[:5]} of {len(accepted)}"
