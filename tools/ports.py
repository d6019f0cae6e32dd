"""Ports for servers that are told their port."""

from __future__ import annotations

import random
import socket

CANDIDATES = range(20_000, 30_000)
"""Below what Linux hands out to clients (32768 and up by default) and below the NodePorts of Kubernetes.

A port that the kernel chooses is one it soon gives to somebody's connection, before the server has bound it.
"""
_CHANCE = random.SystemRandom()
"""Not seeded by a test: two processes must not try the same ports in the same order."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port of an address of this machine that nobody listens on now.

    Raises:
        OSError: a thousand ports in turn are taken.
    """
    for port in _CHANCE.sample(CANDIDATES, 1000):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port among 1,000 of {CANDIDATES.start} to {CANDIDATES.stop - 1}")
