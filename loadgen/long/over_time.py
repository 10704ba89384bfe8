"""The long repeats of a run, as far as they have come: what a report says of their course.

In: the folder of a run, finished, killed or going on. Out: an `OverTime` for each repeat that kept intervals.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from loadgen.errors import StoreError
from loadgen.long.drift import Drift
from loadgen.long.intervals import FILE, Interval, read_intervals
from loadgen.long.trend import drifts
from loadgen.store import Run
from loadgen.summary import Window
from loadgen.warmup import MOST_S


class OverTime(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat in intervals. ``ended`` is False for one that goes on or was killed: then ``window`` begins where the
    scenario's warm-up should have ended, and reaches as far as is known."""

    cell: str
    target: str
    rep: int
    attempt: int
    window: Window
    ended: bool
    intervals: tuple[Interval, ...]
    drifts: tuple[Drift, ...]


class _Summary(msgspec.Struct):
    window: Window


class _Result(msgspec.Struct):
    """What is read of ``summary.json``."""

    summary: _Summary


def over_time(run: Run, scenario: dict[str, Any]) -> Iterator[OverTime]:
    """Of every repeat of a run that kept intervals: the attempt that counts, else the newest. Raises StoreError."""
    for repeat in run.repeats():
        attempt = repeat.whole() or next(reversed(repeat.attempts()), None)
        if attempt is None or not (attempt / FILE).exists():
            continue
        intervals = read_intervals(attempt)
        window = _window(attempt)
        until = window or Window(_warmup_s(scenario), intervals[-1].end_s if intervals else 0.0)
        yield OverTime(
            cell=repeat.cell,
            target=repeat.target,
            rep=repeat.rep,
            attempt=_number(attempt),
            window=until,
            ended=window is not None,
            intervals=tuple(intervals),
            drifts=drifts(intervals, until),
        )


def _number(attempt: Path) -> int:
    return int(attempt.name.removeprefix("attempt-"))


def _window(attempt: Path) -> Window | None:
    for name in ("summary.json", "interrupted.json"):
        path = attempt / name
        if path.exists():
            try:
                return msgspec.json.decode(path.read_bytes(), type=_Result).summary.window
            except (OSError, msgspec.MsgspecError) as error:
                raise StoreError(f"cannot read {path}: {error}") from error
    return None


def _warmup_s(scenario: dict[str, Any]) -> float:
    said = (scenario.get("load") or {}).get("warmup_s", 0.0)
    return float(said) if isinstance(said, int | float) else MOST_S
