"""One look at a machine: its GPUs, the server's processes, ours. Whatever is not known is None, never 0."""

from __future__ import annotations

import msgspec


class GpuReading(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU at one moment, as NVML or DCGM has it; memory in bytes.

    ``utilisation`` is the share of the last second or less in which a kernel ran. ``joules`` is a counter that never
    goes back, ``held_down`` NVML's mask of what holds the clocks down. ``server_bytes`` is what the server's processes
    have there, None where the GPU names none of them; ``foreign`` are processes that nobody of this run has started,
    None where that cannot be told.
    """

    uuid: str
    index: int | None = None
    name: str | None = None
    memory_bytes: float | None = None
    total_bytes: float | None = None
    utilisation: float | None = None
    sm_mhz: float | None = None
    memory_mhz: float | None = None
    celsius: float | None = None
    watts: float | None = None
    joules: float | None = None
    held_down: int | None = None
    server_bytes: float | None = None
    foreign: tuple[int, ...] | None = None


class Usage(msgspec.Struct, frozen=True):
    """Processes taken together: ``cpu_s`` used since they were first seen, and resident bytes now (pages that they
    share count once for each)."""

    cpu_s: float
    rss_bytes: float


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment of CLOCK_MONOTONIC. ``host_bytes`` is the memory of this machine that is not available
    for more."""

    at_ns: int
    gpus: tuple[GpuReading, ...] = ()
    server: Usage | None = None
    client: Usage | None = None
    host_bytes: float | None = None
