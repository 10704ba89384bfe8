"""The GPUs of this machine at this moment, by NVML. In: NVML, opened, and handles. Out: `GpuReading`s.

A GPU that does not say something (a slice of one knows no power, an old one no energy) leaves it None.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import psutil

from loadgen.nvml import Unavailable, handles, opened, text
from loadgen.telemetry.reading import GpuReading

T = TypeVar("T")


class Owners:
    """Whose a process on a GPU is. ``server`` are the pids of the server that is measured, ``ours`` those of all
    servers of this run; None where they are not known (a container's processes have other numbers)."""

    def __init__(self, server: Collection[int] | None = None, ours: Collection[int] | None = None) -> None:
        self.server = server
        self.ours = ours


@contextmanager
def watched(devices: Sequence[int | str]) -> Iterator[Callable[[Owners], tuple[GpuReading, ...]]]:
    """What reads these GPUs, by index or UUID (none named: all of this machine); () where there is nothing to ask."""
    with ExitStack() as stack:
        try:
            nvml = stack.enter_context(opened())
        except Unavailable:
            yield lambda _: ()
            return
        found = _asked(nvml, lambda: handles(nvml, devices)) or []
        yield lambda owners: _asked(nvml, lambda: read(nvml, found, owners)) or ()


def read(nvml: Any, gpus: Sequence[tuple[int, Any]], owners: Owners) -> tuple[GpuReading, ...]:
    """A reading of each GPU, given by index and handle."""
    held = [_processes(nvml, handle) for _, handle in gpus]
    named = {pid for processes in held for pid in processes or ()}
    return tuple(
        _reading(nvml, index, handle, _owned(processes, named, owners))
        for (index, handle), processes in zip(gpus, held, strict=True)
    )


def idle_watts() -> dict[str, float]:
    """Power of each GPU of this machine by UUID, for those on which nothing runs now; {} where nobody tells."""
    try:
        with opened() as nvml:
            readings = read(nvml, handles(nvml), Owners(ours=()))
    except Unavailable:
        return {}
    return {
        one.uuid: one.watts for one in readings if one.watts is not None and not one.foreign and one.utilisation == 0
    }


def _reading(nvml: Any, index: int, handle: Any, owned: dict[str, Any]) -> GpuReading:
    def ask(call: Callable[[], T]) -> T | None:
        return _asked(nvml, call)

    memory: Any = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    load = ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    return GpuReading(
        uuid=text(nvml.nvmlDeviceGetUUID(handle)),
        index=index,
        name=ask(lambda: text(nvml.nvmlDeviceGetName(handle))),
        memory_bytes=ask(lambda: float(memory.used)),
        total_bytes=ask(lambda: float(memory.total)),
        utilisation=None if load is None else load / 100,
        sm_mhz=ask(lambda: float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))),
        memory_mhz=ask(lambda: float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM))),
        celsius=ask(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        watts=ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3),
        joules=ask(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3),
        held_down=ask(lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))),
        **owned,
    )


def _asked(nvml: Any, call: Callable[[], T]) -> T | None:
    """What a call gives, None where the GPU, the driver or an older package does not know."""
    try:
        return call()
    except (nvml.NVMLError, AttributeError):
        return None


def _processes(nvml: Any, handle: Any) -> dict[int, int | None] | None:
    """Bytes by pid, None where the driver does not tell one or the other."""
    found = _asked(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    if found is None:
        return None
    return {int(one.pid): None if one.usedGpuMemory is None else int(one.usedGpuMemory) for one in found}


def _owned(processes: dict[int, int | None] | None, named: Collection[int], owners: Owners) -> dict[str, Any]:
    """The fields of a reading that say whose the processes on it are. From inside a container the driver may give
    numbers that mean nothing here: a stranger is one that lives here, or stands beside one that is ours."""
    if processes is None:
        return {}
    found: dict[str, Any] = {}
    own = [held for pid, held in processes.items() if pid in (owners.server or ())]
    if own and None not in own:
        found["server_bytes"] = float(sum(held or 0 for held in own))
    if owners.ours is not None:
        known = any(pid in owners.ours for pid in named)
        strange = [pid for pid in processes if pid not in owners.ours and (known or psutil.pid_exists(pid))]
        found["foreign"] = tuple(sorted(strange))
    return found
