"""Waiting for sockets: epoll where there is one, else poll behind the same interface."""

from __future__ import annotations

import select
from typing import Any

READ = select.POLLIN
WRITE = select.POLLOUT


class SlowPoll:
    """select.poll as if it were an epoll, for systems that have none; its time-out has whole milliseconds."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, wait: float) -> list[tuple[int, int]]:
        """(descriptor, events) of all that are ready, after at most ``wait`` seconds."""
        return self._poll.poll(wait * 1000)

    def close(self) -> None:
        """Nothing: it holds no descriptor."""


def make_poll() -> Any:
    """epoll (Linux), or poll; both have the same event numbers for reading and writing."""
    return select.epoll() if hasattr(select, "epoll") else SlowPoll()
