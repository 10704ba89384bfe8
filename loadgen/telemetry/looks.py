"""Looks over hours: at most so many are kept, with the edges of the repeat in full and every peak of memory.

In: looks as they are taken. Out: a list that does not grow for ever. Of the first and the last ten minutes every look
stays: the window's edges lie there, where counters are read. In between neighbours are merged when there are too many;
then means are over fewer looks, and what a server said for a second alone may be gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from loadgen.telemetry.reading import GpuReading, Reading, Usage

MOST = 7200
"""Looks that are kept: two hours of them, one a second."""

EDGE = 600
"""Of these, those at either end that nothing is done to."""

T = TypeVar("T")


def kept(looks: list[T], merge: Callable[[T, T], T]) -> list[T]:
    """The same, or fewer if there are over `MOST`: ``merge`` makes one of two neighbours, the earlier comes first."""
    if len(looks) <= MOST:
        return looks
    middle = looks[EDGE:-EDGE]
    pairs = [merge(first, second) for first, second in zip(middle[::2], middle[1::2], strict=False)]
    return [*looks[:EDGE], *pairs, *middle[2 * len(pairs) :], *looks[-EDGE:]]


def later(_: T, second: T) -> T:
    """The later of two: for counters, which hold what came before."""
    return second


def merged(first: Reading, second: Reading) -> Reading:
    """The later look, with the larger of both memories."""
    before = {gpu.uuid: gpu for gpu in first.gpus}
    return msgspec.structs.replace(
        second,
        gpus=tuple(_merged(before[gpu.uuid], gpu) if gpu.uuid in before else gpu for gpu in second.gpus),
        server=_used(first.server, second.server),
        client=_used(first.client, second.client),
        host_bytes=_most([first.host_bytes, second.host_bytes]),
    )


def _merged(first: GpuReading, second: GpuReading) -> GpuReading:
    strangers = {*(first.foreign or ()), *(second.foreign or ())}
    return msgspec.structs.replace(
        second,
        memory_bytes=_most([first.memory_bytes, second.memory_bytes]),
        server_bytes=_most([first.server_bytes, second.server_bytes]),
        celsius=_most([first.celsius, second.celsius]),
        foreign=None if first.foreign is None and second.foreign is None else tuple(sorted(strangers)),
    )


def _used(first: Usage | None, second: Usage | None) -> Usage | None:
    if first is None or second is None:
        return second
    return Usage(second.cpu_s, max(first.rss_bytes, second.rss_bytes))


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
