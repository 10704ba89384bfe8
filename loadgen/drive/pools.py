"""The pools of connections to all endpoints of a target, over one poll."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loadgen.drive.http import Endpoint
from loadgen.drive.pool import Pool
from loadgen.drive.sockets import Connection


class Pools:
    """A pool for each endpoint. ``connections`` holds those of all, by file descriptor."""

    def __init__(self, endpoints: Sequence[Endpoint], timeout_s: float, poll: Any) -> None:
        self.connections: dict[int, Connection] = {}
        self.timeout_ns = int(timeout_s * 1e9)
        self._pools = [Pool(endpoint, timeout_s, poll, self.connections) for endpoint in endpoints]

    def __getitem__(self, place: int) -> Pool:
        return self._pools[place]

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._pools)

    @property
    def opened(self) -> int:
        """How many connections were ever opened."""
        return sum(pool.opened for pool in self._pools)

    @property
    def opening(self) -> bool:
        """True while a connection is neither usable nor refused."""
        return any(pool.opening for pool in self._pools)

    @property
    def kernel_clock(self) -> bool:
        """True while the kernel stamps what all connections receive."""
        return all(pool.kernel_clock for pool in self._pools)

    @property
    def refusal(self) -> OSError | None:
        """Why no connection is to be had; None if there is one. An endpoint of several that is gone costs its share
        alone."""
        reasons = [pool.refusal for pool in self._pools if pool.refusal is not None]
        return reasons[0] if reasons and not any(pool.idle for pool in self._pools) else None

    def open_ahead(self, connections: int) -> None:
        """Finds the address of each endpoint and begins to open connections, evenly over them."""
        each = -(-connections // len(self._pools))
        for pool in self._pools:
            try:
                pool.resolve()
                for _ in range(each - len(pool.idle)):
                    pool.open()
            except OSError as error:
                pool.refusal = error

    def close_late(self, now: int) -> None:
        """Closes the connections that have been opening for too long. Their requests have been given up by then."""
        for pool in self._pools:
            pool.close_late(now)

    def close_all(self) -> None:
        """Closes every connection."""
        for pool in self._pools:
            pool.close_all()
