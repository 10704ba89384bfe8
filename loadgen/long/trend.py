"""What the intervals of a repeat say about its end: drifts of the server's speed, and memory that only grows.

In: the intervals inside the measured window. Out: a `Drift` for each series that is there, sentences, and doubts.
Holm's procedure decides over the series of one repeat together: a steady one is called drifting once in twenty times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from loadgen.long.drift import Drift, Kind, drift
from loadgen.long.intervals import Interval
from loadgen.metrics import METRICS
from loadgen.statistics import holm
from loadgen.summary import Doubt, Window

MEMORY_MARGIN = 0.02
"""Growth of memory, over the window or an hour, that is worth a doubt."""

_SERIES: tuple[tuple[str, Kind], ...] = (
    ("output_tok_s", "level"),
    ("ttft_p50_s", "level"),
    ("server_bytes", "growth"),
    ("gpu_bytes", "growth"),
)

NAMES = MappingProxyType(
    {
        "output_tok_s": "output tok/s",
        "ttft_p50_s": "median TTFT",
        "server_bytes": "memory of the server's processes",
        "gpu_bytes": "GPU memory in use",
    }
)
"""What the series are called."""


def drifts(intervals: Sequence[Interval], window: Window) -> tuple[Drift, ...]:
    """The drift of every series of which anything is known, over the whole intervals inside the window."""
    length = max((one.length_s for one in intervals), default=0.0)
    inside = [one for one in measured(intervals, window) if one.length_s >= 0.999 * length]
    found = []
    for what, kind in _SERIES:
        values = [_value(one, what) for one in inside]
        if any(value is not None for value in values):
            found.append(drift(what, values, length, kind))
    return tuple(found)


def measured(intervals: Sequence[Interval], window: Window) -> list[Interval]:
    """Those that lie inside the window."""
    return [one for one in intervals if one.start_s >= window.w0 - 1e-6 and one.end_s <= window.w1 + 1e-6]


def found_drifting(found: Sequence[Drift]) -> list[Drift]:
    """Those that Holm's procedure calls different from none at 5 % over the series, and that matter: by more than the
    metric's margin over the window, or an hour where the window is shorter. Memory matters where it grows."""
    tested = [one for one in found if one.p is not None]
    rejected = holm([one.p for one in tested if one.p is not None])
    return [one for one, sure in zip(tested, rejected, strict=True) if sure and _matters(one)]


def doubts(found: Sequence[Drift]) -> Iterator[Doubt]:
    """What drifts that were found do to the numbers of the repeat."""
    for one in found_drifting(found):
        if one.what in ("server_bytes", "gpu_bytes"):
            text = f"{_moved(one)} It has not come to rest: look for a leak before this server runs for days."
            yield Doubt("memory_growth", text)
        else:
            yield Doubt(f"drift_{one.what}", f"{_moved(one)} One number for the window hides that.")


def sentence(one: Drift, drifting: bool) -> str:
    """A drift in words, whatever it is."""
    name = NAMES[one.what]
    if one.why is not None:
        return f"{name}: not tested for drift: {one.why}"
    if drifting:
        return f"{name}: {_pace(one)}"
    return f"{name}: steady ({_change(one.total)} over {one.n} intervals {_interval(one)}, p = {_p(one)})"


def _moved(one: Drift) -> str:
    name = NAMES[one.what]
    return f"{name[0].upper()}{name[1:]} {_pace(one)}."


def _pace(one: Drift) -> str:
    assert one.per_hour is not None
    assert one.total is not None
    memory = one.what.endswith("bytes")
    verb = ("grew" if memory else "rose") if one.total > 0 else "fell"
    size = f" ({one.total * (one.level or 0.0) / 2**20:.3g} MiB)" if memory else ""
    return (
        f"{verb} by {_percent(abs(one.total))}{size} over {one.n} intervals {_interval(one)}, "
        f"{_percent(abs(one.per_hour))} an hour (p = {_p(one)})"
    )


def _interval(one: Drift) -> str:
    return f"[{_change(one.low)}, {_change(one.high)}]"


def _change(share: float | None) -> str:
    return "?" if share is None else f"{share * 100:+.3g} %"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _p(one: Drift) -> str:
    assert one.p is not None
    return "under 0.0001" if one.p < 1e-4 else f"{one.p:.2g}"


def _matters(one: Drift) -> bool:
    assert one.per_hour is not None
    assert one.total is not None
    size = max(abs(one.per_hour), abs(one.total))
    if one.what.endswith("bytes"):
        return one.per_hour > 0 and size >= MEMORY_MARGIN
    return size >= METRICS[{"ttft_p50_s": "ttft_s"}.get(one.what, one.what)].margin


def _value(one: Interval, what: str) -> float | None:
    held = one.server.get(what) if what.endswith("bytes") else getattr(one, what)
    return None if held is None else float(held)
