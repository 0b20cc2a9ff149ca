"""Ports for servers that come back on the same one, or whose port is written down before they start.

A port that was drawn stays marked until this process ends, so that no other test run and no `loadtest` draws it meanwhile. They lie
below those that the kernel gives to outgoing connections: else one of these may take the port while its server is away.
"""

import random
import socket

LOWEST, HIGHEST = 12_000, 32_000
# Servers listen at 127.0.0.1, so a mark is in nobody's way. The same address as in `loadtest/src/shared/ports.rs`.
MARK = "127.255.255.254"
marks = []


def free_port():
    return free_row(1)


def free_row(count):
    """The first of so many ports in a row that are free."""
    for _ in range(100):
        first = random.randrange(LOWEST, HIGHEST - count)
        # The mark comes first: who tries a port that another has drawn would have it for a moment.
        taken = [socket.socket() for _ in range(count)]
        try:
            for offset, mark in enumerate(taken):
                mark.bind((MARK, first + offset))
                mark.listen()
            for offset in range(count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", first + offset))
        except OSError:
            for mark in taken:
                mark.close()
            continue
        marks.extend(taken)
        return first
    raise AssertionError("no free ports found")
