"""Many idle clients in one thread, without a library: for tests in which only their number matters."""

from contextlib import contextmanager

from wire import PING, PONG, TEXT, Socket, frame, handshake


@contextmanager
def crowd_of(nodes, each):
    """Handshakes of all clients are under way at once; each is open when this is entered."""
    clients = []
    try:
        for _ in range(each):
            for node in nodes:
                clients.append(Socket(node.address, within=20))
                clients[-1].send(handshake())
                clients[-1].node = node
        statuses = [client.response(has_body=False)[0] for client in clients]
        assert set(statuses) <= {101}, f"{len(statuses) - statuses.count(101)} of {len(statuses)} were refused: {set(statuses)}"
        yield clients
    finally:
        for client in clients:
            client.raw.close()


def say(client, *texts):
    """Sends text messages in one piece."""
    client.send(b"".join(frame(TEXT, text.encode()) for text in texts))


def hear(client, count=1):
    """Receives that many text messages; pings are answered."""
    texts = []
    while len(texts) < count:
        opcode, payload = client.receive()
        assert opcode in (TEXT, PING), (opcode, payload)
        if opcode == PING:
            client.send(frame(PONG, payload))
        else:
            texts.append(payload.decode())
    return texts
