"""Ports for servers of tests that take a port by its number, some time after it was found free."""

from __future__ import annotations

import random

from loadgen.launch.ports import is_free

BELOW_EPHEMERAL = range(12_000, 32_000)


def quiet_port() -> int:
    """A free port that the kernel gives to nobody who asks for any: nobody beside a test takes it meanwhile."""
    draw = random.SystemRandom()
    while not is_free(port := draw.choice(BELOW_EPHEMERAL)):
        pass
    return port
