"""What telemetry says of a repeat: readings become a `Telemetry`, and that becomes doubts. Pure functions.

Everything is of the measured window but for peaks, which are of the whole repeat until the window's end: memory that
was taken in the warm-up was needed. Whatever is not known is None, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean, median
from typing import Literal, TypeVar

import msgspec

from loadgen.nvml import reasons_of
from loadgen.summary import Doubt
from loadgen.telemetry.reading import GpuReading, Reading, Usage

MIN_ENERGY_S = 30.0
"""Energy counters move in steps, and power follows the load late: below this length a difference is left out."""

MAX_EDGE_S = 5.0
"""Two looks at a counter around an edge of the window may lie this far apart."""

BUSY = 0.5
"""A clock counts while the GPU is used more than this: an idle one rests at a lower."""

MAX_MOVE = 0.05
_LEAST_BUSY = 5
_UNSEEN_BYTES = 1e9
_POWER_CAP = 0x04

Source = Literal["nvml", "dcgm"]
T = TypeVar("T")


class GpuUse(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU over a repeat. ``ours`` says whether the target runs on it, as far as can be told.

    ``memory_*`` is all that is in use there, ``server_*`` what the server's processes have; ``steady`` is the median.
    Clocks are those while busy: the median, and the 10th and 90th percentile. ``held_down`` is the share of looks at
    which each harmful reason held the clocks down, ``power_cap`` the share at which the power limit did, which is
    everyday. ``energy_j`` is None for a window under 30 s. ``foreign`` are processes of others, None if unknown.
    """

    uuid: str
    index: int | None = None
    name: str | None = None
    ours: bool = False
    memory_peak_bytes: float | None = None
    memory_steady_bytes: float | None = None
    server_peak_bytes: float | None = None
    server_steady_bytes: float | None = None
    utilisation: float | None = None
    sm_mhz: float | None = None
    sm_low_mhz: float | None = None
    sm_high_mhz: float | None = None
    memory_mhz: float | None = None
    celsius_max: float | None = None
    watts: float | None = None
    energy_j: float | None = None
    held_down: dict[str, float] | None = None
    power_cap: float | None = None
    foreign: tuple[int, ...] | None = None


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """A repeat as its machines saw it. ``source`` says who told of the GPUs, None if nobody did; ``looks`` is how often
    in the window.

    ``gpu_peak_bytes`` and ``gpu_steady_bytes`` are over the target's GPUs: what its processes have there where
    ``gpu_memory`` is ``process``, all that is in use there where it is ``gpu``. ``torch_peak_bytes`` is the peak of
    live tensors over GPUs since just before the repeat (``torch.cuda.max_memory_allocated``), ``torch_reserved_bytes``
    the most that torch's allocator held. Cores are CPU seconds a second, over the window; resident memory is summed
    over processes, shared pages counted in each. ``host_peak_bytes`` is of the machine that measures. ``client_ttft_s``
    is the client's mean TTFT of the very requests that the server's own (`prometheus.Seen.ttft_s`) is of.
    """

    source: Source | None = None
    looks: int = 0
    gpus: tuple[GpuUse, ...] = ()
    gpu_peak_bytes: float | None = None
    gpu_steady_bytes: float | None = None
    gpu_memory: Literal["process", "gpu"] | None = None
    torch_peak_bytes: float | None = None
    torch_reserved_bytes: float | None = None
    watts: float | None = None
    energy_j: float | None = None
    server_cores: float | None = None
    server_rss_peak_bytes: float | None = None
    client_cores: float | None = None
    client_rss_peak_bytes: float | None = None
    host_peak_bytes: float | None = None
    client_ttft_s: float | None = None


def measured(
    readings: Sequence[Reading], window: tuple[int, int], source: Source | None, named: bool = False
) -> Telemetry:
    """Readings of one repeat, oldest first, over a window (two moments of CLOCK_MONOTONIC in ns). ``named`` says that
    the GPUs in them are those that the target was given; else it may run on some of them only."""
    until = [one for one in readings if one.at_ns <= window[1]]
    inside = [one for one in until if one.at_ns >= window[0]]
    mine = ours_of(until, named or source == "dcgm")
    gpus = tuple(_use(readings, until, inside, uuid, window, uuid in mine) for uuid in _uuids(readings))
    ours = [one for one in gpus if one.ours]
    by_process = bool(ours) and all(one.server_peak_bytes is not None for one in ours)
    held = _server_bytes if by_process else _memory_bytes
    return Telemetry(
        source=source if gpus else None,
        looks=len(inside),
        gpus=gpus,
        gpu_peak_bytes=max(_known(_over(one, mine, held) for one in until), default=None),
        gpu_steady_bytes=_median(_over(one, mine, held) for one in inside),
        gpu_memory=("process" if by_process else "gpu") if ours else None,
        watts=_sum([one.watts for one in ours]),
        energy_j=_sum([one.energy_j for one in ours]),
        server_cores=_cores(readings, window, lambda one: one.server),
        server_rss_peak_bytes=max((one.server.rss_bytes for one in until if one.server), default=None),
        client_cores=_cores(readings, window, lambda one: one.client),
        client_rss_peak_bytes=max((one.client.rss_bytes for one in until if one.client), default=None),
        host_peak_bytes=max(_known(one.host_bytes for one in until), default=None),
    )


def machine_doubts(telemetry: Telemetry) -> Iterator[Doubt]:
    """What the machine did to the numbers of this repeat."""
    for gpu in telemetry.gpus:
        if not gpu.ours:
            continue
        name = f"GPU {gpu.uuid if gpu.index is None else gpu.index}"
        if gpu.held_down:
            why = ", ".join(f"{reason} (in {share * 100:.3g} % of looks)" for reason, share in gpu.held_down.items())
            yield Doubt("throttled", f"The clocks of {name} were held down: {why}. Look at its cooling and power.")
        if gpu.foreign:
            pids = ", ".join(map(str, gpu.foreign))
            yield Doubt("foreign_process", f"On {name} ran what is not the server's: pid {pids}.")
        low, high = gpu.sm_low_mhz, gpu.sm_high_mhz
        if low is not None and high is not None and high - low > MAX_MOVE * high:
            yield Doubt(
                "clocks_moved",
                f"The SM clock of {name} moved between {low:.0f} and {high:.0f} MHz while it was busy: power, heat "
                "or boost did that. Lock it (nvidia-smi -lgc) for numbers that repeat.",
            )


def throttled(found: Sequence[Telemetry]) -> str | None:
    """Whether the GPUs of a target were slowed down in more than one look of twenty, in any of its repeats, in words:
    ``no``, or the reasons. None where nobody says."""
    shares = [gpu.held_down for one in found for gpu in one.gpus if gpu.ours and gpu.held_down is not None]
    reasons = dict.fromkeys(reason for held in shares for reason, share in held.items() if share > 0.05)
    return (", ".join(reasons) or "no") if shares else None


def interpolated(points: Sequence[tuple[int, float]], at: int) -> float | None:
    """A counter's value at a moment (ns), between the two looks around it; None where it has none within 5 s.

    Looks at which it had not moved are looks at an old value, and are passed over.
    """
    moved = [point for i, point in enumerate(points) if i == 0 or point[1] != points[i - 1][1]]
    before = next((point for point in reversed(moved) if point[0] <= at), None)
    after = next((point for point in moved if point[0] >= at), None)
    if before is None or after is None or after[0] - before[0] > MAX_EDGE_S * 1e9:
        return None
    if after[0] == before[0]:
        return before[1]
    return before[1] + (after[1] - before[1]) * (at - before[0]) / (after[0] - before[0])


def _use(
    readings: Sequence[Reading],
    until: Sequence[Reading],
    inside: Sequence[Reading],
    uuid: str,
    window: tuple[int, int],
    ours: bool,
) -> GpuUse:
    """One GPU. Its counter is also looked at after the window, for the edge."""
    every, now = _of(until, uuid), _of(inside, uuid)
    busy = sorted(one.sm_mhz for one in now if one.sm_mhz is not None and (one.utilisation or 0.0) >= BUSY)
    masks = _known(one.held_down for one in now)
    foreign = _known(one.foreign for one in now)
    last = _of(readings, uuid)[-1]
    return GpuUse(
        uuid=uuid,
        index=last.index,
        name=last.name,
        ours=ours,
        memory_peak_bytes=max(_known(one.memory_bytes for one in every), default=None),
        memory_steady_bytes=_median(one.memory_bytes for one in now),
        server_peak_bytes=max(_known(one.server_bytes for one in every), default=None),
        server_steady_bytes=_median(one.server_bytes for one in now),
        utilisation=_mean(one.utilisation for one in now),
        sm_mhz=_median(busy),
        sm_low_mhz=busy[len(busy) // 10] if len(busy) >= _LEAST_BUSY else None,
        sm_high_mhz=busy[-1 - len(busy) // 10] if len(busy) >= _LEAST_BUSY else None,
        memory_mhz=_median(one.memory_mhz for one in now),
        celsius_max=max(_known(one.celsius for one in now), default=None),
        watts=_mean(one.watts for one in now),
        energy_j=_energy(readings, uuid, window),
        held_down=_shares(masks) if masks else None,
        power_cap=sum(bool(mask & _POWER_CAP) for mask in masks) / len(masks) if masks else None,
        foreign=tuple(sorted({pid for pids in foreign for pid in pids})) if foreign else None,
    )


def _energy(readings: Sequence[Reading], uuid: str, window: tuple[int, int]) -> float | None:
    if window[1] - window[0] < MIN_ENERGY_S * 1e9:
        return None
    points = [
        (one.at_ns, gpu.joules) for one in readings for gpu in one.gpus if gpu.uuid == uuid and gpu.joules is not None
    ]
    start, end = interpolated(points, window[0]), interpolated(points, window[1])
    return None if start is None or end is None or end < start else end - start


def _cores(
    readings: Sequence[Reading], window: tuple[int, int], whose: Callable[[Reading], Usage | None]
) -> float | None:
    """CPU seconds a second of the window, None where it cannot be bracketed by looks."""
    points = [(one.at_ns, usage.cpu_s) for one in readings if (usage := whose(one)) is not None]
    inside = [point for point in points if window[0] <= point[0] <= window[1]]
    if len(inside) < 2:
        return None
    (start, used), (end, later) = inside[0], inside[-1]
    return (later - used) / ((end - start) / 1e9)


def ours_of(readings: Sequence[Reading], named: bool) -> set[str]:
    """The GPUs that the target runs on: those on which its processes are, else those that it was given, else the only
    one of the machine if something is in its memory."""
    seen = {gpu.uuid for one in readings for gpu in one.gpus if gpu.server_bytes is not None}
    every = _uuids(readings)
    if seen or named:
        return seen or set(every)
    used = any((gpu.memory_bytes or 0.0) > _UNSEEN_BYTES for one in readings for gpu in one.gpus)
    return set(every) if len(every) == 1 and used else set()


def _uuids(readings: Sequence[Reading]) -> list[str]:
    return list(dict.fromkeys(gpu.uuid for one in readings for gpu in one.gpus))


def _of(readings: Sequence[Reading], uuid: str) -> list[GpuReading]:
    return [gpu for one in readings for gpu in one.gpus if gpu.uuid == uuid]


def _over(reading: Reading, uuids: set[str], value: Callable[[GpuReading], float | None]) -> float | None:
    """The sum over these GPUs at one moment, None where one of them does not tell."""
    return _sum([value(gpu) for gpu in reading.gpus if gpu.uuid in uuids])


def _server_bytes(gpu: GpuReading) -> float | None:
    return gpu.server_bytes


def _memory_bytes(gpu: GpuReading) -> float | None:
    return gpu.memory_bytes


def _shares(masks: Sequence[int]) -> dict[str, float]:
    reasons = [reason for mask in masks for reason in reasons_of(mask)]
    return {reason: reasons.count(reason) / len(masks) for reason in dict.fromkeys(reasons)}


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _known(values: Iterable[T | None]) -> list[T]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return fmean(known) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return median(known) if known else None
