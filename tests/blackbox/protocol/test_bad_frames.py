"""What strangers send once they are connected: each gets its close code, and the node stays up."""

import pytest

from wire import BINARY, CLOSE, CONTINUATION, PING, TEXT, Socket, close_payload, frame, length_bytes

FRAME_MAX, MESSAGE_MAX = 32 << 10, 128 << 10
TOO_BIG = (1009, "Message too big")


@pytest.fixture(scope="module")
def node(start_shared):
    # Most of them do not answer a close frame.
    return start_shared('limits.close_timeout = "100ms"')


@pytest.fixture(autouse=True)
def serves_on(node):
    yield
    node.serves()


def fragments(*sizes, opcode=TEXT, fill=b"x"):
    opcodes = [opcode] + [CONTINUATION] * (len(sizes) - 1)
    last = len(sizes) - 1
    return b"".join(frame(op, fill * size, fin=i == last) for i, (op, size) in enumerate(zip(opcodes, sizes)))


PROTOCOL_ERRORS = {
    "an unmasked frame": frame(TEXT, b"hello", masked=False),
    "an unmasked ping": frame(PING, b"", masked=False),
    "reserved bit 1": frame(TEXT, b"hello", reserved=4),
    "reserved bit 2": frame(TEXT, b"hello", reserved=2),
    "reserved bit 3": frame(TEXT, b"hello", reserved=1),
    **{f"opcode {opcode:#x}": frame(opcode, b"") for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)},
    "a continuation of nothing": frame(CONTINUATION, b"hello"),
    "a new message inside a message": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "a fragmented ping": frame(PING, b"a", fin=False),
    "a ping over 125 bytes": frame(PING, b"x" * 126),
    "a close frame of one byte": frame(CLOSE, b"\x03"),
    "close code 999": frame(CLOSE, close_payload(999)),
    "close code 1005": frame(CLOSE, close_payload(1005)),
    "close code 1006": frame(CLOSE, close_payload(1006)),
    "close code 5000": frame(CLOSE, close_payload(5000)),
    "a length with its highest bit set": bytes([0x81, 0xFF]) + b"\xff" * 8 + b"mask",
    "a length in more bytes than it needs": bytes([0x81, 0xFE, 0, 5]) + b"\0\0\0\0hello",
}


@pytest.mark.parametrize("data", PROTOCOL_ERRORS.values(), ids=PROTOCOL_ERRORS)
def test_a_break_of_the_protocol_is_closed_with_1002(node, data):
    with Socket(node.address).upgrade().send(data) as client:
        code, _, texts = client.receive_close()
        assert (code, texts) == (1002, [])
        assert client.is_ended_by_server()


BIG = {
    "a frame a byte over 32 KiB": frame(TEXT, b"x" * (FRAME_MAX + 1)),
    "a frame of 1 MiB": frame(TEXT, b"x" * (1 << 20)),
    "a fragment over 32 KiB": fragments(10, FRAME_MAX + 1),
    "five fragments a byte over 128 KiB": fragments(*[FRAME_MAX] * 4, 1),
    "a thousand fragments over 128 KiB": fragments(*[132] * 1_000),
}


@pytest.mark.parametrize("data", BIG.values(), ids=BIG)
def test_what_is_too_big_is_closed_with_1009(node, data):
    with Socket(node.address).upgrade() as client:
        client.send(data)
        assert client.receive_close() == (*TOO_BIG, [])
        assert client.is_ended_by_server()


def test_a_length_that_is_only_claimed_is_closed_with_1009_at_once(node):
    with Socket(node.address).upgrade() as client:
        client.send(bytes([0x81]) + length_bytes(1 << 40) + b"mask")
        assert client.receive_close() == (*TOO_BIG, [])


@pytest.mark.parametrize("sizes", [(FRAME_MAX,), (FRAME_MAX,) * 4, (1,) * 500, (0, 0, 5, 0)])
def test_what_is_just_not_too_big_is_delivered(node, sizes):
    with Socket(node.address).upgrade() as client:
        client.send(fragments(*sizes))
        assert client.receive() == (TEXT, b"x" * sum(sizes))


@pytest.mark.parametrize("data", [frame(BINARY, b"\0"), frame(BINARY, b""), fragments(3, 3, opcode=BINARY)])
def test_binary_is_closed_with_1003(node, data):
    with Socket(node.address).upgrade().send(data) as client:
        code, _, _ = client.receive_close()
        assert code == 1003
        assert client.is_ended_by_server()


NOT_UTF8 = {
    "a lone byte": frame(TEXT, b"\xff"),
    "a surrogate": frame(TEXT, b"\xed\xa0\x80"),
    "a character cut off at the end": frame(TEXT, "€".encode()[:2]),
    "an overlong form": frame(TEXT, b"\xc0\xaf"),
    "beyond Unicode": frame(TEXT, b"\xf4\x90\x80\x80"),
    "a bad byte in the second fragment": frame(TEXT, "€".encode()[:2], fin=False) + frame(CONTINUATION, b"\xff"),
    "a close reason": frame(CLOSE, close_payload(1000, b"\xff")),
}


@pytest.mark.parametrize("data", NOT_UTF8.values(), ids=NOT_UTF8)
def test_text_that_is_not_utf8_is_closed_with_1007(node, data):
    with Socket(node.address).upgrade().send(data) as client:
        assert client.receive_close()[0] == 1007
        assert client.is_ended_by_server()


def test_a_character_split_over_fragments_is_text(node):
    first, second = "€".encode()[:1], "€".encode()[1:]
    with Socket(node.address).upgrade() as client:
        client.send(frame(TEXT, first, fin=False) + frame(PING, b"between") + frame(CONTINUATION, second))
        assert client.receive() == (0xA, b"between")
        assert client.receive() == (TEXT, "€".encode())


def test_what_comes_before_the_fault_is_answered(node):
    with Socket(node.address).upgrade() as client:
        client.send(frame(TEXT, b"good") + frame(0x7, b""))
        code, _, texts = client.receive_close()
        assert code == 1002
        assert set(texts) <= {"good"}


def test_a_frame_sent_with_the_handshake_in_one_piece_is_taken(node):
    with Socket(node.address).upgrade(early=frame(TEXT, b"early") + frame(TEXT, b"birds")) as client:
        assert client.receive() == (TEXT, b"early")
        assert client.receive() == (TEXT, b"birds")


def test_frames_a_byte_at_a_time_are_put_together(node):
    with Socket(node.address).upgrade() as client:
        for byte in frame(TEXT, "a byte at a time €".encode()):
            client.send(bytes([byte]))
        assert client.receive() == (TEXT, "a byte at a time €".encode())


def test_random_bytes_never_take_the_node_down(node):
    import random

    numbers = random.Random(6455)
    for _ in range(200):
        with Socket(node.address).upgrade() as client:
            try:
                client.send(numbers.randbytes(numbers.randrange(2, 400)))
            except OSError:
                pass  # Closed while we were sending: as good.
            client.reset()
