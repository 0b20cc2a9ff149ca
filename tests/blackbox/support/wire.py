"""A WebSocket client that does as it is told: bad frames, silence, half a handshake."""

import base64
import contextlib
import os
import re
import socket
import struct
import time

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = base64.b64encode(bytes(16)).decode()
FORBIDDEN = r'\{"message": "Forbidden", "connectionId":"([\w-]{15}=)", "requestId":"([\w-]{15}=)"\}'
BAD_BODY = r'\{"message" : "Bad request body", "connectionId": "([\w-]{15}=)", "messageId": "([\w-]{15}=)"\}'


def handshake(path="/beta", **changes):
    """The bytes of a handshake; a header set to `None` is left out."""
    headers = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def frame(opcode, payload=b"", fin=True, masked=True, reserved=0):
    """The bytes of one frame."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    return bytes([first]) + length_bytes(len(payload), masked) + mask(payload, masked)


def length_bytes(length, masked=True):
    bit = 0x80 if masked else 0
    if length < 126:
        return bytes([bit | length])
    if length < 1 << 16:
        return bytes([bit | 126]) + struct.pack("!H", length)
    return bytes([bit | 127]) + struct.pack("!Q", length)


def mask(payload, masked=True):
    if not masked:
        return payload
    key = os.urandom(4)
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    return key + (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(payload), "big")


def close_payload(code, reason=b""):
    return struct.pack("!H", code) + reason


def answer(address, data, has_body=True):
    """One answer to bytes on a connection of their own: status, headers, body."""
    with Socket(address) as client:
        return client.send(data).response(has_body)


class Socket:
    """A TCP connection with deadlines on everything."""

    def __init__(self, address, receive_buffer=None, within=10, source=None):
        self.raw = socket.socket()
        self.raw.settimeout(within)
        if receive_buffer:
            self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.raw.bind((source, 0))
        self.raw.connect(address)
        self.pending = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.raw.close()

    def send(self, data):
        self.raw.sendall(data)
        return self

    def upgrade(self, early=b"", **headers):
        """Becomes a WebSocket; `early` goes out in one piece with the handshake."""
        self.send(handshake(**headers) + early)
        status, _, _ = self.response(has_body=False)
        assert status == 101
        return self

    def response(self, has_body=True):
        """Reads one HTTP response: status, headers in lower case, body."""
        while b"\r\n\r\n" not in self.pending:
            self._fill()
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        body = self.take(int(headers.get("content-length", 0))) if has_body else b""
        return int(first.split()[1]), headers, body

    def take(self, count):
        while len(self.pending) < count:
            self._fill()
        taken, self.pending = self.pending[:count], self.pending[count:]
        return taken

    def _fill(self):
        data = self.raw.recv(1 << 16)
        if not data:
            raise EOFError(f"closed by the server after {self.pending!r}")
        self.pending += data

    def receive(self):
        """Reads one frame: opcode and payload."""
        first, second = self.take(2)
        assert first & 0x70 == 0 and second & 0x80 == 0, "the server set a reserved bit or masked a frame"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self.take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.take(8))
        return first & 0x0F, self.take(length)

    def connection_id(self):
        """Asks for the id; the built-in table is needed."""
        self.send(frame(TEXT, b'{"action":"no such action"}'))
        return re.search(rb'"connectionId":"([^"]{16})"', self.receive()[1])[1].decode()

    def receive_close(self):
        """Reads up to the close frame: its code and reason, and the text messages before it."""
        texts = []
        while (got := self.receive())[0] != CLOSE:
            if got[0] == TEXT:
                texts.append(got[1].decode())
        (code,) = struct.unpack("!H", got[1][:2])
        return code, got[1][2:].decode(), texts

    def rest(self, within=10):
        """What the server says until it ends the connection, which it has to do in time."""
        began, said = time.monotonic(), self.pending
        self.raw.settimeout(within)
        with contextlib.suppress(ConnectionResetError):
            while data := self.raw.recv(1 << 16):
                said += data
        assert time.monotonic() - began < within
        return said

    def is_ended_by_server(self):
        """Waits until the server has closed the TCP connection; what it sends meanwhile is dropped."""
        self.rest(self.raw.gettimeout())
        return True

    def reset(self):
        """Ends the connection by a TCP reset."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()

    def dribble(self, data, every):
        """Sends a byte at a time until the server has had enough; returns how long that took, and its answer."""
        began = time.monotonic()
        self.raw.settimeout(every)
        answer = b""
        for byte in data:
            try:
                self.raw.send(bytes([byte]))
                got = self.raw.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                break
            if not got:
                break
            answer += got
        return time.monotonic() - began, answer
