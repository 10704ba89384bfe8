"""GPU memory before a start and after a stop, as NVML tells it: the proof that an engine gave back what it took."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from loadgen.nvml import Unavailable, handles, opened

SLACK_BYTES = 500 * 10**6
"""A GPU counts as given back within this much of what it held before: drivers keep a little for later."""


class MemoryProof(msgspec.Struct, frozen=True):
    """``held`` is, for each GPU index that has not given its memory back, how many bytes it holds above what it held
    before; ``pids`` are the processes that NVML names there; ``took_s`` is how long was waited."""

    held: Mapping[int, int]
    pids: tuple[int, ...]
    took_s: float

    @property
    def ok(self) -> bool:
        """True if every GPU is back."""
        return not self.held


def used(devices: tuple[int | str, ...] = ()) -> dict[int, int] | None:
    """Bytes in use on each GPU, by NVML's index; ``devices`` are indices or UUIDs, empty for all. None without NVML."""
    try:
        with opened() as nvml:
            return {index: int(nvml.nvmlDeviceGetMemoryInfo(handle).used) for index, handle in handles(nvml, devices)}
    except Unavailable:
        return None


def memory_proof(before: Mapping[int, int] | None, *, timeout_s: float = 60.0) -> MemoryProof | None:
    """Wait until every GPU holds no more than ``before`` (by more than `SLACK_BYTES`), at most ``timeout_s``.

    None where there is nothing to prove: no NVML, or no reading from before.
    """
    if not before:
        return None
    start = time.monotonic()
    while True:
        now = used(tuple(before))
        if now is None:
            return None
        held = {index: now[index] - before[index] for index in before if now[index] - before[index] > SLACK_BYTES}
        took = time.monotonic() - start
        if not held or took >= timeout_s:
            return MemoryProof(held, _holders(tuple(held)) if held else (), took)
        time.sleep(0.25)


def _holders(devices: tuple[int | str, ...]) -> tuple[int, ...]:
    try:
        with opened() as nvml:
            found = {
                int(process.pid)
                for _, handle in handles(nvml, devices)
                for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            }
    except Unavailable:
        return ()
    return tuple(sorted(found))
